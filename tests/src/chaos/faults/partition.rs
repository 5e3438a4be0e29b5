//! Nodes that do not hear each other: cut off both ways, one way, or with one node between two that hear only it.
//!
//! The daemons stay on loopback, each with one UDP port by which it sends and receives. So a rule by both ports cuts exactly one direction
//! between two of them, the clients reach all three, and nothing else on the machine is touched; network namespaces would add nothing
//! but addresses.
//!
//! Invariant: the rules are in a table of this process's own, and go with the fault.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use tokio::time::sleep;

use super::Done;
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster},
};

/// How nodes are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One is heard by nobody and hears nobody.
    Alone,
    /// One is heard by nobody.
    Mute,
    /// One hears nobody.
    Deaf,
    /// One is the only one whom the other two hear.
    Bridge,
}

/// Rules that last as long as this.
struct Table(String);

impl Table {
    fn new(rules: &str) -> Result<Self, Failure> {
        let table = Self(format!("chaos_{}", std::process::id()));
        // What is dropped on its way in was sent as far as its sender can know.
        let chain = format!("type filter hook input priority 0; policy accept\n{rules}");
        nft(&format!("table inet {} {{\nchain input {{\n{chain}}}\n}}\n", table.0))?;
        Ok(table)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        nft(&format!("delete table inet {}\n", self.0)).unwrap_or_default();
    }
}

fn nft(script: &str) -> Result<(), Failure> {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("nft takes no input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let Cluster::Ours(cluster) = &world.cluster else { return Err("etcd's members have no port of their own".into()) };
    let ports = cluster.ports();
    let leader = world.leader().await?;
    let who = if matches!(round.who, Who::Leader | Who::Two) { Who::Leader } else { Who::Follower };
    let node = targets(who, leader, round.choice).first().copied().unwrap_or(leader);
    let shape = [Shape::Alone, Shape::Mute, Shape::Deaf, Shape::Bridge][(round.choice >> 8 & 3) as usize];
    sleep(round.phase).await;
    world.mark();
    let table = Table::new(&rules(shape, node, ports))?;
    sleep(round.lasts).await;
    drop(table);
    let back = world.back().await?;
    let is = if node == leader { " (leads)" } else { "" };
    Ok(Done { text: format!("{shape:?} n{node}{is} for {:.1} s", round.lasts.as_secs_f64()), back: Some(back) })
}

fn rules(shape: Shape, node: usize, ports: [u16; 3]) -> String {
    let (one, other) = ((node + 1) % 3, (node + 2) % 3);
    let cut = match shape {
        Shape::Alone => vec![(node, one), (node, other), (one, node), (other, node)],
        Shape::Mute => vec![(node, one), (node, other)],
        Shape::Deaf => vec![(one, node), (other, node)],
        Shape::Bridge => vec![(one, other), (other, one)],
    };
    let rule = |(from, to): (usize, usize)| format!("udp sport {} udp dport {} drop\n", ports[from], ports[to]);
    cut.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_cut_by_itself() {
        let rule = |from, to| format!("udp sport {from} udp dport {to} drop\n");
        assert_eq!(rules(Shape::Mute, 0, [7, 8, 9]), rule(7, 8) + &rule(7, 9));
        assert_eq!(rules(Shape::Deaf, 0, [7, 8, 9]), rule(8, 7) + &rule(9, 7));
        assert_eq!(rules(Shape::Bridge, 0, [7, 8, 9]), rule(8, 9) + &rule(9, 8));
        assert_eq!(rules(Shape::Alone, 1, [7, 8, 9]).lines().count(), 4);
    }
}
