//! The daemon: builds the parts and introduces them to each other.
//!
//! Siblings (store, mesh, API, control, agent, names, traffic) know nothing of each other; every seam between two of them is a file here.
//!
//! Invariant: this crate owns time, tasks and shutdown: parts are built in order and stopped in reverse.

pub mod backup;
pub mod daemon;
pub mod links;
pub mod node;
pub mod raft_network;
pub mod recovery;
pub mod registration;
pub mod secrets;
pub mod serve;
pub mod settings;
pub mod voters;
pub mod world;

mod addresses;
mod admission;
mod adoption;
mod bound;
mod carrier;
mod cluster;
mod derived;
mod desired;
mod founding;
mod heard;
mod heartbeat;
mod home;
mod kept;
mod lan;
mod leading;
mod loops;
mod mesh_links;
mod node_status;
mod overview;
mod replacement;
mod replica;
mod reporter;
mod socket;
mod standing;
#[cfg(test)]
mod testing;
mod tokens;
mod withdrawal;

pub use quorate_api::check;
