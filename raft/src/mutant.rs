//! Known bugs of stores, each at the place of the truth it breaks, to be switched on one at a time: a simulation that does not notice them
//! proves nothing.
//!
//! Without the feature `mutants`, which only the tests of the simulation ask for, none of this is compiled in. It is a feature and one
//! choice at run time, so that one build of this crate and of what depends on it serves all mutants.
//!
//! Invariant: no mutant is on unless it was chosen; without the feature none can be.

/// A known bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// Writes are acknowledged before they are durable.
    AcknowledgedUnsynced = 1,
    /// The state is told how far it has come before it has come there.
    AppliedOutsideBatch,
    /// What is applied may not be in the log yet.
    StateAheadOfLog,
    /// What was cut off the log stays on the disk.
    TruncationForgotten,
    /// Reads trust whatever this node has.
    StaleRead,
    /// Reads do not wait until this node has come as far as it must.
    ReadTooSoon,
    /// A request that is tried again is done again.
    RequestForgotten,
    /// A request of which nothing is known is said not to have been done.
    UnknownSaidNotDone,
    /// A watch that goes on begins with what it has delivered last.
    DuplicateEvent,
    /// A watch that reads what it missed misses deletions.
    DeletionUnwatched,
    /// A watch of what is to come gets what is there.
    EventsEarly,
    /// A watch does not notice that the state was replaced.
    GapAfterSnapshot,
    /// A Raft snapshot leaves a column out.
    SnapshotForgetsHistory,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::AcknowledgedUnsynced,
        Self::AppliedOutsideBatch,
        Self::StateAheadOfLog,
        Self::TruncationForgotten,
        Self::StaleRead,
        Self::ReadTooSoon,
        Self::RequestForgotten,
        Self::UnknownSaidNotDone,
        Self::DuplicateEvent,
        Self::DeletionUnwatched,
        Self::EventsEarly,
        Self::GapAfterSnapshot,
        Self::SnapshotForgetsHistory,
    ];
}

#[cfg(feature = "mutants")]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches a mutant on for the whole process, or all off.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.store(mutant.map_or(0, |mutant| mutant as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether a mutant is on.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether a mutant is on.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
