//! The words of Quorate and their rules: objects, kinds, transactions, requests, frames.
//!
//! Every other part speaks in these words, so this crate knows none of them.
//!
//! Invariant: no IO, no async, no clock, no randomness; whatever depends on the time or on chance gets it passed in.

pub mod branch;
pub mod cron;
pub mod endpoints;
pub mod hello;
pub mod ids;
pub mod job;
pub mod key;
pub mod kinds;
pub mod lease;
pub mod manifest;
pub mod object;
pub mod overview;
pub mod patch;
pub mod quantity;
pub mod query;
pub mod range;
pub mod refusal;
pub mod request;
pub mod schema;
pub mod selector;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod txn;
pub mod watch;
pub mod wire;
pub mod world;

pub use k8s_openapi as k8s;
