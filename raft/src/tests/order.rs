//! In which order a store writes: what a crash may leave of it must be something it can start from.

use std::{ops::ControlFlow, time::Duration};

use super::fixture::{Cluster, Kind};
use crate::{
    Trouble,
    columns::{self, Column},
    engine::look,
    machine::Meta,
};

#[tokio::test(start_paused = true)]
async fn a_state_never_gets_ahead_of_its_log_where_a_crash_could_show_it() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let disk = cluster.disk(follower);
    disk.set_trouble(Trouble { delay: Duration::from_millis(300), ..Trouble::default() });
    let mut lagged = false;
    for number in 0..40 {
        cluster.put(leader, &format!("k{number}")).await;
        let (applied, last) = look(&disk.crash_keeping(usize::MAX), |view| {
            let mut last = 0;
            view.scan(Column::RaftLog, &[], None, &mut |key, _| {
                last = columns::log_index(key).unwrap();
                Ok(ControlFlow::Continue(()))
            })?;
            Ok((Meta::load(view)?.applied.unwrap().index, last))
        })
        .unwrap();
        assert!(applied <= last, "entry {applied} is applied, and the log ends at {last}");
        let revision = |node| cluster.store(node).inner.feed.progress().borrow().revision;
        lagged |= revision(follower) < revision(leader);
    }
    assert!(lagged, "the disk was not slow enough to prove anything");
}
