//! Histories that are as they should be, and each way in which one may not be.

use bytes::Bytes;
use quorate_proto::{
    ids::NodeId,
    txn::{Compare, Versioned},
};

use super::*;
use crate::store_sim::{client::named, history::Page};

fn document(text: &str) -> Document {
    Document(Bytes::from(format!("\"{text}\"")))
}

fn versioned(text: &str, created: u64, modified: u64) -> Versioned {
    Versioned { document: document(text), created: Revision(created), modified: Revision(modified) }
}

/// What one revision did to one key.
fn change(revision: u64, key: &str, now: Option<(&str, u64)>) -> (Revision, Arc<[Change]>) {
    let now = now.map(|(text, created)| versioned(text, created, revision));
    (Revision(revision), [Change { revision: Revision(revision), key: named(key), now }].into())
}

/// `a` is written, `b` is written, `a` is written again, `b` is deleted.
fn ledger() -> Ledger {
    [
        change(1, "a", Some(("one", 1))),
        change(2, "b", Some(("two", 2))),
        change(3, "a", Some(("three", 1))),
        change(4, "b", None),
    ]
    .into()
}

fn operation(times: (u64, u64), what: What) -> Operation {
    Operation { client: 0, node: NodeId(1), incarnation: 1, called: times.0, returned: Some(times.1), what }
}

fn write(times: (u64, u64), request: u128, txn: Txn, answer: Written) -> Operation {
    operation(times, What::Write { request: RequestId(request), txn, answer })
}

fn applied(revision: u64) -> Written {
    Written::Decided(Outcome::Applied(Revision(revision)))
}

fn put(key: &str, text: &str) -> Txn {
    Txn::new().put(named(key), document(text))
}

fn read(times: (u64, u64), freshness: Freshness, revision: u64, rows: &[(&str, Versioned)]) -> Operation {
    let rows = rows.iter().map(|(key, now)| (named(key), now.clone())).collect();
    let page = Some(Page { revision: Revision(revision), rows });
    operation(times, What::Read { freshness, prefix: "/".to_owned(), page })
}

/// How the ledger came to be.
fn history() -> Vec<Operation> {
    let update = Txn::new().update(named("a"), Revision(1), document("three"));
    vec![
        write((1, 3), 1, put("a", "one"), applied(1)),
        write((2, 5), 2, put("b", "two"), applied(2)),
        read((6, 7), Freshness::Linearizable, 2, &[("a", versioned("one", 1, 1)), ("b", versioned("two", 2, 2))]),
        write((8, 9), 3, update, applied(3)),
        write((10, 12), 4, Txn::new().delete(named("b")), applied(4)),
        write((11, 14), 5, Txn::new().remove(named("b"), Revision(2)), Written::Decided(Outcome::Stale(named("b")))),
    ]
}

fn wrong(change: impl FnOnce(&mut Vec<Operation>, &mut Ledger)) -> String {
    let (mut history, mut ledger) = (history(), ledger());
    change(&mut history, &mut ledger);
    revisions(&history, &ledger).join("\n")
}

#[test]
fn a_history_that_can_be_is_not_accused() {
    assert_eq!(wrong(|_, _| {}), "");
}

#[test]
fn a_revision_that_is_missing_is_noticed_unless_it_may_be_of_other_keys() {
    let mut history = history();
    history.truncate(2);
    let ledger = [change(1, "a", Some(("one", 1))), change(3, "b", Some(("two", 3)))].into();
    history[1] = write((2, 5), 2, put("b", "two"), applied(3));
    assert_eq!(told(&history, &ledger), Verdict::default());
    assert_eq!(revisions(&history, &ledger), ["revision 3 follows 1"]);
}

#[test]
fn a_write_that_was_acknowledged_and_is_gone_is_noticed() {
    let said = wrong(|_, ledger| drop(ledger.remove(&Revision(4))));
    assert!(said.contains("it was acknowledged at revision 4 and is not there"), "{said}");
    let said = wrong(|history, _| history.push(write((15, 16), 9, put("c", "lost"), applied(4))));
    assert!(said.contains("is not there"), "{said}");
}

#[test]
fn a_write_that_was_done_twice_is_noticed() {
    let said = wrong(|_, ledger| ledger.extend([change(5, "a", Some(("three", 1)))]));
    assert!(said.contains("was done twice: at revisions 3 and 5"), "{said}");
}

#[test]
fn a_write_that_was_said_not_to_be_done_and_was_is_noticed() {
    let said = wrong(|history, _| history[1] = write((2, 5), 2, put("b", "two"), Written::NotDone));
    assert!(said.contains("it was said not to be done, and is revision 2"), "{said}");
}

#[test]
fn a_write_whose_outcome_nobody_knows_may_be_there_or_not() {
    let unknown = |text: &str, request| write((8, 9), request, put("c", text), Written::Unknown);
    assert_eq!(wrong(|history, _| history.push(unknown("never", 9))), "");
    let done = |history: &mut Vec<Operation>, ledger: &mut Ledger| {
        history.push(unknown("late", 9));
        ledger.extend([change(5, "c", Some(("late", 5)))]);
    };
    assert_eq!(wrong(done), "");
}

#[test]
fn a_deletion_that_was_there_already_is_not_taken_for_one_that_was_asked_for_later() {
    let said = wrong(|history, _| {
        history[4] = write((10, 12), 4, Txn::new().delete(named("b")), Written::Unknown);
        history[5] = read((13, 14), Freshness::Linearizable, 4, &[("a", versioned("three", 1, 3))]);
        history.push(write((20, 21), 9, Txn::new().remove(named("b"), Revision(2)), Written::Unknown));
    });
    assert_eq!(said, "");
}

#[test]
fn a_write_that_comes_before_one_that_was_acknowledged_earlier_is_noticed() {
    let said = wrong(|history, _| history[0] = write((6, 7), 1, put("a", "one"), applied(1)));
    assert!(said.contains("it became revision 1, and must be after 2"), "{said}");
}

#[test]
fn a_compare_that_did_not_hold_is_noticed() {
    let said = wrong(|history, _| {
        let What::Write { txn, .. } = &mut history[3].what else { return };
        txn.compares = vec![Compare { key: named("a"), seen: Some(Revision(2)) }];
    });
    assert!(said.contains("a was not as it had been seen"), "{said}");
    let said = wrong(|history, _| {
        let stale = Written::Decided(Outcome::Stale(named("a")));
        history.push(write((15, 16), 9, Txn::new().update(named("a"), Revision(3), document("x")), stale));
    });
    assert!(said.contains("a was as it had been seen from revision 4 to 4"), "{said}");
}

#[test]
fn a_read_that_misses_what_was_acknowledged_before_is_noticed() {
    let old = |freshness| read((15, 16), freshness, 2, &[("a", versioned("one", 1, 1)), ("b", versioned("two", 2, 2))]);
    let said = wrong(|history, _| history.push(old(Freshness::Linearizable)));
    assert!(said.contains("it shows revision 2 and had to show 4"), "{said}");
    assert_eq!(wrong(|history, _| history.push(old(Freshness::Stale))), "");
    let said = wrong(|history, _| history.push(old(Freshness::AtLeast(Revision(3)))));
    assert!(said.contains("it shows revision 2 and had to show 3"), "{said}");
}

#[test]
fn a_read_of_a_state_that_never_was_is_noticed() {
    let said = wrong(|history, _| history.push(read((15, 16), Freshness::Linearizable, 4, &[])));
    assert!(said.contains("what it shows of revision 4 was never so"), "{said}");
}

#[test]
fn a_node_that_goes_back_is_noticed() {
    let said = wrong(|history, _| {
        history.push(read((15, 16), Freshness::Stale, 4, &[("a", versioned("three", 1, 3))]));
        history.push(read((17, 18), Freshness::Stale, 1, &[("a", versioned("one", 1, 1))]));
    });
    assert!(said.contains("showed revision 4, and 1 at tick 17"), "{said}");
}

#[test]
fn a_watch_that_delivers_all_that_came_after_where_it_began_is_not_accused() {
    let ledger = ledger();
    let delivered = ledger.range(Revision(2)..).map(|(_, changes)| Arc::clone(changes)).collect();
    assert_eq!(watches(&[Watched { from: Revision(1), delivered }], &ledger, Revision(4)), Vec::<String>::new());
    let future = Watched { from: Revision(9), delivered: Vec::new() };
    assert_eq!(watches(&[future], &ledger, Revision(4)), Vec::<String>::new());
}

#[test]
fn a_watch_that_repeats_skips_reorders_invents_or_stops_is_noticed() {
    let ledger = ledger();
    let said = |order: &[u64]| {
        let delivered = order.iter().map(|revision| Arc::clone(&ledger[&Revision(*revision)])).collect();
        watches(&[Watched { from: Revision(0), delivered }], &ledger, Revision(4)).join("\n")
    };
    assert_eq!(said(&[1, 2, 3, 4]), "");
    assert!(said(&[1, 2, 2, 3, 4]).contains("revision 2 came after 2"));
    assert!(said(&[1, 3, 4]).contains("revision 3 came when 2 was due"));
    assert!(said(&[1, 3, 2, 4]).contains("revision 2 came after 3"));
    assert!(said(&[1, 2, 3]).contains("revision 4 never came"));
    let (_, other) = change(1, "a", Some(("other", 1)));
    let invented = Watched { from: Revision(0), delivered: vec![other] };
    assert!(watches(&[invented], &ledger, Revision(1))[0].contains("is not what was decided"));
}
