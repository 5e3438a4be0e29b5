//! A file of a stopped node that is not as it was written: one bit flipped, or the end cut off.
//!
//! Invariant: the node starts sound, or fences itself and is filled anew by the others; a process that ends instead is a fault of ours.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, rngs::StdRng};
use tokio::time::sleep;

use super::{Done, named};
use crate::{
    chaos::{
        fault::{Round, Who, random, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster},
};

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let Cluster::Ours(cluster) = &world.cluster else { return Err("etcd's members are not filled anew".into()) };
    let directory = cluster.directory().to_owned();
    let leader = world.leader().await?;
    let who = if round.who == Who::Leader { Who::Leader } else { Who::Follower };
    let node = targets(who, leader, round.choice).first().copied().unwrap_or(leader);
    sleep(round.phase).await;
    world.mark();
    // Half of the time nothing was put in order before.
    if round.choice >> 8 & 1 == 0 {
        world.kill(node)?;
    } else {
        world.stop(node).await?;
    }
    let back = world.back().await?;
    let fences =
        || fs::read_to_string(directory.join(format!("n{node}.log"))).map(|log| log.matches("set aside").count());
    let before = fences()?;
    let damaged = damage(&directory.join(format!("n{node}/store")), &mut random(round.choice, 1))?;
    let text = format!("{}, {damaged}", named(&[node], leader));
    world.start(node)?;
    world.serves(node).await.map_err(|failure| format!("{text}: {failure}"))?;
    world.all_vote().await.map_err(|failure| format!("{text}: {failure}"))?;
    let came = if fences()? > before { "it was fenced, and filled anew" } else { "it started" };
    Ok(Done { text: format!("{text}: {came}"), back: Some(back) })
}

/// Damages one file of a store; which, and how.
fn damage(store: &Path, random: &mut StdRng) -> Result<String, Failure> {
    let files = files(store)?;
    let path = files.get(random.random_range(0..files.len().max(1))).ok_or("there is no file to damage")?;
    let name = path.strip_prefix(store)?.display().to_string();
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let at = random.random_range(0..length);
    let text = if random.random_range(0..3) == 0 {
        file.set_len(at)?;
        format!("{name} cut to {at} of {length} bytes")
    } else {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << random.random_range(0..8);
        file.write_all_at(&byte, at)?;
        format!("a bit of {name} flipped, at {at} of {length}")
    };
    file.sync_all()?;
    Ok(text)
}

/// What a store consists of, in order; what it only says about itself is not part of it.
fn files(store: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (mut found, mut directories) = (Vec::new(), vec![store.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else if entry.metadata()?.len() > 0 && !name.starts_with("LOG") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
