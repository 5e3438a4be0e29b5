//! Turns a request into a transaction, and a state of the store into an answer.
//!
//! Invariant: nothing is proposed that was not allowed, decoded strictly, defaulted, admitted and validated, and every transaction
//! compares what it was decided on.

mod seam;

pub use self::seam::{Caller, Cluster, Desired, Settings};
