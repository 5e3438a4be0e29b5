//! What tests share: the simulator.
//!
//! Invariant: nothing here is part of the product.

pub mod sim;
