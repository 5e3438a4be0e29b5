//! `kill -9` of one node, two or all, at any moment, and now and then of one that has only just been started again.
//!
//! Invariant: while a majority lives, writes go on before anybody is started again.

use std::time::Duration;

use tokio::time::sleep;

use super::{Done, named};
use crate::{
    chaos::{
        fault::{Round, targets},
        world::World,
    },
    stores::Failure,
};

/// How long a node that is started again may live before it is killed once more, in milliseconds.
const AGAIN: u64 = 400;

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let leader = world.leader().await?;
    let nodes = targets(round.who, leader, round.choice);
    sleep(round.phase).await;
    world.mark();
    for node in &nodes {
        world.kill(*node)?;
    }
    let mut back = None;
    if nodes.len() == 1 {
        back = Some(world.back().await?);
    }
    sleep(round.lasts / 20).await;
    for node in &nodes {
        world.start(*node)?;
    }
    let mut text = named(&nodes, leader);
    let (again, after) = (round.choice >> 8 & 3, Duration::from_millis((round.choice >> 16) % AGAIN));
    if again == 0 {
        sleep(after).await;
        for node in &nodes {
            world.kill(*node)?;
        }
        for node in &nodes {
            world.start(*node)?;
        }
        text += &format!(", and again after {} ms", after.as_millis());
    }
    if back.is_none() {
        back = Some(world.back().await?);
    }
    Ok(Done { text, back })
}
