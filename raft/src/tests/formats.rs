//! Stores of every format there ever was, as they were left on a disk: each opens here, has what was written, and goes on.
//!
//! `UPDATE=1` writes the one of the present format. One of an older format is never written again.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use quorate_proto::{
    branch::{Branch, Operation},
    ids::RequestId,
    lease::LeaseId,
    query::Query,
    range::KeyRange,
    request::Read,
    txn::{Outcome, Revision, Txn},
};

use super::fixture::{CLUSTER, changes, copy_tree, document, key, open_alone};
use crate::{Store, format::FORMAT};

/// The newest revision of each of them.
const NEWEST: Revision = Revision(5);

/// The request of the first put, and what it is answered for ever.
const FIRST: (RequestId, Outcome) = (RequestId(1), Outcome::Applied(Revision(1)));

fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/store").join(format.to_string())
}

async fn open(path: &Path) -> Store {
    let store = open_alone(path, CLUSTER, 1).await.unwrap();
    store.initialize().await.unwrap();
    store.status().wait_for(|status| status.leading).await.unwrap();
    store
}

fn lease() -> LeaseId {
    LeaseId::new(7).unwrap()
}

fn everything() -> KeyRange {
    KeyRange::prefix("/").unwrap()
}

/// A transaction that writes a key of the lease, and is answered with what was read.
fn branch() -> Branch {
    let put = Operation::Put { key: key("leased"), document: document("x"), lease: Some(lease()), previous: true };
    Branch::new().then(put).then(Operation::Query(Query::new(everything())))
}

/// Writes what each of them holds.
async fn write(path: &Path) {
    let store = open(path).await;
    let txns = [
        Txn::new().put(key("a"), document("1")),
        Txn::new().put(key("a"), document("2")).put(key("b"), document("1")),
        Txn::new().delete(key("b")),
        Txn::new().put(key("c"), document("1")),
    ];
    for (number, txn) in (1..).zip(txns) {
        store.propose(RequestId(number), txn).await.unwrap();
    }
    store.grant(RequestId(10), lease(), 1_000_000).await.unwrap();
    store.branch(RequestId(11), branch()).await.unwrap();
    store.shutdown().await;
    for entry in fs::read_dir(path.join("db")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("LO") {
            fs::remove_file(entry.path()).unwrap(); // RocksDB's LOCK and LOG, which hold nothing
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_any_format_opens_has_what_was_written_and_goes_on() {
    if env::var_os("UPDATE").is_some() && !golden(FORMAT).exists() {
        write(&golden(FORMAT)).await;
    }
    for format in 1..=FORMAT {
        let directory = tempfile::tempdir().unwrap();
        copy_tree(&golden(format), directory.path());
        // A second time, it is opened as it was left by this version.
        for opened in 0..2 {
            let store = open(directory.path()).await;
            let names: Vec<_> = store.rows("/").unwrap().1.into_iter().map(|(key, _)| key).collect();
            assert_eq!(&names[..3], ["a", "c", "leased"].map(key), "format {format}");
            let past = Query { at: Some(Revision(2)), ..Query::new(everything()) };
            let page = store.query(Read::Stale, &past).await.unwrap();
            assert_eq!(page.rows.len(), 2, "format {format}");
            let mut watch = store.watch(Revision(0)).unwrap();
            assert_eq!(changes(&mut watch, NEWEST).await.len(), 6, "format {format}");
            assert_eq!(store.lease(lease()).await.unwrap().keys, [key("leased")], "format {format}");

            // A request that was answered is not done again, and is answered as it was.
            let put = |name: &str| Txn::new().put(key(name), document("new"));
            assert_eq!(store.propose(FIRST.0, put("other")).await.unwrap(), FIRST.1, "format {format}");
            let again = store.branch(RequestId(11), branch()).await.unwrap();
            assert_eq!((again.revision, again.results.unwrap().len()), (NEWEST, 2), "format {format}");

            let next = Outcome::Applied(Revision(NEWEST.0 + 1 + opened));
            let request = RequestId(u128::from(20 + opened));
            assert_eq!(store.propose(request, put(&format!("new-{opened}"))).await.unwrap(), next, "format {format}");
            store.shutdown().await;
        }
    }
}
