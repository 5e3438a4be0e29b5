//! What a user gets when something was not done: what happened, because of what, and a hint.
//!
//! Invariant: every refusal carries all a person needs to act; `because` is never empty. Whoever prints it adds nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was refused, in Kubernetes' words where it has one. Sent between nodes: variants are only ever added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The request makes no sense.
    BadRequest,
    /// The object is not acceptable.
    Invalid,
    /// There is no such object.
    NotFound,
    /// There is such an object already.
    AlreadyExists,
    /// It was changed by someone else meanwhile.
    Conflict,
    /// The caller may not do this.
    Forbidden,
    /// The caller is not known.
    Unauthorized,
    /// Beyond a limit.
    TooLarge,
    /// Too much at once: try again later.
    TooManyRequests,
    /// The revision to watch or read from is no longer kept.
    Expired,
    /// No quorum, or no leader: nothing was done, try again.
    Unavailable,
    /// No answer in time: whether it was done is not known. A retry with the same request id is safe.
    Timeout,
    /// A fault of ours.
    Internal,
    /// The disk has no room for it; what makes room is still done.
    StorageFull,
}

/// A request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of refusal; decides the exit code.
    pub reason: Reason,
    /// What did not happen: `deployment.apps/web was not applied`.
    pub what: String,
    /// Because of what, with file, line and field where there is one.
    pub because: String,
    /// What to do next, where we know.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(reason: Reason, what: impl Into<String>, because: impl Into<String>) -> Self {
        Self { reason, what: what.into(), because: because.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The process exit code that tells it: 1 refused, 3 no quorum or nobody reachable, so try again.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.reason {
            Reason::Unavailable | Reason::Timeout => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}\n  because: {}", self.what, self.because)?;
        if let Some(hint) = &self.hint {
            write!(formatter, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// An error and what caused it, in one line: what becomes a [`Refusal::because`].
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file was not read")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_what_caused_it() {
        let error = Outer(std::io::Error::other("the disk is gone"));
        assert_eq!(chain(&error), "the file was not read: the disk is gone");
    }

    #[test]
    fn a_refusal_says_what_happened_because_of_what_and_what_next() {
        let refusal = Refusal::new(Reason::Unavailable, "nothing was written", "no quorum").hint("try again");
        assert_eq!(refusal.to_string(), "error: nothing was written\n  because: no quorum\n  hint: try again");
        assert_eq!(refusal.exit_code(), 3);
        assert_eq!(Refusal::new(Reason::NotFound, "a", "b").exit_code(), 1);
    }
}
