//! When this node last heard each node: the leader's memory of who lives.
//!
//! Heartbeats are not state: they are never stored, and a new leader counts from its own first moment, since it cannot know what the
//! last one heard.
//!
//! Invariant: instants are of this process' own clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quorate_proto::world::Instant;

use crate::loops::Nudge;

/// A node that was silent for this long and is heard again is worth a new decision.
const NOTABLE: Duration = Duration::from_secs(3);

/// Who was heard when.
#[derive(Debug)]
pub(crate) struct Heard {
    last: Mutex<BTreeMap<String, Instant>>,
    returned: Nudge,
}

impl Heard {
    /// Nobody was heard yet; `returned` is nudged when a node is heard after a silence.
    #[must_use]
    pub(crate) const fn new(returned: Nudge) -> Self {
        Self { last: Mutex::new(BTreeMap::new()), returned }
    }

    /// A node was heard.
    pub(crate) fn hear(&self, node: &str, now: Instant) {
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), now);
        if before.is_none_or(|before| now.since(before) >= NOTABLE) {
            self.returned.nudge();
        }
    }

    /// When each node was last heard.
    #[must_use]
    pub(crate) fn last(&self) -> BTreeMap<String, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_heard_again_after_a_silence_wakes_who_decides() {
        let nudge = Nudge::new();
        let heard = Heard::new(nudge.clone());
        let mut listener = nudge.listen();
        let mut woken = |second| {
            heard.hear("n1", Instant(Duration::from_secs(second)));
            let woken = listener.has_changed().unwrap();
            listener.mark_unchanged();
            woken
        };
        assert_eq!([1, 2, 3, 9, 10].map(&mut woken), [true, false, false, true, false]);
        assert_eq!(heard.last()["n1"], Instant(Duration::from_secs(10)));
    }
}
