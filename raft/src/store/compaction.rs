//! Compaction: how much of the past is kept, and the tasks that see to it.
//!
//! Invariant: the leader lets go of what is both older than [`Retention::time`] and further back than [`Retention::revisions`]; what that
//! frees, every node sweeps away for itself, a little at a time. A store in which nothing is written compacts nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use quorate_proto::{
    ids::RequestId,
    txn::{Command, Revision},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Inner, PROPOSE};
use crate::{engine::look, machine, record};

/// A step of a sweep looks at so many operations, and is followed by a rest: whoever reads and writes goes first.
const STEP: usize = 256;
const REST: Duration = Duration::from_millis(2);

/// How often it is looked at what was written, at most.
const LOOK: Duration = Duration::from_millis(100);

/// How much of the past is kept, at least: whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long a revision can be read and watched after the next one was written.
    pub time: Duration,
    /// So many of the newest revisions can always be.
    pub revisions: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: Duration::from_secs(300), revisions: 10_000 }
    }
}

/// When revisions were written, roughly.
#[derive(Debug)]
pub(crate) struct Past {
    retention: Retention,
    /// The newest revision at a moment, oldest first; a thirtieth of the retention apart at least.
    seen: VecDeque<(Instant, Revision)>,
}

/// What is to be done about the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Compact at this revision.
    Now(Revision),
    /// Nothing before then.
    At(Instant),
    /// Nothing, unless something is written.
    Never,
}

impl Past {
    pub(crate) const fn new(retention: Retention) -> Self {
        Self { retention, seen: VecDeque::new() }
    }

    /// Takes note of the newest revision.
    pub(crate) fn note(&mut self, now: Instant, revision: Revision) {
        let apart = self.retention.time / 30;
        let again = self.seen.back().is_some_and(|(at, seen)| *seen == revision || now < *at + apart);
        if !again {
            self.seen.push_back((now, revision));
        }
    }

    /// What is to be done, when the store is at `revision` and has been compacted at `compacted`.
    pub(crate) fn due(&mut self, now: Instant, revision: Revision, compacted: Revision) -> Due {
        let far = Revision(revision.0.saturating_sub(self.retention.revisions));
        // A log entry is worth it only for a good piece of the past.
        let piece = (self.retention.revisions / 10).max(1);
        while self.seen.get(1).is_some_and(|(at, _)| *at + self.retention.time <= now) {
            self.seen.pop_front();
        }
        let Some((at, old)) = self.seen.front().copied() else { return Due::Never };
        let candidate = old.min(far);
        if at + self.retention.time <= now && candidate.0 >= compacted.0 + piece {
            return Due::Now(candidate);
        }
        if far.0 < compacted.0 + piece {
            return Due::Never;
        }
        let next = self.seen.iter().map(|(at, _)| *at + self.retention.time).find(|at| *at > now);
        next.map_or(Due::Never, Due::At)
    }
}

/// Compacts for as long as this node leads. Runs until the store stops.
pub(super) async fn retain(inner: Arc<Inner>, retention: Retention) {
    let (mut status, mut progress) = (inner.status.clone(), inner.feed.progress());
    let mut past = Past::new(retention);
    loop {
        status.mark_unchanged();
        let seen = *progress.borrow_and_update();
        let now = Instant::now();
        past.note(now, seen.revision);
        let due = past.due(now, seen.revision, seen.compacted);
        let leading = status.borrow().leading;
        if let (Due::Now(revision), true) = (due, leading) {
            let request = RequestId(u128::from(inner.random.number()) << 64 | u128::from(inner.random.number()));
            let Ok(command) = record::encode(&Command::Compact { request, revision }) else { return };
            let tried = timeout(PROPOSE, inner.submit(command));
            match inner.shutdown.run_until_cancelled(tried).await {
                None => return,
                Some(Ok(super::Tried::Done(outcome))) => tracing::debug!(?outcome, "compacted"),
                // It is tried again when something changes.
                Some(_) => inner.pause().await,
            }
        }
        let wake = async {
            match due {
                Due::At(at) => sleep_until(at).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            changed = progress.changed() => {
                // Under load it changes thousands of times a second, which is of no interest here.
                if changed.is_err() || inner.shutdown.run_until_cancelled(sleep(LOOK)).await.is_none() {
                    return;
                }
            }
            () = wake => {}
        }
    }
}

/// Sweeps away what was compacted. Runs until the store stops.
pub(super) async fn sweep(inner: Arc<Inner>) {
    let mut progress = inner.feed.progress();
    let mut swept = Revision(0);
    loop {
        let wait = progress.wait_for(|progress| progress.compacted > swept);
        let compacted = match inner.shutdown.run_until_cancelled(wait).await {
            Some(Ok(progress)) => progress.compacted,
            Some(Err(_)) | None => return,
        };
        loop {
            let step = look(&*inner.engine, |view| machine::sweep(view, STEP));
            match step.and_then(|batch| batch.map(|batch| inner.engine.write(batch)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    // Reads and watches do not depend on it: what is left is swept after the next start.
                    tracing::warn!(%error, "what was compacted is not swept away");
                    return;
                }
            }
            if inner.shutdown.run_until_cancelled(sleep(REST)).await.is_none() {
                return;
            }
        }
        swept = compacted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention { time: Duration::from_secs(300), revisions: 1000 };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_both_old_and_far_back_is_let_go_of() {
        let (mut past, start) = (Past::new(RETENTION), Instant::now());
        past.note(start, Revision(5000));
        assert_eq!(past.due(start, Revision(5000), Revision(0)), Due::At(after(start, 300)), "far back, but new");
        past.note(after(start, 200), Revision(5500));
        assert_eq!(past.due(after(start, 299), Revision(5500), Revision(0)), Due::At(after(start, 300)));
        assert_eq!(past.due(after(start, 300), Revision(5500), Revision(0)), Due::Now(Revision(4500)));
        assert_eq!(past.due(after(start, 300), Revision(9000), Revision(0)), Due::Now(Revision(5000)), "old enough");
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_revisions_are_kept_however_old_they_are() {
        let (mut past, start) = (Past::new(RETENTION), Instant::now());
        past.note(start, Revision(900));
        assert_eq!(past.due(after(start, 100_000), Revision(900), Revision(0)), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_in_which_nothing_is_written_compacts_once_and_then_nothing_more() {
        let (mut past, start) = (Past::new(RETENTION), Instant::now());
        past.note(start, Revision(5000));
        let due = past.due(after(start, 300), Revision(5000), Revision(0));
        assert_eq!(due, Due::Now(Revision(4000)));
        assert_eq!(past.due(after(start, 300), Revision(5000), Revision(4000)), Due::Never);
        assert_eq!(past.due(after(start, 100_000), Revision(5000), Revision(4000)), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_store_remembers_no_more_moments_than_it_needs() {
        let (mut past, start) = (Past::new(RETENTION), Instant::now());
        for second in 0..10_000 {
            past.note(after(start, second), Revision(second * 100));
            past.due(after(start, second), Revision(second * 100), Revision(0));
            assert!(past.seen.len() <= 33);
        }
    }
}
