//! The faults, a file each: what is done to whom, and how it is mended again.
//!
//! Invariant: when a fault returns, it is mended, also if it did not come to its end.

use std::time::Duration;

use super::{
    fault::{Kind, Round},
    world::World,
};
use crate::stores::Failure;

mod clock;
mod damage;
mod disk;
mod files;
mod kill;
mod partition;
mod pause;
mod sync;

/// What was done.
pub(super) struct Done {
    /// To whom, and what came of it.
    pub(super) text: String,
    /// How long until a write that was asked for afterwards was acknowledged.
    pub(super) back: Option<Duration>,
}

/// Does what a round says.
pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    match round.kind {
        Kind::Kill => kill::strike(world, round).await,
        Kind::Pause => pause::strike(world, round).await,
        Kind::Partition => partition::strike(world, round).await,
        Kind::Disk => disk::strike(world, round).await,
        Kind::Damage => damage::strike(world, round).await,
        Kind::Sync => sync::strike(world, round).await,
        Kind::Clock => clock::strike(world, round).await,
        Kind::Files => files::strike(world, round).await,
    }
}

/// `n0 (leads) and n2`.
fn named(nodes: &[usize], leader: usize) -> String {
    let name = |node: &usize| if *node == leader { format!("n{node} (leads)") } else { format!("n{node}") };
    nodes.iter().map(name).collect::<Vec<_>>().join(" and ")
}
