//! How deep a value that holds others of its kind may go while it is read from the wire.
//!
//! Invariant: a frame makes the reader go no deeper than [`MAX_DEPTH`], whatever it holds: the stack is no input's to use up.

use std::cell::Cell;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::MAX_DEPTH;

thread_local! {
    /// How deep the value that this thread reads now is.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// One level, until it is dropped.
struct Level;

impl Level {
    fn enter() -> Option<Self> {
        let depth = DEPTH.get();
        (depth < MAX_DEPTH).then(|| {
            DEPTH.set(depth + 1);
            Self
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Reads a value within another of its kind.
pub(super) fn within<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let level = Level::enter();
    if level.is_none() {
        return Err(D::Error::custom(format_args!("branches are nested at most {MAX_DEPTH} deep")));
    }
    T::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use crate::{
        branch::{Branch, MAX_DEPTH, Operation},
        wire::{self, cap},
    };

    fn nested(depth: usize) -> Branch {
        (1..depth).fold(Branch::new(), |inner, _| Branch::new().then(Operation::Branch(inner)))
    }

    #[test]
    fn a_frame_of_branches_within_branches_is_refused_before_the_stack_is_used_up() {
        let fits = nested(MAX_DEPTH);
        let sent = wire::encode(&fits, cap::APPEND).unwrap();
        for _ in 0..3 {
            assert_eq!(wire::decode::<Branch>(&sent, cap::APPEND).unwrap(), fits);
            // No compares, one operation, which is a branch, of no compares, one operation …
            let mut hostile = vec![wire::VERSION];
            hostile.extend([0, 1, 3].repeat(1_000_000));
            let error = wire::decode::<Branch>(&hostile, cap::APPEND).unwrap_err();
            assert!(error.to_string().contains("branches are nested at most 8 deep"), "{error}");
        }
    }
}
