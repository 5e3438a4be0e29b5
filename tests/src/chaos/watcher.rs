//! Watchers: each follows one watch over many nodes, from where it stopped on the last.
//!
//! Invariant: a watcher adds nothing and leaves nothing out of what it was told.

use std::{sync::Arc, time::Duration};

use quorate_proto::txn::Revision;
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout_at};

use super::{client::Shared, nodes::Link};

/// How long a watcher stays with a node, in milliseconds.
const STAY: std::ops::Range<u64> = 200..3000;

/// After a node that does not answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows until all of the section was told: `end`, when it is known, is its last revision.
pub(super) async fn run(shared: Arc<Shared>, mut random: StdRng, end: tokio::sync::watch::Receiver<Option<Revision>>) {
    let watch = shared.record.watch();
    loop {
        let (node, until) =
            (random.random_range(0..3), Instant::now() + Duration::from_millis(random.random_range(STAY)));
        if let Some(link) = shared.nodes.link(node).await {
            let follow = timeout_at(until, follow(&shared, watch, &link));
            // However it ends, it goes on somewhere.
            let _ = link.gone.run_until_cancelled(follow).await;
        }
        let told = shared.record.upto(watch);
        if end.borrow().is_some_and(|end| told >= end) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn follow(shared: &Shared, watch: usize, link: &Link) {
    let Ok(mut events) = link.session.follow(&shared.record.prefix, shared.record.upto(watch)).await else { return };
    while let Ok(changes) = events.changes().await {
        shared.record.delivered(watch, changes);
    }
}
