//! The verbs, a file each.
//!
//! Invariant: a verb that asks the cluster reaches the world only through its [`crate::session::Session`].

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod context;
pub(crate) mod cordon;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod leave;
pub(crate) mod logs;
pub(crate) mod scale;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod up;

#[cfg(test)]
pub(crate) mod messages;
