//! Real hosts: what `quorate dev` makes, driven by the real binary as a person drives it, and looked at from outside as the kernel shows it.
//!
//! Every story begins without a cluster and ends without one, also when it fails, so stories wait for each other.
//!
//! Invariant: nothing of the product is called here; what is known about the cluster was printed by the binary or read from the kernel.

pub mod cluster;
pub mod images;
pub mod machine;
pub mod names;
pub mod pods;
pub mod process;
pub mod said;
pub mod wait;
