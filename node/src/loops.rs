//! The one shape of every loop around a decision: wait for a change, a nudge, a deadline or the end; take the newest snapshot; act.
//!
//! Start-up and failover take the everyday path: the first pass runs at once, on whatever the snapshot is. A pass is not told what
//! changed; it returns when it wants to run again even if nothing changes.
//!
//! Invariant: passes of one loop never overlap, and a change that arrives during a pass causes another.

use std::{future::Future, sync::Arc};

use quorate_proto::{
    snapshot::Snapshot,
    world::{Clock, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The newest snapshot of this node, as it is replaced.
pub(crate) type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// What wakes a loop besides snapshots: a counter that is raised.
#[derive(Debug, Clone)]
pub(crate) struct Nudge(watch::Sender<u64>);

impl Nudge {
    /// Nobody is nudged yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Wakes every loop that listens.
    pub(crate) fn nudge(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Listens from now on.
    #[must_use]
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Default for Nudge {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs passes until the token is cancelled or the snapshots end.
pub(crate) async fn run<Pass>(
    mut snapshots: Snapshots,
    mut nudges: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    mut pass: impl FnMut(Arc<Snapshot>) -> Pass,
) where
    Pass: Future<Output = Option<Instant>>,
{
    let mut wake_at = None;
    snapshots.mark_changed();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = nudges.changed() => if changed.is_err() { return },
            () = sleep_until(&*clock, wake_at) => {}
        }
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        tokio::select! {
            () = shutdown.cancelled() => return,
            wake = pass(snapshot) => wake_at = wake,
        }
    }
}

/// Sleeps until a deadline on the process' own clock; for ever without one.
pub(crate) async fn sleep_until(clock: &dyn Clock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock.now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;
    use crate::world::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn a_loop_runs_at_once_then_on_changes_nudges_and_deadlines() {
        let (sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (nudge, shutdown, clock) = (Nudge::new(), CancellationToken::new(), Arc::new(SystemClock::start()));
        let passes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&passes);
        let at = Arc::clone(&clock);
        let pass = move |_| {
            let now = at.now();
            seen.lock().unwrap().push(now.0.as_secs());
            async move { Some(now + Duration::from_secs(10)) }
        };
        let running = run(snapshots, nudge.listen(), clock, shutdown.clone(), pass);
        let script = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            sender.send_replace(Arc::new(Snapshot::default()));
            tokio::time::sleep(Duration::from_secs(4)).await;
            nudge.nudge();
            tokio::time::sleep(Duration::from_secs(15)).await;
            shutdown.cancel();
        };
        tokio::join!(running, script);
        assert_eq!(*passes.lock().unwrap(), [0, 3, 7, 17]);
    }
}
