//! Bytes that were written by us and changed by somebody: whatever reads them says so, or reads something whole; it never stops the
//! process, and never takes memory by what a length says.

use std::{collections::BTreeSet, fs};

use bytes::Bytes;
use proptest::prelude::*;
use quorate_proto::{
    ids::{ClusterId, NodeId},
    txn::Revision,
};

use crate::{
    Memory,
    columns::Column,
    engine::Row,
    fault::Fence,
    log::mark::Mark,
    machine::{Current, Meta},
    record::{self, Body, Entry, LogId, Membership, StoredMembership, Vote},
    rpc,
    snapshot::{Header, Sink as _, Vault, Writer},
};

const ID: LogId = LogId { term: 3, node: NodeId(7), index: 9 };

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (any::<prop::sample::Index>(), prop_oneof![Just(0xff), Just(0xfd), any::<u8>()])
            .prop_map(|(at, byte)| Mutation::Set(at, byte)),
        any::<prop::sample::Index>().prop_map(Mutation::Cut),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

fn mutated(bytes: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Flip(at, bit) => *at.get_mut(&mut bytes) ^= 1 << bit,
            Mutation::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    prop::collection::vec(mutation(), 1..4)
}

fn membership() -> Membership {
    Membership { voters: vec![BTreeSet::from([NodeId(7), NodeId(8)])], members: BTreeSet::from([NodeId(7), NodeId(8)]) }
}

fn entries() -> Vec<Entry> {
    let bodies = [Body::Blank, Body::Command(Bytes::from_static(b"\x01command")), Body::Membership(membership())];
    bodies.into_iter().map(|body| Entry { id: ID, body }).collect()
}

/// Rows as they are stored, without the checksums that RocksDB puts around them.
fn rows() -> Vec<Bytes> {
    let current =
        Current { created: Revision(1), modified: Revision(2), version: 2, lease: 0, value: Bytes::from_static(b"{}") };
    let stored = StoredMembership { log: Some(ID), membership: membership() };
    let meta = Meta { applied: Some(ID), membership: stored.clone(), ..Meta::default() };
    let mut rows = vec![
        record::encode(&ID).unwrap(),
        record::encode(&Vote { term: 3, node: NodeId(7), committed: true }).unwrap(),
        record::encode(&stored).unwrap(),
        record::encode(&current).unwrap(),
        record::encode(&Some(current)).unwrap(),
    ];
    rows.extend(meta.rows().unwrap().into_iter().map(|(_, row)| row));
    rows.extend(entries().iter().map(|entry| record::encode(entry).unwrap()));
    rows
}

fn snapshot() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let vault = Vault::disk(directory.path().to_owned(), Fence::new());
    let stored = StoredMembership { log: Some(ID), membership: membership() };
    let header = Header { last: Some(ID), membership: stored, meta: Meta::default().rows().unwrap() };
    let mut writer = Writer::new(vault.draft().unwrap(), &header).unwrap();
    for row in 0..3_u8 {
        writer.row(Column::Current, &[row], &[row; 2000]).unwrap();
    }
    vault.keep(writer.finish().unwrap()).unwrap();
    fs::read(directory.path().join("current")).unwrap()
}

/// Header and rows, if the snapshot is whole.
fn whole(vault: &Vault) -> std::io::Result<(Header, Vec<Row>)> {
    let kept = vault.current()?.ok_or(std::io::ErrorKind::NotFound)?;
    kept.verify()?;
    let (header, rows) = kept.read()?;
    Ok((header, rows.collect::<std::io::Result<_>>()?))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_entry_of_the_log_is_never_read_as_another(which in 0..3_usize, mutations in mutations()) {
        let entry = &entries()[which];
        let sealed = record::seal(entry).unwrap();
        let torn = mutated(&sealed, &mutations);
        match record::unseal::<Entry>(&torn) {
            Ok(read) => prop_assert_eq!((&read, &torn[..]), (entry, &sealed[..])),
            Err(error) => prop_assert!(crate::fault::is_damage(&error) || error.kind() == std::io::ErrorKind::Unsupported),
        }
    }

    #[test]
    fn a_changed_row_is_read_as_something_whole_or_refused(which in any::<prop::sample::Index>(), mutations in mutations()) {
        let rows = rows();
        let torn = mutated(which.get::<Bytes>(&rows), &mutations);
        // Each reader may meet each row: what matters is that none of them falls over it.
        let _id = record::decode::<LogId>(&torn);
        let _vote = record::decode::<Vote>(&torn);
        let _membership = record::decode::<StoredMembership>(&torn).and_then(StoredMembership::restore);
        let _current = record::decode::<Current>(&torn);
        let _history = record::decode::<Option<Current>>(&torn);
        let _entry = record::decode::<Entry>(&torn).and_then(Entry::restore);
        let _operation = crate::machine::operation(&torn);
        let _request = rpc::decode::<rpc::Request>(&torn);
        let _answer = rpc::decode::<rpc::Answer>(&torn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_snapshot_is_never_read_as_another(mutations in mutations()) {
        let directory = tempfile::tempdir().unwrap();
        let intact = snapshot();
        let torn = mutated(&intact, &mutations);
        fs::write(directory.path().join("current"), &torn).unwrap();
        let vault = Vault::disk(directory.path().to_owned(), Fence::new());
        // Bytes behind the last block are nobody's.
        if let Ok(read) = whole(&vault) {
            fs::write(directory.path().join("current"), &intact).unwrap();
            prop_assert_eq!(read, whole(&vault).unwrap());
        }
    }

    #[test]
    fn rows_that_lie_about_themselves_are_refused(mutations in mutations()) {
        // Behind checksums that are right: what a faulty sender would send.
        let vault = Vault::memory(Memory::new(), Fence::new());
        let mut draft = vault.draft().unwrap();
        draft.push(mutated(&snapshot()[8..], &mutations).into()).unwrap_or_default();
        let _kept = vault.keep(draft);
    }

    #[test]
    fn a_changed_mark_says_what_it_said_or_what_it_said_before(mutations in mutations()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        let mut mark = Mark::create(&path, ClusterId(1), NodeId(7)).unwrap();
        let before = mark.level().clone();
        mark.set_last(Some(ID)).unwrap();
        let last = mark.level().clone();
        drop(mark);
        fs::write(&path, mutated(&fs::read(&path).unwrap(), &mutations)).unwrap();
        match Mark::open(&path) {
            Ok(read) => prop_assert!([&before, &last].contains(&read.level())),
            Err(error) => prop_assert!(crate::fault::is_damage(&error)),
        }
    }
}
