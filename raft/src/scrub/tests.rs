//! Holes and other rows, punched into a state that was whole.

use bytes::Bytes;
use quorate_proto::{
    ids::{NodeId, RequestId},
    key::Key,
    txn::{Command, Document, Txn},
};

use super::*;
use crate::{
    engine::{Batch, Engine, Memory, look},
    machine::{Applying, Cache},
    record::{Body, Entry, LogId},
};

fn pod(name: &str) -> Key {
    Key::new("", "pods", Some("default"), name).unwrap()
}

fn text(text: &'static str) -> Document {
    Document(Bytes::from_static(text.as_bytes()))
}

/// Two keys that are there, one of them changed, and one that was deleted.
fn whole() -> Memory {
    let memory = Memory::new();
    let txns = [
        Txn::new().put(pod("a"), text("1")).put(pod("b"), text("1")),
        Txn::new().put(pod("a"), text("2")).put(pod("c"), text("1")),
        Txn::new().delete(pod("c")),
    ];
    for (index, txn) in (0_u64..).zip(txns) {
        let command = record::encode(&Command::Apply { request: RequestId(index.into()), txn }).unwrap();
        let entry = Entry { id: LogId { term: 1, node: NodeId(1), index }, body: Body::Command(command) };
        let applied = look(&memory, |view| {
            let meta = Meta::load(view)?;
            let cache = Cache::load(view, &meta)?;
            let mut applying = Applying::new(view, meta).with(&cache);
            applying.apply(&entry)?;
            applying.finish()
        });
        memory.write(applied.unwrap().batch).unwrap();
    }
    memory
}

fn verdict(memory: &Memory) -> Result<(), String> {
    look(memory, |view| state(view, &mut |_| Ok(()))).map_err(|error| error.to_string())
}

fn change(change: impl FnOnce(&mut Batch)) -> Memory {
    let memory = whole();
    let mut batch = Batch::default();
    change(&mut batch);
    memory.write(batch).unwrap();
    memory
}

#[test]
fn a_state_that_is_whole_passes() {
    assert_eq!(verdict(&Memory::new()), Ok(()));
    assert_eq!(verdict(&whole()), Ok(()));
}

#[test]
fn a_row_that_is_lost_from_any_column_is_noticed() {
    let name = |name| pod(name).as_str().as_bytes().to_vec();
    let history = |name, revision| columns::history_key(pod(name).as_str(), Revision(revision));
    let holes = [
        (Column::Current, name("a")),
        (Column::Current, name("b")),
        (Column::History, history("a", 1)),
        (Column::History, history("a", 2)),
        (Column::History, history("c", 2)),
        (Column::History, history("c", 3)),
        (Column::Revisions, columns::revision_key(Revision(1), 1)),
        (Column::Revisions, columns::revision_key(Revision(3), 0)),
    ];
    for (column, key) in holes {
        let torn = change(|batch| batch.delete(column, key.clone()));
        assert!(verdict(&torn).is_err(), "{column:?} {}", key.escape_ascii());
    }
}

#[test]
fn a_row_that_is_another_one_or_too_many_is_noticed() {
    let rows = look(&whole(), |view| view.get(Column::Current, pod("b").as_str().as_bytes())).unwrap().unwrap();
    for name in ["a", "c"] {
        let other = change(|batch| batch.put(Column::Current, pod(name).as_str().into(), rows.clone()));
        assert!(verdict(&other).unwrap_err().contains("newest versions"), "{name}");
    }
    let unreadable = change(|batch| batch.put(Column::Current, pod("a").as_str().into(), Bytes::from_static(b"\x01")));
    assert!(verdict(&unreadable).is_err());
}

#[test]
fn a_scrub_ends_when_its_pace_says_so() {
    let ended = look(&whole(), |view| state(view, &mut |_| Err(io::ErrorKind::Interrupted.into())));
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
}
