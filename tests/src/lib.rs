//! What tests share: a simulated cluster, and one of real hosts.
//!
//! Invariant: nothing here is part of the product.

pub mod hosts;
pub mod seeds;
pub mod sim;
