//! A node whose wall clock jumps, by hours and by years, there and back: leases and elections know monotonic time only.
//!
//! Invariant: the monotonic clock of the node goes on as it did.

use std::{path::Path, time::Duration};

use quorate_node::world::SystemClock;
use quorate_proto::world::{Clock as _, rfc3339};
use tokio::time::sleep;

use super::Done;
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster, ours::Launch},
};

/// Where the clock of the node is when it starts, from the true time.
const START: &str = "+24h";

/// The characters of a time up to its seconds.
const SECONDS: usize = 19;

/// Where the clock jumps to.
const JUMPS: [&str; 6] = ["+1h", "-1h", "+24h", "-24h", "+3650d", "-3650d"];

/// How long it stays there.
const STAY: Duration = Duration::from_secs(2);

/// Longer than any election: nobody may be kept from writing for so long by a clock.
const AT_MOST: Duration = Duration::from_secs(5);

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let Cluster::Ours(cluster) = &world.cluster else {
        return Err("etcd's members ask the kernel for the time".into());
    };
    let library = library();
    if !Path::new(&library).exists() {
        return Err(format!("there is no {library}: tools/install chaos installs it").into());
    }
    let file = cluster.directory().join("clock");
    std::fs::write(&file, START)?;
    let node = targets(Who::Follower, world.leader().await?, round.choice).first().copied().unwrap_or(0);
    let variable = |name: &str, value: String| (name.to_owned(), value);
    let launch = Launch {
        environment: vec![
            variable("LD_PRELOAD", library),
            variable("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            variable("FAKETIME_NO_CACHE", "1".to_owned()),
            variable("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ],
        ..Launch::default()
    };
    let log = cluster.directory().join(format!("n{node}.log"));
    world.kill(node)?;
    let told = std::fs::read_to_string(&log)?.len();
    world.start_as(node, &launch)?;
    world.all_serve().await?;
    let (log, now) = (std::fs::read_to_string(&log)?, rfc3339(SystemClock::start().wall()));
    // Both are written so that the later one sorts later.
    if !log
        .get(told..)
        .is_some_and(|log| log.lines().any(|line| line.starts_with('2') && line.get(..SECONDS) > now.get(..SECONDS)))
    {
        return Err(format!("n{node} was started with its clock at {START} and did not notice").into());
    }
    let jumps = [round.choice as usize, (round.choice >> 8) as usize].map(|choice| JUMPS[choice % JUMPS.len()]);
    let mut longest = Duration::ZERO;
    for jump in jumps.into_iter().chain(["+0"]) {
        std::fs::write(&file, jump)?;
        let until = world.now() + u64::try_from(STAY.as_micros())?;
        while world.now() < until {
            world.mark();
            longest = longest.max(world.back().await?);
        }
        world.all_serve().await.map_err(|failure| format!("after the clock of n{node} jumped {jump}: {failure}"))?;
        sleep(round.phase / 4).await;
    }
    if longest > AT_MOST {
        return Err(format!("nothing was written for {longest:?} after the clock of n{node} jumped").into());
    }
    world.kill(node)?;
    world.start(node)?;
    Ok(Done { text: format!("n{node} by {}, and back", jumps.join(", then ")), back: Some(longest) })
}

/// Debian's libfaketime, for programs with threads.
fn library() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH)
}
