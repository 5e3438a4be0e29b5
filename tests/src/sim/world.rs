//! Virtual time, seeded chance, and what else all hosts share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_node::settings::ClusterSettings;
use quorate_proto::world::{Clock, Instant, Random, Timestamp};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{check::Checker, network::Network};

/// What all hosts share.
pub(super) struct World {
    pub(super) settings: ClusterSettings,
    pub(super) network: Arc<Network>,
    pub(super) clock: Arc<SimClock>,
    pub(super) random: Arc<SimRandom>,
    pub(super) checker: Arc<Checker>,
}

/// When simulated time begins: 2027-01-15T08:00:00Z.
const BEGINNING: i64 = 1_800_000_000;

/// A clock that follows tokio's, which jumps to the next deadline whenever all tasks wait.
pub(super) struct SimClock {
    start: tokio::time::Instant,
}

impl SimClock {
    pub(super) fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(self.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let beginning = Timestamp::from_second(BEGINNING).unwrap_or(Timestamp::UNIX_EPOCH);
        beginning.checked_add(self.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// Chance from a seed.
pub(crate) struct SimRandom(Mutex<StdRng>);

impl SimRandom {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SimRandom {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
    }
}
