//! What tests share: a simulated cluster, simulated stores, real daemons on loopback, stores and their faults for programs that load them,
//! and a cluster of real hosts.
//!
//! Invariant: nothing here is part of the product.

pub mod chaos;
pub mod hosts;
pub mod processes;
pub mod seeds;
pub mod sim;
pub mod store_sim;
pub mod stores;
pub mod tell;
