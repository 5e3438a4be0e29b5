//! What really happened in a run: a run in which the wanted faults struck nobody proves nothing.
//!
//! Invariant: only what took effect is noted: a host that is off cannot be killed, a fault that nobody met does not count.

use std::{cell::RefCell, collections::BTreeSet};

use quorate_proto::{
    refusal::{Reason, Refusal},
    request::Answer,
};

/// A change was acknowledged while something was wrong.
pub(super) const ACKNOWLEDGED: &str = "a change was acknowledged under a fault";
/// A change was refused while something was wrong.
pub(super) const REFUSED: &str = "a change was refused under a fault";
/// Whether a change was made was not known.
pub(super) const UNKNOWN: &str = "the outcome of a change was not known";
/// Another node leads than before.
pub(super) const ELECTED: &str = "another node came to lead";

/// What happened, each in a few words.
#[derive(Debug, Default)]
pub(super) struct Coverage(RefCell<BTreeSet<String>>);

impl Coverage {
    /// It happened.
    pub(super) fn note(&self, what: &str) {
        if !self.has(what) {
            self.0.borrow_mut().insert(what.to_owned());
        }
    }

    /// A change was answered while something was wrong.
    pub(super) fn answered(&self, answer: &Result<Answer, Refusal>) {
        match answer {
            Ok(_) => self.note(ACKNOWLEDGED),
            Err(refusal) if refusal.reason == Reason::Unavailable => self.note(REFUSED),
            Err(refusal) if refusal.reason == Reason::Timeout => self.note(UNKNOWN),
            Err(_) => {}
        }
    }

    /// Whether it happened.
    pub(super) fn has(&self, what: &str) -> bool {
        self.0.borrow().contains(what)
    }

    /// All that happened.
    pub(super) fn all(&self) -> BTreeSet<String> {
        self.0.borrow().clone()
    }
}
