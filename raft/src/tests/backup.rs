//! Backups of running stores, and what is made of them.

use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    key::Key,
    request::Read,
    txn::{Document, Outcome, Revision, Txn},
    world::Timestamp,
};

use super::fixture::{CLUSTER, document, key, open_alone};
use crate::{
    OpenError, Status, Store,
    backup::{Backup, Origin, PIECE, RestoreError, Summary, restore},
};

const WRITES: u64 = 30;
const NEW: ClusterId = ClusterId(8);

/// A store with some revisions behind it: keys written, written again, deleted.
async fn lived(path: &Path) -> Store {
    let store = open_alone(path, CLUSTER, 1).await.unwrap();
    store.initialize().await.unwrap();
    for number in 1..=WRITES {
        let name = (number % 20).to_string();
        let txn = match number % 7 {
            0 => Txn::new().delete(key(&((number - 1) % 20).to_string())),
            _ => Txn::new().put(key(&name), document(&"x".repeat(1000 * number as usize))),
        };
        let outcome = store.propose(RequestId(u128::from(number)), txn).await.unwrap();
        assert_eq!(outcome, Outcome::Applied(Revision(number)));
    }
    store
}

async fn bytes(store: &Store) -> Vec<u8> {
    let pieces = store.backup(Read::Linearizable, Timestamp::from_second(1_800_000_000).unwrap()).await.unwrap();
    let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
    pieces.concat()
}

/// The status, once it tells of all that was written.
async fn told(store: &Store) -> Status {
    let mut status = store.status();
    status.wait_for(|status| status.revision >= Revision(WRITES)).await.unwrap().clone()
}

/// Reads it whole: objects in order and what they came to.
fn read(file: &[u8]) -> (Vec<(Key, Document)>, Summary) {
    let mut objects = Vec::new();
    let summary =
        Backup::open(file).unwrap().objects(|key, versioned| objects.push((key, versioned.document))).unwrap();
    (objects, summary)
}

#[tokio::test]
async fn a_backup_holds_the_state_of_one_revision_and_says_what_it_is_of() {
    let directory = tempfile::tempdir().unwrap();
    let store = lived(directory.path()).await;
    let file = bytes(&store).await;
    let (objects, summary) = read(&file);
    let rows = store.rows("/").unwrap().1;
    assert_eq!(objects, rows.into_iter().map(|(key, versioned)| (key, versioned.document)).collect::<Vec<_>>());
    let status = told(&store).await;
    let build = env!("CARGO_PKG_VERSION").to_owned();
    let origin =
        Origin { cluster: CLUSTER, revision: Revision(WRITES), hash: status.hash, taken: 1_800_000_000, build };
    assert_eq!(summary.origin, origin);
    assert_eq!((summary.objects, summary.bytes), (objects.len() as u64, file.len() as u64));
    assert_eq!(summary.resources, [("configmaps".to_owned(), objects.len() as u64)].into());
    assert_eq!(summary.sum, file[file.len() - 32..]);
    store.shutdown().await;
}

#[tokio::test]
async fn a_backup_that_is_taken_while_others_write_is_of_a_single_moment() {
    let directory = tempfile::tempdir().unwrap();
    let store = lived(directory.path()).await;
    let taken = Timestamp::from_second(0).unwrap();
    let mut pieces = store.backup(Read::Linearizable, taken).await.unwrap();
    let mut file = pieces.try_next().await.unwrap().unwrap().to_vec();
    for number in 0..50 {
        let txn = Txn::new().put(key("a"), document("later")).put(key("b"), document("later"));
        store.propose(RequestId(1000 + number), txn).await.unwrap();
    }
    while let Some(piece) = pieces.try_next().await.unwrap() {
        file.extend(piece);
    }
    let (objects, summary) = read(&file);
    let later: Vec<_> = objects.iter().filter(|(_, document)| document.0.ends_with(b"later\"")).collect();
    assert_eq!((summary.origin.revision, later.len()), (Revision(WRITES), 0));
    store.shutdown().await;
}

#[tokio::test]
async fn a_restored_store_has_the_same_state_and_goes_on_in_a_cluster_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let store = lived(&old).await;
    let (file, before) = (bytes(&store).await, told(&store).await);
    let rows = store.rows("/").unwrap();
    store.shutdown().await;

    let summary = restore(Backup::open(file.as_slice()).unwrap(), &new, NEW, NodeId(9)).unwrap();
    assert_eq!(summary, read(&file).1);
    let store = open_alone(&new, NEW, 9).await.unwrap();
    let mut status = store.status();
    let leading = status.wait_for(|status| status.leading).await.unwrap().clone();
    assert_eq!((leading.revision, leading.hash), (before.revision, before.hash));
    assert_eq!(leading.members.iter().map(|member| member.id).collect::<Vec<_>>(), [NodeId(9)]);
    assert_eq!(store.rows("/").unwrap(), rows);
    // A request that the backup knows is known; a new one goes on behind it.
    let again = store.propose(RequestId(3), Txn::new().put(key("3"), document("again"))).await.unwrap();
    assert_eq!(again, Outcome::Applied(Revision(3)));
    let next = store.propose(RequestId(500), Txn::new().put(key("new"), document("new"))).await.unwrap();
    assert_eq!(next, Outcome::Applied(Revision(WRITES + 1)));
    store.shutdown().await;

    let store = open_alone(&new, NEW, 9).await.unwrap();
    store.status().wait_for(|status| status.leading).await.unwrap();
    assert_eq!(store.read(Read::Linearizable).await.unwrap(), Revision(WRITES + 1));
    store.shutdown().await;
    assert!(matches!(open_alone(&new, CLUSTER, 9).await, Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_directory_that_holds_something_is_not_restored_into() {
    let directory = tempfile::tempdir().unwrap();
    let store = lived(&directory.path().join("old")).await;
    let file = bytes(&store).await;
    store.shutdown().await;
    let error = restore(Backup::open(file.as_slice()).unwrap(), &directory.path().join("old"), NEW, NodeId(9));
    assert!(matches!(error, Err(RestoreError::Occupied(_))), "{error:?}");
}
