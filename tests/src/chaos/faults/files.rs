//! A node that may open hardly any more files.
//!
//! Invariant: it goes on, or says why it stops; with descriptors again it is as it was.

use std::{process::Command, time::Duration};

use tokio::{net::UnixStream, time::sleep};

use super::Done;
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster},
};

/// So many connections are made to the node's socket meanwhile.
const CONNECTIONS: usize = 64;

/// How many files more than now it may have.
const MORE: u64 = 6;

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let Cluster::Ours(cluster) = &world.cluster else { return Err("only ours has a socket".into()) };
    let directory = cluster.directory().to_owned();
    let leader = world.leader().await?;
    let who = if round.who == Who::Follower { Who::Follower } else { Who::Leader };
    let node = targets(who, leader, round.choice).first().copied().unwrap_or(leader);
    let pid = world.cluster.process(node).ok_or("it does not run")?.id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    let limit = open + round.choice % MORE;
    sleep(round.phase).await;
    world.mark();
    let usual = limited(pid, limit)?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.extend(UnixStream::connect(directory.join(format!("n{node}/api.sock"))).await.ok());
    }
    sleep(round.lasts.max(Duration::from_secs(2))).await;
    let mut text = format!("n{node} may have {limit} files, and has {open}");
    let ended = world.cluster.process(node).map(|process| process.end()).transpose()?.flatten();
    if let Some(status) = ended {
        text += &format!("; it ended with {status}");
        world.nodes.down(node);
        world.start(node)?;
    } else {
        limited(pid, usual)?;
    }
    drop(connections);
    let back = world.back().await?;
    Ok(Done { text, back: Some(back) })
}

/// Sets how many files a process may have; how many it could have until then.
fn limited(pid: u32, limit: u64) -> Result<u64, Failure> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let before =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    // The hard limit stays: who lowers it may not be allowed to raise it again.
    let output = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")]).output()?;
    match output.status.success() {
        true => before.ok_or_else(|| format!("process {pid} has no limit of open files").into()),
        false => Err(format!("prlimit: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
