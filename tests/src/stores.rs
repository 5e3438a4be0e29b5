//! Stores as clusters of real processes: three of our daemons, or three members of etcd, and connections to each.
//!
//! Whoever loads a store from outside, to measure it or to break it, shares this.
//!
//! Invariant: both sides are asked for the same by the same words.

pub mod cluster;
pub mod etcd;
pub mod grpc;
pub mod ours;
pub mod process;
pub mod protobuf;
pub mod quic;
pub mod session;
pub mod signals;

/// Why something did not come to its end.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
