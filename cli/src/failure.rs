//! Why a command ends without having done what it was asked for, and the exit code that tells it.
//!
//! Invariant: 0 done, 1 refused, 2 wrong usage, 3 nobody reachable or no quorum; a mix of refusals is the gravest of them, 1 before 3.

use std::io;

use quorate_proto::refusal::{Reason, Refusal};
use thiserror::Error;

/// A command did not do all that it was asked for.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(Refusal),
    /// One or several things were refused.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// What was run on a host ended with this exit code; it has said why itself.
    #[error("")]
    Exit(u8),
    /// The answer could not be written. Whoever reads it may have had enough.
    #[error("error: the answer was not written\n  because: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Wrong usage.
    pub(crate) fn usage(what: impl Into<String>, because: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage(Refusal::new(Reason::BadRequest, what, because).hint(hint))
    }

    /// Fails if there are refusals.
    pub(crate) fn if_any(refusals: Vec<Refusal>) -> Result<(), Self> {
        if refusals.is_empty() { Ok(()) } else { Err(Self::Refused(refusals)) }
    }

    /// The process' exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(refusals) => refusals.iter().map(Refusal::exit_code).min().unwrap_or(1),
            Self::Exit(code) => *code,
            Self::Output(_) => 1,
        }
    }

    /// Whether the reader of our output went away, as `head` does: no reason to complain.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(vec![refusal])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_refused_from_unreachable() {
        let refused = || Refusal::new(Reason::NotFound, "a", "b");
        let unreachable = || Refusal::new(Reason::Unavailable, "a", "b");
        assert_eq!(Failure::Refused(vec![unreachable(), unreachable()]).exit_code(), 3);
        assert_eq!(Failure::Refused(vec![unreachable(), refused()]).exit_code(), 1);
        assert_eq!(Failure::usage("a", "b", "c").exit_code(), 2);
    }
}
