//! Disks that become full: of one node, or of all three. Data is moved to small file systems of their own for that.
//!
//! Invariant: at the end the data is where it was, and nothing stays mounted.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::mount::{MntFlags, umount2};
use quorate_proto::{ids::RequestId, txn::Document};
use quorate_proto::{
    key::Key,
    refusal::{Reason, Refusal},
    txn::Txn,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Done, named};
use crate::{
    chaos::{
        fault::{Round, Who, targets},
        world::World,
    },
    stores::{Failure, cluster::Cluster},
};

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

/// What a small disk holds beside the data, in mebibytes: well above what the store wants to have free.
const SIZE: u64 = 256;

/// What is left at first: less than the store's reserve, more than it needs to delete.
const LOW: u64 = 40;

/// How long a disk is full to the last byte.
const FULL: Duration = Duration::from_secs(3);

/// How long something may take that a node does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small ext4 with the data of a node, mounted where that was.
struct Disk {
    at: PathBuf,
    aside: PathBuf,
    image: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Moves data to it.
    fn new(at: &Path) -> Result<Self, Failure> {
        let beside = |ending: &str| at.with_extension(ending);
        let mut disk = Self { at: at.to_owned(), aside: beside("aside"), image: beside("image"), mounted: false };
        let used: u64 =
            said(Command::new("du").arg("-sm").arg(at))?.split_whitespace().next().unwrap_or("0").parse()?;
        File::create(&disk.image)?.set_len((used + SIZE) * MEBIBYTE)?;
        said(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk.image))?;
        fs::rename(at, &disk.aside)?;
        fs::create_dir(at)?;
        said(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(at))?;
        disk.mounted = true;
        said(Command::new("chmod").arg("--reference").arg(&disk.aside).arg(at))?;
        said(Command::new("cp").arg("-a").arg(disk.aside.join(".")).arg(at))?;
        fs::remove_dir(at.join("lost+found"))?;
        Ok(disk)
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Fills it up to so many mebibytes.
    fn fill(&self, left: u64) -> Result<(), Failure> {
        let statistics = nix::sys::statvfs::statvfs(&self.at)?;
        let free = statistics.blocks_available() * statistics.fragment_size();
        let taken = fs::metadata(self.ballast()).map_or(0, |metadata| metadata.len());
        let length = (taken + free).saturating_sub(left * MEBIBYTE);
        // To the last byte it does not succeed, and has taken what there is.
        let _ = said(Command::new("fallocate").arg("-l").arg(length.to_string()).arg(self.ballast()));
        Ok(())
    }

    fn make_room(&self) -> Result<(), Failure> {
        Ok(fs::remove_file(self.ballast())?)
    }

    /// Moves the data back.
    fn remove(mut self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.aside)?;
        said(Command::new("cp").arg("-a").arg(&self.at).arg(&self.aside))?;
        umount2(&self.at, MntFlags::empty())?;
        self.mounted = false;
        fs::remove_dir(&self.at)?;
        fs::rename(&self.aside, &self.at)?;
        Ok(fs::remove_file(&self.image)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            umount2(&self.at, MntFlags::MNT_DETACH).unwrap_or_default();
        }
    }
}

/// What a command printed that did what it was told.
fn said(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

pub(super) async fn strike(world: &mut World, round: &Round) -> Result<Done, Failure> {
    let Cluster::Ours(cluster) = &world.cluster else { return Err("etcd's members raise an alarm for ever".into()) };
    let directory = cluster.directory().to_owned();
    let leader = world.leader().await?;
    let who = if round.choice >> 8 & 1 == 0 { Who::All } else { round.who };
    let nodes = targets(who, leader, round.choice);
    for node in &nodes {
        world.stop(*node).await?;
    }
    let mut disks = Vec::new();
    for node in &nodes {
        disks.push(Disk::new(&directory.join(format!("n{node}")))?);
        world.start(*node)?;
    }
    world.all_serve().await?;
    sleep(round.phase).await;
    let mut text = named(&nodes, leader);
    for disk in &disks {
        disk.fill(LOW)?;
    }
    if nodes.len() == 3 {
        refuses_what_is_new(world).await?;
        text += ": refused what is new, deleted";
    }
    for disk in &disks {
        disk.fill(0)?;
    }
    sleep(FULL).await;
    world.mark();
    for disk in &disks {
        disk.make_room()?;
    }
    let back = world.back().await?;
    world.all_serve().await?;
    if nodes.len() == 3 {
        let until = Instant::now() + PATIENCE;
        while put(world, "after").await.is_err() {
            if Instant::now() > until {
                return Err("with room again, nothing new was taken".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        text += ", and went on";
    }
    for node in &nodes {
        world.stop(*node).await?;
    }
    for (node, disk) in nodes.iter().zip(disks) {
        disk.remove()?;
        world.start(*node)?;
    }
    Ok(Done { text, back: Some(back) })
}

/// Waits until a new key is refused because the disk has no room, and then deletes one.
async fn refuses_what_is_new(world: &World) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    for number in 0.. {
        match put(world, &format!("new-{number}")).await {
            Err(failure) if failure.downcast_ref::<Refusal>().is_some_and(|it| it.reason == Reason::StorageFull) => {
                break;
            }
            _ if Instant::now() > until => return Err("disks that are nearly full took all that is new".into()),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    let until = Instant::now() + PATIENCE;
    while let Err(failure) = transact(world, Txn::new().delete(key("new-0")?)).await {
        if Instant::now() > until {
            return Err(format!("a delete was not done when disks were nearly full: {failure}").into());
        }
    }
    Ok(())
}

fn key(name: &str) -> Result<Key, Failure> {
    Ok(Key::parse(&format!("/kv/chaos-disk/_/{name}"))?)
}

async fn put(world: &World, name: &str) -> Result<(), Failure> {
    transact(world, Txn::new().put(key(name)?, Document(bytes::Bytes::from_static(b"\"disk\"")))).await
}

async fn transact(world: &World, txn: Txn) -> Result<(), Failure> {
    let link = world.link(0).await?;
    let request = RequestId(u128::from(world.now()) << 64 | u128::from(u64::MAX));
    timeout(Duration::from_secs(5), link.session.transact(request, txn)).await??;
    Ok(())
}
