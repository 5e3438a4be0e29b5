//! Watchers: each follows one watch over many nodes, from where it stopped on the last; and auditors, who follow every node.
//!
//! Invariant: a watcher adds nothing and leaves nothing out of what it was told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_proto::txn::Revision;
use quorate_raft::{Store, WatchError};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    check::Ledger,
    client::Recorder,
    history::Watched,
    host::{Host, Running},
};

/// Follows a watch.
pub(super) struct Watcher {
    index: usize,
    runs: Option<Arc<AtomicBool>>,
    moves: u64,
    pub(super) taken_up: usize,
}

struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Watcher {
    /// A watch that begins after a revision.
    pub(super) fn new(from: Revision, recorder: &Recorder) -> Self {
        let index = recorder.note(|history| {
            history.watches.push(Watched { from, delivered: Vec::new() });
            history.watches.len() - 1
        });
        Self { index, runs: None, moves: 0, taken_up: 0 }
    }

    /// Goes on, on another node, if it was ended or has been on one for long enough.
    pub(super) fn step(&mut self, hosts: &[&Host], recorder: &Recorder, random: &mut StdRng) {
        let runs = self.runs.as_ref().is_some_and(|runs| runs.load(Ordering::Relaxed));
        if runs && recorder.now() < self.moves || hosts.is_empty() {
            return;
        }
        if let Some(stop) = self.runs.take() {
            stop.store(false, Ordering::Relaxed);
        }
        let host = hosts[random.random_range(0..hosts.len())];
        let Some(running) = &host.running else { return };
        self.moves = recorder.now() + random.random_range(100..2000);
        self.taken_up += 1;
        let slow = if random.random_range(0..3) == 0 { random.random_range(1..300) } else { 0 };
        let runs = Arc::new(AtomicBool::new(true));
        self.runs = Some(Arc::clone(&runs));
        let follow = follow(running.store.clone(), self.index, recorder.clone(), runs, slow);
        running.tasks.spawn_on(follow, running.runtime.handle());
    }
}

async fn follow(store: Store, index: usize, recorder: Recorder, runs: Arc<AtomicBool>, slow: u64) {
    let _end = End(Arc::clone(&runs));
    let from = recorder.note(|history| {
        let watched = &history.watches[index];
        watched.delivered.last().and_then(|changes| changes.first()).map_or(watched.from, |change| change.revision)
    });
    let Ok(mut watch) = store.watch(from) else { return };
    while let Ok(changes) = watch.next().await {
        // It may go on elsewhere by now.
        if !runs.load(Ordering::Relaxed) {
            return;
        }
        recorder.note(|history| history.watches[index].delivered.push(changes));
        if slow > 0 {
            tokio::time::sleep(Duration::from_millis(slow)).await;
        }
    }
}

/// What all nodes say was decided, and where they differ.
#[derive(Default)]
pub(super) struct Audit {
    pub(super) ledger: Ledger,
    pub(super) wrong: Vec<String>,
}

/// Follows one life of a node from the first revision on.
pub(super) fn audit(host: &Host, running: &Running, audit: &Arc<Mutex<Audit>>) {
    let (store, audit, node) = (running.store.clone(), Arc::clone(audit), host.id);
    let follow = async move {
        let Ok(mut watch) = store.watch(Revision(0)) else { return };
        loop {
            let changes = match watch.next().await {
                Ok(changes) => changes,
                // A disk that cannot be read is one of the faults; damage is not.
                Err(WatchError::Storage(error)) if error.kind() != std::io::ErrorKind::InvalidData => return,
                Err(WatchError::Stopped) => return,
                Err(error) => {
                    let error = quorate_proto::refusal::chain(&error);
                    audit.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(format!("{node}: {error}"));
                    return;
                }
            };
            let Some(revision) = changes.first().map(|change| change.revision) else { continue };
            let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
            let decided = audit.ledger.entry(revision).or_insert_with(|| Arc::clone(&changes));
            if *decided != changes {
                let what = format!("{node}: revision {revision} is {changes:?}, elsewhere {decided:?}");
                audit.wrong.push(what);
            }
        }
    };
    running.tasks.spawn_on(follow, running.runtime.handle());
}
