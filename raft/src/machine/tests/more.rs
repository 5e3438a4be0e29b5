//! The limits of what one command may do, ask for and leave behind.

use quorate_proto::{
    branch::{Branch, Branched, MAX_DELETED, Operation as Do, OperationResult},
    lease::MAX_LEASE_KEYS,
    query::{MAX_PAGE_BYTES, Query, Select},
    range::KeyRange,
    txn::MAX_OPERATIONS,
};

use super::*;

impl Machine {
    fn branched(&mut self, request: u128, branch: Branch) -> CommandOutcome {
        assert_eq!(branch.check(), Ok(()));
        self.execute(&[Command::Branch { request: RequestId(request), branch }]).remove(0)
    }

    fn page(&self, asked: &Query) -> quorate_proto::query::Page {
        look(&self.rows, |view| query(view, asked)).unwrap().unwrap()
    }

    /// Writes so many keys, under a lease if there is one, without looking at what comes of it.
    fn fill(&mut self, keys: usize, lease: Option<LeaseId>) -> Vec<CommandOutcome> {
        let put =
            |number: usize| Do::Put { key: pod(&format!("{number:06}")), document: text("{}"), lease, previous: false };
        let numbers: Vec<usize> = (0..keys).collect();
        let commands = numbers.chunks(MAX_OPERATIONS).enumerate().map(|(place, numbers)| {
            let branch = Branch { then: numbers.iter().copied().map(put).collect(), ..Branch::new() };
            Command::Branch { request: RequestId(1_000_000 + place as u128), branch }
        });
        let commands: Vec<_> = commands.collect();
        self.execute(&commands)
    }
}

fn lease() -> LeaseId {
    LeaseId::new(7).unwrap()
}

fn refused(outcome: &CommandOutcome) -> String {
    match outcome {
        CommandOutcome::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_holds_no_more_than_its_limit_and_the_next_one_goes_on() {
    let mut machine = Machine::default();
    machine.fill(10, None);
    let (mut rest, mut names) = (Some(KeyRange::all()), Vec::new());
    while let Some(range) = rest {
        let page = machine.page(&Query::new(range.clone()).limit(4));
        assert!(page.rows.len() <= 4);
        names.extend(page.rows.iter().map(|row| row.key.name().to_owned()));
        rest = page.rows.last().filter(|_| page.more).and_then(|row| range.after(&row.key));
    }
    assert_eq!(names, (0..10).map(|number| format!("{number:06}")).collect::<Vec<_>>());
    let count = machine.page(&Query::new(KeyRange::all()).limit(4).select(Select::Count));
    assert_eq!((count.count, count.rows.len(), count.more), (10, 0, false));
}

#[test]
fn a_page_of_large_documents_ends_before_it_is_too_large_for_a_frame() {
    let mut machine = Machine::default();
    let large = Document(vec![b'x'; MAX_PAGE_BYTES / 3].into());
    for name in 0..5_u8 {
        machine.one(u128::from(name), Txn::new().put(pod(&name.to_string()), large.clone()));
    }
    let page = machine.page(&Query::new(KeyRange::all()));
    assert_eq!((page.rows.len(), page.more), (2, true));
    machine.one(99, Txn::new().put(pod("0"), Document(vec![b'x'; MAX_PAGE_BYTES + 1].into())));
    let page = machine.page(&Query::new(KeyRange::all()));
    assert_eq!((page.rows.len(), page.more), (1, true), "a single row always fits");
}

#[test]
fn a_retry_of_what_found_much_is_told_that_it_was_done() {
    let mut machine = Machine::default();
    let large = Document(vec![b'x'; 5000].into());
    machine.one(1, Txn::new().put(pod("a"), large.clone()));
    let replace = Branch::new().then(Do::Put { key: pod("a"), document: large, lease: None, previous: true });
    let first = machine.branched(2, replace.clone());
    let CommandOutcome::Branched(Branched { revision, succeeded: true, results: Some(results) }) = first else {
        panic!("{first:?}")
    };
    assert!(matches!(&results[..], [OperationResult::Put(Some(row))] if row.modified == Revision(1)));
    let again = machine.branched(2, replace);
    assert_eq!(again, CommandOutcome::Branched(Branched { revision, succeeded: true, results: None }));
    assert_eq!(machine.meta().revision, Revision(2), "done once");
}

#[test]
fn a_deletion_of_too_many_keys_is_refused_and_deletes_none() {
    let mut machine = Machine::default();
    machine.fill(MAX_DELETED + 1, None);
    let before = machine.meta();
    let all = || {
        Branch::new()
            .then(Do::put(pod("new"), text("{}")))
            .then(Do::delete(KeyRange::prefix("/core/pods/default/0").unwrap()))
    };
    let outcome = machine.branched(1, all());
    assert_eq!(
        refused(&outcome),
        "a deletion of more than 10000 keys is beyond the limit of 10000: delete smaller ranges"
    );
    assert_eq!((machine.meta().revision, machine.meta().hash), (before.revision, before.hash));
    machine.branched(2, Branch::new().then(Do::delete(KeyRange::key(&pod("000000")))));
    assert!(matches!(machine.branched(3, all()), CommandOutcome::Branched(_)));
    assert_eq!(machine.page(&Query::new(KeyRange::all()).select(Select::Count)).count, 1);
}

#[test]
fn a_lease_has_no_more_keys_than_can_be_deleted_with_it() {
    let mut machine = Machine::default();
    let limit = MAX_LEASE_KEYS as usize;
    machine.execute(&[Command::Grant { request: RequestId(1), lease: lease(), ttl_seconds: 60 }]);
    machine.fill(limit, Some(lease()));
    let put = |name: &str| {
        Branch::new().then(Do::Put { key: pod(name), document: text("1"), lease: Some(lease()), previous: false })
    };
    assert_eq!(
        refused(&machine.branched(2, put("one-more"))),
        format!("lease {} has {limit} keys, which is the limit", lease())
    );
    assert!(matches!(machine.branched(3, put("000000")), CommandOutcome::Branched(_)), "it is attached already");
    let before = machine.meta().revision.0;
    let revoke = Command::Revoke { request: RequestId(4), lease: lease(), granted: None };
    assert_eq!(machine.execute(&[revoke]), [CommandOutcome::Revoked(Revision(before + 1))]);
    assert_eq!(machine.replayed(before, usize::MAX).len(), limit, "all in one revision");
    assert_eq!(machine.page(&Query::new(KeyRange::all())).rows, []);
}

#[test]
fn a_revocation_of_an_older_grant_does_not_end_the_present_one() {
    let mut machine = Machine::default();
    let grant = |request| Command::Grant { request: RequestId(request), lease: lease(), ttl_seconds: 60 };
    let revoke = |request, granted| Command::Revoke { request: RequestId(request), lease: lease(), granted };
    let outcomes = machine.execute(&[grant(1), revoke(2, Some(0)), grant(3), revoke(4, Some(0)), revoke(5, Some(2))]);
    let gone = CommandOutcome::Refused(CommandRefusal::NoSuchLease(lease()));
    let ended = CommandOutcome::Revoked(Revision(0));
    assert_eq!(outcomes, [CommandOutcome::Granted, ended.clone(), CommandOutcome::Granted, gone, ended]);
}

#[test]
fn a_store_that_was_compacted_at_its_newest_revision_is_whole() {
    let mut machine = Machine::default();
    for request in 1..=3 {
        machine.one(request, Txn::new().put(pod("a"), text("1")));
    }
    machine.one(4, Txn::new().delete(pod("a")));
    machine.execute(&[Command::Compact { request: RequestId(5), revision: Revision(4) }]);
    while let Some(batch) = look(&machine.rows, |view| sweep(view, 1)).unwrap() {
        machine.rows.write(batch).unwrap();
        assert_eq!(machine.meta().compacted, Revision(4));
        assert_eq!(machine.page(&Query::new(KeyRange::all()).at(Revision(4))).rows, [], "it does not come back");
    }
    machine.one(6, Txn::new().put(pod("a"), text("2")));
    assert_eq!(machine.names(), [("a".to_owned(), 5, 5)]);
}
