//! When the leader was last heard.
//!
//! openraft forgets a leader only when it votes for another node; and one that first asks whether the others would vote for it, and
//! reaches nobody, never does. It would take a leader for alive that it has not heard for hours.
//!
//! Invariant: a leader counts only while it is heard, and counts again as soon as it is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_proto::ids::NodeId;
use tokio::{sync::Notify, time::Instant};

use crate::config::Timing;

/// A leader counts for so long after it was heard, at least: whoever follows wakes as often to look.
const LEAST: Duration = Duration::from_secs(2);

/// When the leader was last heard.
#[derive(Debug)]
pub(crate) struct Heard {
    last: Mutex<Option<(NodeId, Instant)>>,
    news: Notify,
    trust: Duration,
}

impl Heard {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { last: Mutex::default(), news: Notify::new(), trust: LEAST.max(timing.election_max * 2) }
    }

    /// A node led, a moment ago.
    pub(crate) fn note(&self, leader: NodeId) {
        let before = self.last().replace((leader, Instant::now()));
        if before.is_none_or(|(of, at)| of != leader || at.elapsed() >= self.trust) {
            self.news.notify_one();
        }
    }

    /// Until when a node counts as the leader; `None` if it does not.
    pub(crate) fn until(&self, leader: NodeId) -> Option<Instant> {
        let (_, at) = self.last().filter(|(of, _)| *of == leader)?;
        let until = at + self.trust;
        (until > Instant::now()).then_some(until)
    }

    /// Waits until one is heard that did not count.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    fn last(&self) -> MutexGuard<'_, Option<(NodeId, Instant)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_counts_while_it_is_heard_and_again_when_it_is_heard_again() {
        let heard = Heard::new(Timing::QUICK);
        let (leader, other) = (NodeId(1), NodeId(2));
        assert_eq!(heard.until(leader), None, "nobody was heard yet");
        heard.note(leader);
        heard.news().await;
        assert_eq!((heard.until(leader), heard.until(other)), (Some(Instant::now() + LEAST), None));
        advance(LEAST / 2).await;
        heard.note(leader);
        let quiet = timeout(Duration::from_millis(1), heard.news()).await;
        assert!(quiet.is_err(), "it counted already");
        advance(LEAST).await;
        assert_eq!(heard.until(leader), None);
        heard.note(leader);
        heard.news().await;
        assert!(heard.until(leader).is_some());
    }
}
