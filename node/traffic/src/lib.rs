//! Carries connections to ready pods: behind service addresses, and behind node ports.
//!
//! Service addresses are local on every node ([`route`]), so an ordinary listener takes a connection there, picks an endpoint ([`pick`])
//! and dials it, or opens a stream to the node that runs it and has that node dial it. Every kernel can do that, through any network.
//!
//! Invariant: no connection is opened to a pod that is not ready, and none that is open is closed because its pod is leaving.

mod carrier;
mod carry;
mod config;
mod datagrams;
mod deliver;
mod dial;
mod header;
mod listeners;
mod loads;
pub mod pick;
pub mod route;
mod service;
mod table;
mod traffic;

pub use carrier::{Carrier, CarryError, Receiver, Sender};
pub use config::{Config, Limits};
pub use deliver::DeliverError;
pub use dial::DialError;
pub use header::Status;
pub use table::Listen;
pub use traffic::{Health, Traffic};
