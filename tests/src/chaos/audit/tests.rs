//! A history that fits what was decided, and each way in which one may not.

use bytes::Bytes;
use quorate_proto::{
    ids::{NodeId, RequestId},
    txn::{Document, Outcome, Txn},
};

use super::*;
use crate::store_sim::history::{Freshness, Operation, Page, Watched, What, Written};

/// Two keys of a bucket, written at revisions between which others wrote.
const WRITTEN: [(&str, u64); 3] = [("a", 11), ("b", 14), ("a", 17)];

fn key(name: &str) -> Key {
    Key::parse(&format!("/kv/chaos-0/_/{name}")).unwrap()
}

fn document(revision: u64) -> Document {
    Document(Bytes::from(format!("\"{revision}\"")))
}

fn changes(name: &str, revision: u64) -> Arc<[Change]> {
    let created = WRITTEN.iter().find(|(written, _)| *written == name).map_or(revision, |(_, first)| *first);
    let now = Versioned { document: document(revision), created: Revision(created), modified: Revision(revision) };
    [Change { revision: Revision(revision), key: key(name), now: Some(now) }].into()
}

fn ledger() -> Ledger {
    WRITTEN.iter().map(|(name, revision)| (Revision(*revision), changes(name, *revision))).collect()
}

fn operation(called: u64, what: What) -> Operation {
    Operation { client: 0, node: NodeId(0), incarnation: 1, called, returned: Some(called + 1), what }
}

fn write(called: u64, name: &str, revision: u64, answer: Written) -> Operation {
    let txn = Txn::new().put(key(name), document(revision));
    operation(called, What::Write { request: RequestId(revision.into()), txn, answer })
}

fn read(called: u64, name: &str, revision: u64, at: u64) -> Operation {
    let rows =
        changes(name, revision).iter().filter_map(|change| Some((change.key.clone(), change.now.clone()?))).collect();
    let page = Some(Page { revision: Revision(at), rows });
    operation(called, What::Read { freshness: Freshness::Linearizable, prefix: key(name).as_str().to_owned(), page })
}

/// How the ledger came to be, with a read in between and a watch of it all.
fn history() -> History {
    let applied = |revision| Written::Decided(Outcome::Applied(Revision(revision)));
    let mut operations: Vec<_> =
        WRITTEN.iter().map(|(name, revision)| write(revision * 10, name, *revision, applied(*revision))).collect();
    operations.push(read(150, "a", 11, 15));
    let delivered = ledger().into_values().collect();
    History { operations, watches: vec![Watched { from: Revision(9), delivered }] }
}

/// What is said of a history, and of what the nodes tell.
fn wrong(change: impl FnOnce(&mut History, &mut [Ledger; 3])) -> Wrong {
    let (mut history, mut ledgers) = (history(), [ledger(), ledger(), ledger()]);
    change(&mut history, &mut ledgers);
    judge(&history, &ledgers, Revision(17))
}

#[test]
fn what_fits_is_not_accused() {
    assert_eq!(wrong(|_, _| {}), Wrong::default());
    let unknown = |history: &mut History| history.operations.push(write(160, "c", 99, Written::Unknown));
    assert_eq!(wrong(|history, _| unknown(history)), Wrong::default());
}

#[test]
fn a_write_that_was_acknowledged_and_is_on_no_node_is_lost() {
    let wrong = wrong(|_, ledgers| ledgers.iter_mut().for_each(|ledger| drop(ledger.remove(&Revision(14)))));
    assert_eq!(wrong.writes.len(), 1, "{wrong:?}");
    assert!(wrong.writes[0].contains("acknowledged at revision 14 and is not there"), "{wrong:?}");
}

#[test]
fn a_read_that_does_not_see_what_was_acknowledged_before_is_stale() {
    let wrong = wrong(|history, _| history.operations.push(read(180, "a", 11, 15)));
    assert_eq!(wrong.reads.len(), 1, "{wrong:?}");
    assert!(wrong.reads[0].contains("at tick 180: it shows revision 15 and had to show 17"), "{wrong:?}");
    assert!(wrong.writes.is_empty() && wrong.watches.is_empty() && wrong.nodes.is_empty(), "{wrong:?}");
}

#[test]
fn a_watch_with_a_gap_or_a_repetition_is_noticed() {
    let gap = wrong(|history, _| drop(history.watches[0].delivered.remove(1)));
    assert_eq!(gap.watches, ["watch 0: revision 17 came when 14 was due"]);
    let twice = wrong(|history, _| {
        let again = Arc::clone(&history.watches[0].delivered[1]);
        history.watches[0].delivered.insert(1, again);
    });
    assert_eq!(twice.watches[0], "watch 0: revision 14 came after 14");
}

#[test]
fn nodes_that_tell_different_things_are_noticed() {
    let wrong = wrong(|_, ledgers| drop(ledgers[2].remove(&Revision(14))));
    assert_eq!(wrong.nodes.len(), 1);
    assert!(wrong.nodes[0].starts_with("revision 14 is Some(") && wrong.nodes[0].ends_with("None on n2"), "{wrong:?}");
}

#[test]
fn what_a_node_has_at_the_end_is_what_was_decided() {
    let rows = left(&ledger());
    assert_eq!(rows.len(), 2);
    assert_eq!(differs(1, "/kv/chaos-0/", &rows, &rows), None);
    let said = differs(1, "/kv/chaos-0/", &rows[1..].to_vec(), &rows).unwrap();
    assert!(said.starts_with("n1 has not what /kv/chaos-0/ should be: 1 of 2 rows are missing"), "{said}");
}
