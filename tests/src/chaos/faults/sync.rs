//! Syncs that fail: whoever is told so stops, and never tries again, since the kernel takes what was lost for written.
//!
//! Invariant: the process ends by itself; what is started again, without the fault, is sound.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Done, named};
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster, ours::Launch},
};

/// Debian's libfiu, loaded into the daemon.
const LIBRARIES: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];

/// How long a daemon may go on whose syncs fail now and then, while it has to sync.
const STOP: Duration = Duration::from_secs(60);

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    if matches!(world.cluster, Cluster::Etcd(_)) {
        return Err("etcd's members ask the kernel for syncs".into());
    }
    if let Some(missing) = LIBRARIES.iter().find(|library| !Path::new(library).exists()) {
        return Err(format!("there is no {missing}: tools/install chaos installs it").into());
    }
    let leader = world.leader().await?;
    let who = if round.who == Who::Leader { Who::Leader } else { Who::Follower };
    let node = targets(who, leader, round.choice).first().copied().unwrap_or(leader);
    // From the first sync on, or now and then.
    let probability = ["1", "0.1", "0.01"][(round.choice >> 8) as usize % 3];
    let call = ["fdatasync", "*"][(round.choice >> 16) as usize % 2];
    let fault = format!("enable_random name=posix/io/sync/{call},probability={probability},failinfo=5");
    let launch = Launch {
        environment: vec![("LD_PRELOAD".to_owned(), LIBRARIES.join(":")), ("FIU_ENABLE".to_owned(), fault)],
        ..Launch::default()
    };
    sleep(round.phase).await;
    world.kill(node)?;
    world.start_as(node, &launch)?;
    let until = Instant::now() + STOP;
    let status = loop {
        let process = world.cluster.process(node).ok_or("it was not started")?;
        if let Some(status) = process.end()? {
            break status;
        }
        if Instant::now() > until {
            return Err(format!("n{node} went on for {} s with syncs that fail", STOP.as_secs()).into());
        }
        sleep(Duration::from_millis(20)).await;
    };
    if status.success() {
        return Err(format!("n{node} ended as if all was well when a sync failed").into());
    }
    world.nodes.down(node);
    world.mark();
    let back = world.back().await?;
    world.start(node)?;
    Ok(Done {
        text: format!(
            "{}, {call} fails with probability {probability}: it ended with {status}",
            named(&[node], leader)
        ),
        back: Some(back),
    })
}
