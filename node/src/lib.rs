//! The daemon: builds the parts and introduces them to each other.
//!
//! Siblings (store, mesh, API, control, agent, names, traffic) know nothing of each other; every seam between two of them is a file here.
//!
//! Invariant: this crate owns time, tasks and shutdown: parts are built in order and stopped in reverse.

pub mod links;
pub mod loops;
pub mod settings;
pub mod world;

mod heard;
mod machine;
mod node_status;
mod registration;
