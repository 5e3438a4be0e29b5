//! Disks that fail and disks that are full, in virtual time; and a real one that is.

use std::{io, os::unix::fs::FileExt as _, path::Path, process::Command, time::Duration};

use quorate_proto::{
    ids::RequestId,
    request::Read,
    txn::{Outcome, Txn},
};

use super::fixture::{CLUSTER, Cluster, Kind, document, key, open_alone, until};
use crate::{FLOOR, Fault, ProposeError, RESERVE, ReadError, Room, Store};

async fn fault(store: &Store) -> Fault {
    store.status().wait_for(|status| status.fault.is_some()).await.unwrap().fault.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_failed_is_never_tried_again() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let broken = cluster.leader().await;
    cluster.memory(broken).break_syncs(io::ErrorKind::Other);
    let before = cluster.memory(broken).syncs();
    let written = cluster.propose(broken, Txn::new().put(key("web"), document("web"))).await;
    assert!(!matches!(written, Ok(Outcome::Stale(_))), "{written:?}");
    assert!(matches!(fault(cluster.store(broken)).await, Fault::Disk(_)));
    let refused = cluster.store(broken).read(Read::Stale).await;
    assert!(matches!(refused, Err(ReadError::Storage(_))), "{refused:?}");
    cluster.cut(broken);
    let other = cluster.leader().await;
    cluster.put(other, "after").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.memory(broken).syncs(), before + 1, "once, and never again");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_room_takes_nothing_new_and_goes_on_by_itself() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    for name in ["a", "b"] {
        cluster.put(leader, name).await;
    }
    cluster.memory(leader).set_free(RESERVE - 1);
    let mut status = cluster.store(leader).status();
    status.wait_for(|status| status.room != Room::Enough).await.unwrap();
    for node in [leader, follower] {
        let refused = cluster.propose(node, Txn::new().put(key("c"), document("c"))).await.unwrap_err();
        assert!(matches!(refused, ProposeError::Full { free } if free == RESERVE - 1), "{refused:?}");
        assert_eq!(refused.to_string(), "the leader's disk has only 63 MiB left, of 64 that are kept in reserve");
    }
    cluster.propose(follower, Txn::new().delete(key("a"))).await.unwrap();
    cluster.propose(follower, Txn::new().put(key("b"), document("changed"))).await.unwrap();
    assert_eq!(cluster.names(leader), ["b"]);
    cluster.memory(leader).set_free(2 * RESERVE);
    status.wait_for(|status| status.room == Room::Enough).await.unwrap();
    cluster.put(leader, "c").await;
    assert_eq!(cluster.store(leader).status().borrow().fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_room_stays_a_member_and_catches_up() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let term = cluster.store(leader).status().borrow().term;
    cluster.memory(follower).set_free(FLOOR - 1);
    let mut status = cluster.store(follower).status();
    status.wait_for(|status| matches!(status.room, Room::None { .. })).await.unwrap();
    let before = status.borrow().revision;
    let mut last = before;
    for name in ["a", "b", "c"] {
        last = cluster.put(leader, name).await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    {
        let status = status.borrow_and_update();
        assert!(status.revision < last, "it took entries although it has no room");
        assert_eq!(
            (status.term, status.leader.is_some(), status.fault.clone()),
            (term, true, None),
            "it still follows"
        );
        assert!(status.members.iter().all(|member| member.voter));
    }
    cluster.memory(follower).set_free(2 * RESERVE);
    cluster.reaches(follower, last).await;
    assert_eq!(cluster.names(follower), ["a", "b", "c"]);
}

/// A file system of its own on a loop device, gone with the test.
struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    fn new(mebibytes: u64) -> Self {
        // Not below `/tmp`, which may be memory.
        let directory = tempfile::Builder::new().prefix("quorate-disk-").tempdir_in("/var/tmp").unwrap();
        let (image, disk) = (directory.path().join("image"), directory.path().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        std::fs::create_dir(&disk).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program} (needs root and e2fsprogs): {output:?}");
        };
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-m"), Path::new("0"), &image]);
        run("mount", &[Path::new("-o"), Path::new("loop"), &image, &disk]);
        Self { directory }
    }

    fn disk(&self) -> std::path::PathBuf {
        self.directory.path().join("disk")
    }

    /// Fills the disk but for so many bytes.
    fn leave(&self, bytes: u64) {
        let filler = self.disk().join("filler");
        let _gone = std::fs::remove_file(&filler);
        let disk = nix::sys::statvfs::statvfs(&self.disk()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        let Some(length) = free.checked_sub(bytes) else { return };
        let file = std::fs::File::create(&filler).unwrap();
        // The file system needs some of it to note the rest.
        let most = i64::try_from(length.saturating_sub(1 << 20)).unwrap();
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, most).unwrap();
        if bytes == 0 {
            let mut at = most as u64;
            while let Ok(written) = file.write_at(&[1; 4096], at) {
                at += written as u64;
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.disk()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", self.disk().display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_disk_that_is_full_loses_nothing_and_is_written_again_when_it_has_room() {
    let mounted = Mounted::new(256);
    let path = mounted.disk().join("store");
    let open = async || {
        let store = open_alone(&path, CLUSTER, 1).await.unwrap();
        store.initialize().await.unwrap();
        store.status().wait_for(|status| status.leading).await.unwrap();
        store
    };
    let store = open().await;
    let put = async |store: &Store, number: u128, bytes: usize| {
        let txn = Txn::new().put(key(&number.to_string()), document(&"x".repeat(bytes)));
        store.propose(RequestId(number), txn).await
    };
    for number in 1..=10 {
        put(&store, number, 1000).await.unwrap();
    }

    // Nearly full: read-only, deletes work, and it resumes by itself.
    mounted.leave(RESERVE / 2);
    let mut status = store.status();
    status.wait_for(|status| status.room != Room::Enough).await.unwrap();
    assert!(matches!(put(&store, 11, 1000).await, Err(ProposeError::Full { .. })));
    store.propose(RequestId(100), Txn::new().delete(key("1"))).await.unwrap();
    mounted.leave(u64::MAX);
    status.wait_for(|status| status.room == Room::Enough).await.unwrap();
    put(&store, 12, 1000).await.unwrap();

    // Full at once, before anybody looked: whatever was acknowledged is there afterwards.
    mounted.leave(0);
    let mut acknowledged = Vec::new();
    for number in 1000..1400 {
        match put(&store, number, 100_000).await {
            Ok(_) => acknowledged.push(number.to_string()),
            Err(_) => break,
        }
    }
    store.shutdown().await;
    mounted.leave(u64::MAX);
    let store = open().await;
    let (_, rows) = store.rows("/").unwrap();
    let names: Vec<_> = rows.iter().map(|(key, _)| key.name()).collect();
    for name in (2..=10).chain([12]).map(|number| number.to_string()).chain(acknowledged) {
        assert!(names.contains(&name.as_str()), "{name} was acknowledged and is gone");
    }
    until("it is written again", || async { put(&store, 2000, 1000).await.ok() }).await;
    store.shutdown().await;
}
