//! `kill -9` of one node, two or all, at any moment, and now and then of one that has only just been started again. Some are told to stop
//! instead: that is to lose no more than a kill does.
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
    let in_order = nodes.len() == 1 && round.choice >> 32 & 3 == 0;
    for node in &nodes {
        if in_order {
            world.stop(*node).await?;
        } else {
            world.kill(*node)?;
        }
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
    if in_order {
        text += ", told to stop";
    }
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
