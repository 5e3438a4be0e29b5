//! Shuffles answers, so that clients that take the first address spread over all.
//!
//! A question a few microseconds long cannot afford a system call for a random number, and nothing here is secret: one random seed,
//! drawn at the start, is stretched with SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).

use std::sync::atomic::{AtomicU64, Ordering};

/// Where the sequence of random numbers stands; shared by all who answer.
#[derive(Debug)]
pub(crate) struct Shuffle(AtomicU64);

impl Shuffle {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub(crate) fn number(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    }
}

/// Puts items in an order that `number` chooses (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], mut number: impl FnMut() -> u64) {
    for last in (1..items.len()).rev() {
        let chosen = number() % (last as u64 + 1);
        items.swap(last, usize::try_from(chosen).unwrap_or(last));
    }
}
