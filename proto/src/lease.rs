//! Leases: claims that end by themselves unless somebody keeps them alive.
//!
//! Keys that are attached to a lease are deleted with it, all in one revision. Whoever holds a lease keeps it alive by telling the leader,
//! which remembers that in memory only; that a lease has ended is a command like any other.
//!
//! Invariant: a time to live is between [`MIN_TTL`] and [`MAX_TTL`]; nobody measures it with a clock that people set.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::Key;

/// The shortest time to live, in seconds.
pub const MIN_TTL: u64 = 1;

/// The longest time to live, in seconds: a year.
pub const MAX_TTL: u64 = 365 * 24 * 3600;

/// The most keys that may be attached to one lease: they are deleted together.
pub const MAX_LEASE_KEYS: u32 = 10_000;

/// A lease, by the number that whoever asked for it chose. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub NonZeroU64);

impl LeaseId {
    /// The lease of a number; `None` for zero, which stands for no lease.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

impl std::fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// A time to live that no lease can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a lease lives for {MIN_TTL} to {MAX_TTL} seconds, not for {0}")]
pub struct TtlError(pub u64);

/// Checks a time to live, in seconds.
///
/// # Errors
/// If it is shorter than [`MIN_TTL`] or longer than [`MAX_TTL`].
pub fn check_ttl(seconds: u64) -> Result<(), TtlError> {
    if (MIN_TTL..=MAX_TTL).contains(&seconds) { Ok(()) } else { Err(TtlError(seconds)) }
}

/// A lease as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which.
    pub id: LeaseId,
    /// For how long it is granted, in seconds.
    pub ttl_seconds: u64,
    /// How long it lives on if nobody keeps it alive, in milliseconds.
    pub remaining_millis: u64,
    /// The keys that are attached to it, in order; at most [`MAX_LEASE_KEYS`].
    pub keys: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_no_or_absurd_length_is_refused_with_the_limits() {
        for seconds in [0, MAX_TTL + 1, u64::MAX] {
            let error = check_ttl(seconds).unwrap_err();
            assert_eq!(error.to_string(), format!("a lease lives for 1 to 31536000 seconds, not for {seconds}"));
        }
        assert_eq!((check_ttl(MIN_TTL), check_ttl(MAX_TTL)), (Ok(()), Ok(())));
    }

    #[test]
    fn zero_is_no_lease_on_the_wire_either() {
        use crate::wire::{self, cap};
        assert_eq!(LeaseId::new(0), None);
        assert!(wire::decode::<LeaseId>(&[wire::VERSION, 0], cap::CONTROL).is_err());
    }
}
