//! The state machine on rows in memory.

use std::ops::ControlFlow;

use quorate_proto::{
    ids::{NodeId, RequestId},
    txn::Outcome,
};

use super::*;
use crate::{
    engine::{Engine, Memory, look},
    record::{Entry, LogId},
};

mod differential;
mod model;
mod more;

/// A machine on rows in memory.
#[derive(Default)]
struct Machine {
    rows: Memory,
    index: u64,
    limit: Option<u64>,
    cache: Option<Cache>,
}

impl Machine {
    /// Applies transactions as one batch.
    fn apply(&mut self, txns: &[(u128, Txn)]) -> Vec<Outcome> {
        let command = |(request, txn): &(u128, Txn)| Command::Apply { request: RequestId(*request), txn: txn.clone() };
        let commands: Vec<_> = txns.iter().map(command).collect();
        let outcome = |outcome| match outcome {
            CommandOutcome::Applied(revision) => Outcome::Applied(revision),
            CommandOutcome::Stale(key) => Outcome::Stale(key),
            other => panic!("{other:?}"),
        };
        self.execute(&commands).into_iter().map(outcome).collect()
    }

    /// Applies commands as one batch.
    fn execute(&mut self, commands: &[Command]) -> Vec<CommandOutcome> {
        let limit = self.limit.unwrap_or(ANSWERS);
        let outcomes = apply(&self.rows, &mut self.cache, self.index, commands, limit);
        self.index += commands.len() as u64;
        outcomes
    }

    fn one(&mut self, request: u128, txn: Txn) -> Outcome {
        self.apply(&[(request, txn)]).remove(0)
    }

    fn meta(&self) -> Meta {
        look(&self.rows, |view| check(view)).unwrap()
    }

    fn names(&self) -> Vec<(String, u64, u64)> {
        let (_, rows) = look(&self.rows, |view| rows(view, "/core/pods/")).unwrap();
        let row = |(key, row): (Key, Versioned)| (key.name().to_owned(), row.created.0, row.modified.0);
        rows.into_iter().map(row).collect()
    }

    fn replayed(&self, after: u64, limit: usize) -> Vec<(u64, String, bool)> {
        match look(&self.rows, |view| replay(view, Revision(after), limit, false)).unwrap() {
            Replay::Updates(revisions) => revisions
                .iter()
                .flat_map(|update| update.changes())
                .map(|change| (change.revision.0, change.key.name().to_owned(), change.now.is_some()))
                .collect(),
            Replay::Compacted(oldest) => panic!("compacted up to {oldest}"),
        }
    }
}

/// Applies commands as one batch, from an entry of the log on: the same batch whatever of the state is in memory.
fn apply(
    rows: &dyn Engine,
    cache: &mut Option<Cache>,
    index: u64,
    commands: &[Command],
    limit: u64,
) -> Vec<CommandOutcome> {
    let (mut kept, (mut applied, outcomes)) = look(rows, |view| {
        let meta = Meta::load(view)?;
        let fresh = Cache::load(view, &meta)?;
        let kept = cache.take().map_or_else(|| Cache::load(view, &meta), Ok)?;
        let read = run(Applying::new(view, meta.clone()).with(&fresh), index, commands, limit)?;
        let done = run(Applying::new(view, meta).with(&kept), index, commands, limit)?;
        assert_eq!((&done.0.batch.ops, &done.1), (&read.0.batch.ops, &read.1));
        Ok((kept, done))
    })
    .unwrap();
    rows.write(std::mem::take(&mut applied.batch)).unwrap();
    kept.note(&mut applied);
    *cache = Some(kept);
    outcomes
}

fn run(
    mut applying: Applying<'_>,
    index: u64,
    commands: &[Command],
    limit: u64,
) -> std::io::Result<(Applied, Vec<CommandOutcome>)> {
    applying.limit = limit;
    let mut outcomes = Vec::new();
    for (offset, command) in commands.iter().enumerate() {
        let id = LogId { term: 1, node: NodeId(1), index: index + offset as u64 };
        let entry = Entry { id, body: Body::Command(record::encode(command)?) };
        outcomes.extend(applying.apply(&entry)?);
    }
    Ok((applying.finish()?, outcomes))
}

fn pod(name: &str) -> Key {
    Key::new("", "pods", Some("default"), name).unwrap()
}

fn text(text: &'static str) -> Document {
    Document(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_transaction_takes_one_revision_and_is_seen_whole() {
    let mut machine = Machine::default();
    let both = Txn::new().put(pod("a"), text("1")).put(pod("b"), text("1"));
    assert_eq!(machine.one(1, both), Outcome::Applied(Revision(1)));
    let change = Txn::new().put(pod("a"), text("2")).delete(pod("b")).put(pod("c"), text("2"));
    assert_eq!(machine.one(2, change), Outcome::Applied(Revision(2)));
    assert_eq!(machine.names(), [("a".to_owned(), 1, 2), ("c".to_owned(), 2, 2)]);
    let seen = [(1, "a", true), (1, "b", true), (2, "a", true), (2, "b", false), (2, "c", true)];
    assert_eq!(machine.replayed(0, usize::MAX), seen.map(|(revision, name, put)| (revision, name.to_owned(), put)));
}

#[test]
fn a_key_is_looked_up_as_it_was_at_a_revision() {
    let mut machine = Machine::default();
    machine.one(1, Txn::new().put(pod("a"), text("1")).put(pod("ab"), text("other")));
    machine.one(2, Txn::new().put(pod("b"), text("2")));
    machine.one(3, Txn::new().put(pod("a"), text("3")));
    machine.one(4, Txn::new().delete(pod("a")));
    let at = |name: &str, revision| match look(&machine.rows, |view| at(view, &pod(name), Revision(revision))).unwrap()
    {
        Past::Held(held) => held.map(|held| (held.document, held.created.0, held.modified.0)),
        Past::Compacted(oldest) => panic!("compacted up to {oldest}"),
    };
    let seen = [0, 1, 2, 3, 4].map(|revision| at("a", revision));
    assert_eq!(seen, [None, Some((text("1"), 1, 1)), Some((text("1"), 1, 1)), Some((text("3"), 1, 3)), None]);
    assert_eq!((at("b", 1), at("b", 2), at("c", 4)), (None, Some((text("2"), 2, 2)), None));
}

#[test]
fn entries_of_one_batch_see_each_other() {
    let mut machine = Machine::default();
    let create = Txn::new().create(pod("a"), text("1"));
    let update = Txn::new().update(pod("a"), Revision(1), text("2"));
    let outcomes = machine.apply(&[(1, create.clone()), (2, create.clone()), (3, update), (1, create)]);
    let stale = Outcome::Stale(pod("a"));
    assert_eq!(
        outcomes,
        [Outcome::Applied(Revision(1)), stale, Outcome::Applied(Revision(2)), Outcome::Applied(Revision(1))]
    );
    assert_eq!(machine.names(), [("a".to_owned(), 1, 2)]);
}

#[test]
fn what_changes_nothing_takes_no_revision() {
    let mut machine = Machine::default();
    machine.one(1, Txn::new().put(pod("a"), text("1")));
    assert_eq!(machine.one(2, Txn::new().delete(pod("b"))), Outcome::Applied(Revision(1)));
    assert_eq!(machine.one(3, Txn::new().put(pod("b"), text("1")).delete(pod("b"))), Outcome::Applied(Revision(1)));
    assert_eq!(machine.meta().revision, Revision(1));
}

#[test]
fn a_key_written_twice_in_one_transaction_changes_once() {
    let mut machine = Machine::default();
    machine.one(1, Txn::new().put(pod("a"), text("1")).put(pod("b"), text("1")).put(pod("a"), text("2")));
    let seen = [(1, "a", true), (1, "b", true)];
    assert_eq!(machine.replayed(0, usize::MAX), seen.map(|(revision, name, put)| (revision, name.to_owned(), put)));
}

#[test]
fn a_retry_is_answered_as_its_first_try_until_enough_others_came_after() {
    let mut machine = Machine { limit: Some(3), ..Machine::default() };
    let first = machine.one(1, Txn::new().put(pod("a"), text("1")));
    for request in 2..=3 {
        machine.one(request, Txn::new().put(pod("b"), text("1")));
    }
    assert_eq!(machine.one(1, Txn::new().put(pod("a"), text("2"))), first);
    machine.one(4, Txn::new().put(pod("b"), text("1")));
    assert_eq!(machine.one(1, Txn::new().put(pod("a"), text("2"))), Outcome::Applied(Revision(5)));
    let kept = look(&machine.rows, |view| {
        let mut count = 0;
        view.scan(Column::Dedup, &[], None, &mut |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    });
    assert_eq!(kept.unwrap(), 3, "a row for each that was applied alone");
}

#[test]
fn a_request_is_forgotten_at_the_same_entry_whichever_batches_nodes_apply() {
    let put = |request: u128| Command::Apply { request: RequestId(request), txn: Txn::new().put(pod("a"), text("1")) };
    let revisions = |batches: &[&[u128]]| {
        let mut machine = Machine { limit: Some(2), ..Machine::default() };
        let outcomes =
            batches.iter().flat_map(|batch| machine.execute(&batch.iter().copied().map(put).collect::<Vec<_>>()));
        (outcomes.collect::<Vec<_>>(), machine.meta().hash)
    };
    // The third request pushes the first one out, which then comes again.
    let apart = revisions(&[&[1, 2], &[3], &[1]]);
    for batches in [&[&[1, 2][..], &[3, 1]][..], &[&[1, 2, 3], &[1]], &[&[1, 2, 3, 1]], &[&[1], &[2, 3, 1]]] {
        assert_eq!(revisions(batches), apart, "{batches:?}");
    }
}

#[test]
fn a_replay_in_pieces_keeps_revisions_whole() {
    let mut machine = Machine::default();
    for request in 1..=5 {
        machine.one(request, Txn::new().put(pod("a"), text("1")).put(pod("b"), text("1")));
    }
    let piece = machine.replayed(1, 1);
    assert_eq!(piece.iter().map(|(revision, ..)| *revision).collect::<Vec<_>>(), [2, 2]);
    assert!(machine.replayed(5, 1).is_empty());
}

#[test]
fn equal_histories_have_equal_hashes_and_others_have_not() {
    let history = |last: &'static str| {
        let mut machine = Machine::default();
        machine.one(1, Txn::new().put(pod("a"), text("1")));
        machine.one(2, Txn::new().put(pod("a"), text(last)));
        machine.meta().hash
    };
    assert_eq!(history("2"), history("2"));
    assert_ne!(history("2"), history("3"));
}

#[test]
fn a_revision_that_is_missing_is_noticed() {
    for (from, to) in [(2, 3), (1, 2), (3, 4)] {
        let mut machine = Machine::default();
        for request in 1..=3 {
            machine.one(request, Txn::new().put(pod("a"), text("1")));
        }
        let mut hole = Batch::default();
        let key = |revision| columns::revision_key(Revision(revision), 0);
        hole.delete_range(Column::Revisions, key(from), key(to));
        machine.rows.write(hole).unwrap();
        assert!(look(&machine.rows, |view| check(view)).is_err(), "revision {from}");
    }
}

#[test]
fn a_power_cut_takes_only_what_was_not_synced() {
    let mut machine = Machine::default();
    machine.one(1, Txn::new().put(pod("a"), text("1")));
    machine.rows.sync().unwrap();
    machine.one(2, Txn::new().put(pod("b"), text("1")));
    let machine = Machine { rows: machine.rows.crash(), ..Machine::default() };
    assert_eq!(machine.names(), [("a".to_owned(), 1, 1)]);
    assert_eq!(machine.meta().revision, Revision(1));
}
