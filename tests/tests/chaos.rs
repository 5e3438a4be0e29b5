//! A story of real daemons on a real disk that are killed while clients write: nothing that was acknowledged is lost, no read goes back in
//! time, no watch misses or repeats anything.
//!
//! `make chaos` does the same for as long as one likes, with more kinds of faults.

use std::time::Duration;

use quorate_tests::{
    chaos::{
        Settings,
        fault::Kind,
        report::{Tally, table},
        run,
    },
    stores::{cluster::Cluster, ours},
};

/// The leader is killed, and again while it starts; so is the next one; then a leader and another node at once.
const SEED: u64 = 9;
const ROUNDS: u64 = 3;

#[test]
fn nothing_is_lost_when_nodes_are_killed_under_load() {
    // On a real disk: what is temporary may be in memory.
    let directory = tempfile::Builder::new().prefix("chaos-").tempdir_in("/var/tmp").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tally: Tally = runtime.block_on(async {
        let cluster = Cluster::Ours(ours::Cluster::start(&directory.path().join("ours")).await.unwrap());
        let settings =
            Settings { lasts: Duration::from_secs(600), rounds: ROUNDS, kinds: vec![Kind::Kill], seed: SEED };
        run(cluster, &settings).await
    });
    if !tally.is_good() {
        let kept = directory.keep();
        panic!("{}\nkept: {}", tally.complaint(), kept.display());
    }
    let table = table(std::slice::from_ref(&tally));
    assert!(tally.kills > ROUNDS && tally.acknowledged > 100 && tally.delivered > 200, "too little happened\n{table}");
}
