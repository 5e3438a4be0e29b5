//! What tests share: a simulated cluster, simulated stores, real daemons on loopback, and a cluster of real
//! hosts.
//!
//! Invariant: nothing here is part of the product.

pub mod hosts;
pub mod processes;
pub mod seeds;
pub mod sim;
pub mod store_sim;
