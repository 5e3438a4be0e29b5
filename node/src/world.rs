//! The real clock and the real randomness, read nowhere else.
//!
//! Monotonic time is tokio's, so that whoever pauses tokio's clock (the simulator, a test) moves this one too.
//!
//! Invariant: the randomness is the operating system's, good enough for keys.

use std::time::SystemTime;

use quorate_proto::world::{Clock, Instant, Random, Timestamp};
use rand::{TryRng as _, rngs::SysRng};

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts counting now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant(self.start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam the ban points to")]
    fn wall(&self) -> Timestamp {
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        if SysRng.try_fill_bytes(buffer).is_err() {
            // Every id and key would be guessable; nothing this process could still do would be safe.
            std::process::abort();
        }
    }
}
