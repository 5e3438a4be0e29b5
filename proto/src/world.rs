//! The seam to time and randomness: traits, no implementation.
//!
//! The daemon implements them once (`node/src/world.rs`), the simulator once more; nothing else reads a clock or draws a number.
//!
//! Invariant: an [`Instant`] is compared only with instants of the same process; wall time is only for people and certificates.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

pub use jiff::Timestamp;

use crate::ids::RequestId;

/// A point of monotonic time: what has passed since this process' own beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub Duration);

impl Instant {
    /// What has passed since `earlier`; zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// Tells time.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time: for deadlines, leases, silence.
    fn now(&self) -> Instant;
    /// Wall time: for metadata, certificates and people. It may jump.
    fn wall(&self) -> Timestamp;
}

/// Draws random bytes, good enough for keys.
pub trait Random: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// 128 random bits: a request id, a node id, a cluster id.
    fn id(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    /// A new request id.
    fn request_id(&self) -> RequestId {
        RequestId(self.id())
    }

    /// A `metadata.uid`: a random UUID (RFC 9562, version 4).
    fn uid(&self) -> String {
        let bits = (self.id() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// What `generateName` appends: characters that spell no words, as Kubernetes chooses them.
    fn suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
    }
}

/// A wall time as Kubernetes writes it in metadata: RFC 3339, whole seconds, `Z`.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ones;
    impl Random for Ones {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(0xff);
        }
    }

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        assert_eq!(Ones.uid(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn times_in_metadata_have_whole_seconds() {
        let time = Timestamp::new(1_800_000_000, 123_456_789).unwrap();
        assert_eq!(rfc3339(time), "2027-01-15T08:00:00Z");
    }
}
