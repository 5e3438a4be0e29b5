//! Watchers: each follows one watch over many nodes, from where it stopped on the last.
//!
//! Invariant: a watcher adds nothing and leaves nothing out of what it was told.

use std::{sync::Arc, time::Duration};

use quorate_proto::txn::Revision;
use rand::{RngExt as _, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{client::Shared, nodes::Link};

/// How long a watcher stays with a node, in milliseconds.
const STAY: std::ops::Range<u64> = 200..3000;

/// After a node that does not answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows until all of the section was told: `end`, when it is known, is its last revision.
pub(super) async fn run(shared: Arc<Shared>, mut random: StdRng, end: watch::Receiver<Option<Revision>>) {
    let number = shared.record.watch();
    tokio::select! {
        () = wander(&shared, number, &mut random) => {}
        () = told(&shared, number, end) => {}
    }
}

/// Waits until a watch was told all.
async fn told(shared: &Shared, number: usize, mut end: watch::Receiver<Option<Revision>>) {
    let end = end.wait_for(Option::is_some).await.ok().and_then(|end| *end);
    while end.is_none_or(|end| shared.record.upto(number) < end) {
        sleep(PAUSE).await;
    }
}

/// Follows a watch from node to node.
async fn wander(shared: &Shared, number: usize, random: &mut StdRng) {
    loop {
        let (node, until) =
            (random.random_range(0..3), Instant::now() + Duration::from_millis(random.random_range(STAY)));
        if let Some(link) = shared.nodes.link(node).await {
            let follow = timeout_at(until, follow(shared, number, &link));
            // However it ends, it goes on somewhere.
            let _ = link.gone.run_until_cancelled(follow).await;
        }
        sleep(PAUSE).await;
    }
}

async fn follow(shared: &Shared, number: usize, link: &Link) {
    let Ok(mut events) = link.session.follow(&shared.record.prefix, shared.record.upto(number)).await else { return };
    while let Ok(changes) = events.changes().await {
        shared.record.delivered(number, changes);
    }
}
