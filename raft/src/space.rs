//! How much room the disk of a store has, and what that allows.
//!
//! A store that wrote until the last byte could not even delete. So it stops early: below [`RESERVE`] the leader takes only what frees
//! room or hardly needs any, below [`FLOOR`] a follower takes no entries. Both are over as soon as there is room again.
//!
//! Invariant: a full disk costs writes, never data: whoever is full stays a member, keeps voting, and catches up.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// What is kept free for deletes, compaction and what the log must still take, in bytes.
pub const RESERVE: u64 = 64 << 20;

/// With less than this, in bytes, a follower takes no entries, and no store is opened.
pub const FLOOR: u64 = 16 << 20;

/// How often the room is looked at. Nothing is written or read for that.
const LOOK: Duration = Duration::from_secs(1);

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// Enough for everything.
    #[default]
    Enough,
    /// Less than [`RESERVE`]: nothing new is written.
    Low {
        /// Bytes that are free.
        free: u64,
    },
    /// Less than [`FLOOR`]: nothing is written at all.
    None {
        /// Bytes that are free.
        free: u64,
    },
}

impl Room {
    /// What `free` bytes are, after `before`: an alarm ends only with a quarter more than began it, so that it does not come and go.
    #[must_use]
    pub const fn judge(before: Self, free: u64) -> Self {
        let (floor, reserve) = match before {
            Self::Enough => (FLOOR, RESERVE),
            Self::Low { .. } => (FLOOR, RESERVE / 4 * 5),
            Self::None { .. } => (FLOOR / 4 * 5, RESERVE / 4 * 5),
        };
        if free < floor {
            Self::None { free }
        } else if free < reserve {
            Self::Low { free }
        } else {
            Self::Enough
        }
    }

    /// Bytes that are free, if they are too few.
    #[must_use]
    pub const fn short(self) -> Option<u64> {
        match self {
            Self::Enough => None,
            Self::Low { free } | Self::None { free } => Some(free),
        }
    }

    const fn level(self) -> u8 {
        match self {
            Self::Enough => 0,
            Self::Low { .. } => 1,
            Self::None { .. } => 2,
        }
    }
}

/// Looks at the room until the store stops, and tells whenever it is another.
pub(crate) async fn keep(engine: Arc<dyn Engine>, room: watch::Sender<Room>, shutdown: CancellationToken) {
    loop {
        match engine.free() {
            Ok(free) => tell(&room, free),
            Err(error) => tracing::warn!(%error, "how much room the disk has is not known"),
        }
        if shutdown.run_until_cancelled(sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

fn tell(room: &watch::Sender<Room>, free: u64) {
    room.send_if_modified(|before| {
        let now = Room::judge(*before, free);
        let other = now.level() != before.level();
        if other {
            let mebibytes = free >> 20;
            match now {
                Room::Enough => tracing::info!(mebibytes, "the disk has room again"),
                Room::Low { .. } => tracing::error!(mebibytes, "the disk is nearly full: nothing new is written"),
                Room::None { .. } => tracing::error!(mebibytes, "the disk is full: nothing is written"),
            }
        }
        *before = now;
        other
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_begins_at_its_limit_and_ends_with_a_quarter_more() {
        let mut room = Room::Enough;
        let mut levels = |mebibytes: &[u64]| {
            mebibytes
                .iter()
                .map(|free| {
                    room = Room::judge(room, free << 20);
                    room.level()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(levels(&[65, 64, 63, 65, 79, 80]), [0, 0, 1, 1, 1, 0]);
        assert_eq!(levels(&[15, 17, 20, 60, 81]), [2, 2, 1, 1, 0]);
    }
}
