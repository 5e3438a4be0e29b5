//! Turns a request into a transaction, and a state of the store into an answer.
//!
//! Every way in (the command line, other nodes, controllers' reports) goes through [`Api::handle`] and the same pure pipeline; what can
//! only be done elsewhere stands behind the traits [`Desired`], [`KeyValue`] and [`Cluster`], which `node/` implements.
//!
//! Invariant: nothing is proposed that was not allowed, decoded strictly, defaulted, admitted and validated, and every transaction
//! compares what it was decided on.

mod access;
mod addresses;
mod admit;
mod age;
mod cell;
pub mod check;
mod decode;
mod default;
mod delete;
pub mod leave;
mod list;
mod logs;
mod message;
mod metadata;
mod pipeline;
mod report;
mod seam;
mod select;
mod store;
mod table;
#[cfg(test)]
mod testing;
mod update;
mod validate;
mod verbs;
mod watch;

pub use self::{
    seam::{Caller, Changes, Cluster, Deliveries, Desired, Ended, KeyValue, Settings, Unread},
    verbs::Api,
};
