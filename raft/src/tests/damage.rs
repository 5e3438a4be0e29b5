//! What a damaged directory comes to: everything, or a refusal; never a store that is quietly short.

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorate_proto::{
    ids::{ClusterId, RequestId},
    txn::{Outcome, Revision, Txn},
};

mod table;

use super::fixture::{CLUSTER, copy_tree, document, key, open_alone};
use crate::{OpenError, Store};

const WRITES: u64 = 20;

/// A directory as a killed process leaves it: acknowledged writes, and nothing flushed or closed.
async fn killed(directory: &Path) -> PathBuf {
    let (live, copy) = (directory.join("live"), directory.join("killed"));
    let store = open_alone(&live, CLUSTER, 1).await.unwrap();
    store.initialize().await.unwrap();
    for number in 1..=WRITES {
        let txn = Txn::new().put(key(&number.to_string()), document("value"));
        let outcome = store.propose(RequestId(u128::from(number)), txn).await.unwrap();
        assert_eq!(outcome, Outcome::Applied(Revision(number)));
    }
    copy_tree(&live, &copy);
    store.shutdown().await;
    copy
}

/// The write-ahead log that was being written.
fn live_wal(store: &Path) -> PathBuf {
    let files = fs::read_dir(store.join("db")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// All that was acknowledged is there, or the store does not open. Nothing in between.
async fn complete_or_refused(path: &Path, what: &str) -> bool {
    let store = match open_alone(path, CLUSTER, 1).await {
        Ok(store) => store,
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Behind { .. }), "{what}: {error:?}");
            return false;
        }
    };
    assert_complete(&store, what).await;
    store.shutdown().await;
    true
}

async fn assert_complete(store: &Store, what: &str) {
    store.initialize().await.unwrap();
    let mut status = store.status();
    status.wait_for(|status| status.leading).await.unwrap();
    let revision = store.read(quorate_proto::request::Read::Linearizable).await.unwrap();
    assert_eq!(revision, Revision(WRITES), "{what}: acknowledged writes are gone");
    assert_eq!(store.rows("/").unwrap().1.len() as u64, WRITES, "{what}");
}

#[tokio::test]
async fn a_killed_store_has_every_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    let copy = killed(directory.path()).await;
    assert!(complete_or_refused(&copy, "untouched").await, "nothing is wrong with it");
}

#[tokio::test]
async fn damage_to_the_log_never_makes_a_store_short() {
    let directory = tempfile::tempdir().unwrap();
    let copy = killed(directory.path()).await;
    let wal = live_wal(&copy);
    let intact = fs::read(&wal).unwrap();
    let mut refused = 0;
    for step in 1..8 {
        let at = intact.len() * step / 8;
        let mut flipped = intact.clone();
        flipped[at] ^= 0x10;
        let mut zeroed = intact.clone();
        zeroed[at..(at + 512).min(intact.len())].fill(0);
        for (what, bytes) in
            [("a flipped bit", flipped), ("a zeroed sector", zeroed), ("cut short", intact[..at].to_vec())]
        {
            let target = directory.path().join("damaged");
            copy_tree(&copy, &target);
            fs::write(live_wal(&target), bytes).unwrap();
            refused += u32::from(!complete_or_refused(&target, &format!("{what} at {at}")).await);
            fs::remove_dir_all(target).unwrap();
        }
    }
    assert_eq!(refused, 21, "every one of these loses something that was acknowledged");
}

#[tokio::test]
async fn bytes_that_never_became_a_record_are_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let copy = killed(directory.path()).await;
    let wal = live_wal(&copy);
    let mut longer = fs::read(&wal).unwrap();
    longer.extend([0; 4096]);
    fs::write(&wal, longer).unwrap();
    assert!(complete_or_refused(&copy, "zeros behind the end").await);
}

#[tokio::test]
async fn a_store_without_its_log_or_its_mark_is_refused() {
    for missing in ["wal", "mark", "db"] {
        let directory = tempfile::tempdir().unwrap();
        let copy = killed(directory.path()).await;
        match missing {
            "wal" => fs::remove_file(live_wal(&copy)).unwrap(),
            "mark" => fs::remove_file(copy.join("mark")).unwrap(),
            _ => fs::remove_dir_all(copy.join("db")).unwrap(),
        }
        assert!(!complete_or_refused(&copy, missing).await, "without its {missing}");
    }
}

#[tokio::test]
async fn an_old_copy_under_a_newer_mark_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let old = killed(directory.path()).await;
    let newer = directory.path().join("live");
    let store = open_alone(&newer, CLUSTER, 1).await.unwrap();
    assert_complete(&store, "reopened").await;
    store.shutdown().await;
    fs::copy(newer.join("mark"), old.join("mark")).unwrap();
    let error = open_alone(&old, CLUSTER, 1).await.err().unwrap();
    assert!(matches!(error, OpenError::Behind { .. }), "{error:?}");
}

#[tokio::test]
async fn a_directory_of_another_node_or_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let copy = killed(directory.path()).await;
    for (cluster, node, found) in [(CLUSTER, 2, "node "), (ClusterId(8), 1, "cluster ")] {
        let error = open_alone(&copy, cluster, node).await.err().unwrap();
        assert!(matches!(&error, OpenError::Foreign { found: is, .. } if is.starts_with(found)), "{error:?}");
    }
}
