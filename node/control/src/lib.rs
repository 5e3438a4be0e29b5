//! Decides what the cluster should do next: controllers and scheduler, as plain functions.
//!
//! A controller takes a snapshot of the store and a moment, and returns transactions, the next deadline, and why what waits is waiting.
//! The loop around it (in `node`) waits for a change or the deadline, decides, proposes. Nothing is remembered between two decisions,
//! so a new leader carries on where the last one stopped.
//!
//! Invariant: no IO, no async, no clock. Every transaction compares what it was decided on, so that a decision made twice, or by two
//! leaders, is carried out once; and a decision on the outcome of its own transactions is empty in the end.

mod affinity;
mod claim;
mod collect;
mod cronjob;
mod daemonset;
mod decision;
mod deployment;
mod edit;
mod evict;
mod expire;
mod job;
mod lost;
mod namespace;
mod node_lifecycle;
mod ownership;
mod pod;
mod replicaset;
mod schedule;
mod silence;
mod taint;
mod template;

#[cfg(test)]
mod cluster;

pub use self::decision::{CONTROLLERS, Controller, Decision, Moment, Settings, Snapshot, decide};
