//! Nodes that are stopped for a while and go on as if no time had passed: a leader then must not answer with what it knew.
//!
//! Invariant: clients ask a stopped node all the same: what it was asked meanwhile, it answers when it goes on.

use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::{Done, named};
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::Failure,
};

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let leader = world.leader().await?;
    let who = if round.who == Who::All { Who::Leader } else { round.who };
    let nodes = targets(who, leader, round.choice);
    sleep(round.phase).await;
    world.mark();
    for node in &nodes {
        world.signal(*node, Signal::SIGSTOP)?;
    }
    sleep(round.lasts).await;
    for node in &nodes {
        world.signal(*node, Signal::SIGCONT)?;
    }
    let back = world.back().await?;
    Ok(Done { text: format!("{} for {:.1} s", named(&nodes, leader), round.lasts.as_secs_f64()), back: Some(back) })
}
