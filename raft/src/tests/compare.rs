//! Nodes compare what they have: one that most others contradict takes no part any more.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::fixture::{Cluster, Kind};
use crate::{Fault, columns::Column, engine::Batch, record};

/// Has a node apply the next changes to another state than the others have.
async fn lead_astray(cluster: &mut Cluster, node: u64) {
    let hash = cluster.store(node).status().borrow().hash;
    let mut batch = Batch::default();
    batch.put(Column::StateMeta, b"hash".to_vec(), record::encode(&(hash ^ 1)).unwrap());
    cluster.store(node).inner.engine.write(batch).unwrap();
    cluster.stop(node).await;
    cluster.start(node).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_state_most_others_contradict_is_fenced_and_the_others_go_on() {
    let mut cluster = Cluster::of_three(Kind::Memory).await;
    let last = cluster.put(1, "a").await;
    cluster.reaches(3, last).await;
    sleep(Duration::from_secs(60)).await;
    for node in 1..=3 {
        assert_eq!(cluster.store(node).fault(), None, "all is well");
    }
    lead_astray(&mut cluster, 3).await;
    let revision = cluster.put(1, "b").await;
    let mut status = cluster.store(3).status();
    let fenced = status.wait_for(|status| status.fault.is_some());
    let fault = timeout(Duration::from_secs(120), fenced).await.unwrap().unwrap().fault.clone();
    let Some(Fault::Diverged { revision: at, own, agreed }) = fault else { panic!("{fault:?}") };
    assert!(at >= revision && own != agreed);
    assert_eq!([1, 2].map(|node| cluster.store(node).fault()), [None, None]);
    cluster.put(2, "c").await;
}
