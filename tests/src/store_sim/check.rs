//! The revision order: whether what clients were told can be, given what the store decided, in the order in which it decided it.
//!
//! The ledger, all changes by revision, is replayed through a plain model of the store. Every answer must fit a state of it, and the
//! states must follow each other as the clients' times do. That takes no search, so millions of operations can be checked.
//!
//! Invariant: pure: the same history and the same ledger give the same verdict, and a correct store is never accused.

use std::{collections::BTreeMap, sync::Arc};

use quorate_proto::{
    ids::RequestId,
    key::Key,
    txn::{Change, Document, Outcome, Revision, Txn, Write},
};

use self::model::Model;
use super::history::{Freshness, Operation, Watched, What, Written};

mod model;
#[cfg(test)]
mod tests;

/// All changes, by revision, from the first on.
pub type Ledger = BTreeMap<Revision, Arc<[Change]>>;

/// What is wrong with what clients were told, by what they had asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lost, done twice, done although it was said not to be, or in an order that cannot be.
    pub writes: Vec<String>,
    /// Older than what was known, or never so.
    pub reads: Vec<String>,
}

/// What is wrong with what clients were told.
#[must_use]
pub fn revisions(operations: &[Operation], ledger: &Ledger) -> Vec<String> {
    let mut wrong = gaps(ledger);
    let verdict = told(operations, ledger);
    wrong.extend(verdict.writes);
    wrong.extend(verdict.reads);
    wrong
}

/// The same for a ledger of some keys only, and of clients who asked for those: the revisions in between are other keys'.
#[must_use]
pub fn told(operations: &[Operation], ledger: &Ledger) -> Verdict {
    let mut verdict = Verdict::default();
    let model = Model::replay(ledger, &mut verdict.writes);
    let writes = Writes::new(operations, ledger, &model, &mut verdict.writes);
    let window = Window::new(operations, &writes);
    writes.check(&model, &window, &mut verdict.writes);
    reads(operations, &model, &window, &mut verdict.reads);
    verdict
}

/// The revisions that are missing.
fn gaps(ledger: &Ledger) -> Vec<String> {
    let before = std::iter::once(Revision(0)).chain(ledger.keys().copied());
    let pairs = before.zip(ledger.keys());
    pairs
        .filter(|(last, next)| next.0 != last.0 + 1)
        .map(|(last, next)| format!("revision {next} follows {last}"))
        .collect()
}

/// What is wrong with what watches delivered: everything after where they began, whole, in order, once, up to `end`.
#[must_use]
pub fn watches(watches: &[Watched], ledger: &Ledger, end: Revision) -> Vec<String> {
    let mut wrong = Vec::new();
    for (watcher, watched) in watches.iter().enumerate() {
        let after = |revision: Revision| ledger.range(Revision(revision.0 + 1)..).take_while(|(due, _)| **due <= end);
        let mut expected = after(watched.from);
        let mut last = watched.from;
        for changes in &watched.delivered {
            let revision = changes.first().map_or(Revision(0), |change| change.revision);
            match expected.next() {
                Some((_, right)) if right == changes => {}
                _ if revision <= last => wrong.push(format!("watch {watcher}: revision {revision} came after {last}")),
                Some((due, _)) if *due != revision => {
                    wrong.push(format!("watch {watcher}: revision {revision} came when {due} was due"));
                    expected = after(revision);
                }
                _ => wrong.push(format!("watch {watcher}: revision {revision} is not what was decided: {changes:?}")),
            }
            last = last.max(revision);
        }
        if let Some((due, _)) = expected.next() {
            wrong.push(format!("watch {watcher}: revision {due} never came"));
        }
    }
    wrong
}

/// What may have happened between which operations, from their times alone.
struct Window {
    /// The newest revision that somebody knew of, by the time at which it was told.
    known: Vec<(u64, Revision)>,
    /// The oldest revision that was still to come, by the time at which it was asked for.
    coming: Vec<(u64, Revision)>,
}

impl Window {
    fn new(operations: &[Operation], writes: &Writes<'_>) -> Self {
        let (mut known, mut coming) = (Vec::new(), Vec::new());
        for operation in operations {
            let seen = match &operation.what {
                What::Write { answer: Written::Decided(Outcome::Applied(revision)), .. } => Some(*revision),
                What::Read { page: Some(page), freshness: Freshness::Linearizable, .. } => Some(page.revision),
                _ => None,
            };
            known.extend(operation.returned.zip(seen));
        }
        coming.extend(writes.by_request.values().filter_map(|write| Some((write.called, write.decided?))));
        known.sort_unstable();
        coming.sort_unstable();
        for at in 1..known.len() {
            known[at].1 = known[at].1.max(known[at - 1].1);
        }
        for at in (1..coming.len()).rev() {
            coming[at - 1].1 = coming[at - 1].1.min(coming[at].1);
        }
        Self { known, coming }
    }

    /// The newest revision that was known before a time.
    fn floor(&self, called: u64) -> Revision {
        let before = self.known.partition_point(|(returned, _)| *returned < called);
        before.checked_sub(1).map_or(Revision(0), |at| self.known[at].1)
    }

    /// The newest revision that can have been there at a time: older than all that were asked for later.
    fn ceiling(&self, returned: u64) -> Revision {
        let after = self.coming.partition_point(|(called, _)| *called <= returned);
        self.coming.get(after).map_or(Revision(u64::MAX), |(_, revision)| Revision(revision.0 - 1))
    }
}

/// A request to write, over all its tries.
struct Asked<'a> {
    txn: &'a Txn,
    /// When it was first asked for.
    called: u64,
    /// When its outcome was first told.
    told: Option<u64>,
    answers: Vec<&'a Written>,
    /// The revision it became.
    decided: Option<Revision>,
}

struct Writes<'a> {
    by_request: BTreeMap<RequestId, Asked<'a>>,
}

/// When somebody was first told of each revision: whoever asked for it had asked by then.
fn told_of(operations: &[Operation]) -> BTreeMap<Revision, u64> {
    let mut first: BTreeMap<Revision, u64> = BTreeMap::new();
    for operation in operations {
        let seen = match &operation.what {
            What::Write { answer: Written::Decided(Outcome::Applied(revision)), .. } => Some(*revision),
            What::Read { page: Some(page), .. } => Some(page.revision),
            _ => None,
        };
        if let Some((revision, returned)) = seen.zip(operation.returned) {
            let at = first.entry(revision).or_insert(returned);
            *at = returned.min(*at);
        }
    }
    first
}

impl<'a> Writes<'a> {
    /// Finds out which revision each request became. Documents are unique; a deletion nobody was told of is known by what it deleted.
    fn new(operations: &'a [Operation], ledger: &Ledger, model: &Model, wrong: &mut Vec<String>) -> Self {
        let mut by_request: BTreeMap<RequestId, Asked<'a>> = BTreeMap::new();
        for operation in operations {
            let What::Write { request, txn, answer } = &operation.what else { continue };
            let asked = by_request.entry(*request).or_insert_with(|| Asked {
                txn,
                called: operation.called,
                told: None,
                answers: Vec::new(),
                decided: None,
            });
            if let (Written::Decided(_), Some(returned)) = (answer, operation.returned) {
                asked.told = Some(asked.told.map_or(returned, |told| told.min(returned)));
            }
            asked.answers.push(answer);
        }
        let mut authors: BTreeMap<&[u8], RequestId> = BTreeMap::new();
        for (request, asked) in &by_request {
            authors.extend(documents(asked.txn).map(|document| (&document.0[..], *request)));
        }
        let mut nobody = Vec::new();
        for (revision, changes) in ledger {
            let document = changes.iter().find_map(|change| Some(&change.now.as_ref()?.document.0[..]));
            match document.map(|document| authors.get(document)) {
                Some(Some(request)) => {
                    if let Some(asked) = by_request.get_mut(request)
                        && let Some(first) = asked.decided.replace(*revision)
                    {
                        wrong.push(format!("request {request:?} was done twice: at revisions {first} and {revision}"));
                    }
                }
                Some(None) => wrong.push(format!("revision {revision} has a document that nobody wrote")),
                None => nobody.push((*revision, changes)),
            }
        }
        let told_of = told_of(operations);
        for (revision, changes) in nobody {
            let there = told_of.range(revision..).map(|(_, returned)| *returned).min().unwrap_or(u64::MAX);
            let told = |asked: &Asked<'_>| {
                asked.answers.iter().any(|answer| **answer == Written::Decided(Outcome::Applied(revision)))
            };
            let refused = |asked: &Asked<'_>| asked.answers.iter().all(|answer| **answer == Written::NotDone);
            let fits = |asked: &&mut Asked<'_>| {
                asked.decided.is_none()
                    && asked.called <= there
                    && documents(asked.txn).next().is_none()
                    && (told(asked) || asked.told.is_none())
                    && model.stale(asked.txn, before(revision)).is_none()
                    && model.effect(asked.txn, before(revision)).as_deref() == Some(&keys(changes)[..])
            };
            // Who was told of this revision goes before those who were told nothing, and those before who was told that nothing was done.
            // Of several that deleted the same key, one did and the others found nothing left: who had compared it must have been the
            // one, else the first may as well have been.
            let mut candidates: Vec<_> = by_request.values_mut().filter(fits).collect();
            candidates.sort_by_key(|asked| (!told(asked), refused(asked), asked.txn.compares.is_empty(), asked.called));
            match candidates.into_iter().next() {
                Some(asked) => asked.decided = Some(revision),
                None => wrong.push(format!("revision {revision} was asked for by nobody: {changes:?}")),
            }
        }
        Self { by_request }
    }

    fn check(&self, model: &Model, window: &Window, wrong: &mut Vec<String>) {
        for (request, asked) in &self.by_request {
            let mut say = |what: String| wrong.push(format!("request {request:?} of tick {}: {what}", asked.called));
            let floor = window.floor(asked.called);
            let ceiling = asked.told.map_or(Revision(u64::MAX), |told| window.ceiling(told)).min(model.last());
            if let Some(revision) = asked.decided {
                if let Some(key) = model.stale(asked.txn, before(revision)) {
                    say(format!("revision {revision} was written although {key} was not as it had been seen"));
                }
                if model.effect(asked.txn, before(revision)) != Some(model.written(revision)) {
                    say(format!("revision {revision} is not what was asked for"));
                }
                if revision <= floor || revision > ceiling {
                    say(format!("it became revision {revision}, and must be after {floor} and not after {ceiling}"));
                }
            }
            for answer in &asked.answers {
                match (answer, asked.decided) {
                    (Written::Decided(Outcome::Applied(told)), Some(revision)) if *told != revision => {
                        say(format!("revision {told} was acknowledged, and {revision} is it"));
                    }
                    (Written::Decided(Outcome::Applied(told)), None) => {
                        let nothing = model.effect(asked.txn, *told).is_some_and(|effect| effect.is_empty());
                        if !nothing || *told < floor || *told > ceiling || model.stale(asked.txn, *told).is_some() {
                            say(format!("it was acknowledged at revision {told} and is not there"));
                        }
                    }
                    (Written::Decided(Outcome::Stale(_)), Some(revision)) => {
                        say(format!("it was refused as stale, and is revision {revision}"));
                    }
                    (Written::Decided(Outcome::Stale(key)), None) => {
                        let so = (floor.0..=ceiling.0).any(|at| model.stale(asked.txn, Revision(at)) == Some(key));
                        if !so {
                            say(format!("{key} was as it had been seen from revision {floor} to {ceiling}"));
                        }
                    }
                    (Written::NotDone, Some(revision))
                        if asked.answers.iter().all(|answer| **answer == Written::NotDone) =>
                    {
                        say(format!("it was said not to be done, and is revision {revision}"));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn reads(operations: &[Operation], model: &Model, window: &Window, wrong: &mut Vec<String>) {
    let mut shown = BTreeMap::new();
    for operation in operations {
        let What::Read { freshness, prefix, page: Some(page) } = &operation.what else { continue };
        let Some(returned) = operation.returned else { continue };
        let mut say = |what: String| {
            wrong.push(format!("a read on {} at tick {}: {what}", operation.node, operation.called));
        };
        let at = page.revision;
        if at > model.last() || model.page(prefix, at) != page.rows {
            say(format!("what it shows of revision {at} was never so"));
        }
        let floor = match freshness {
            Freshness::Linearizable => window.floor(operation.called),
            Freshness::AtLeast(revision) => *revision,
            Freshness::Stale => Revision(0),
        };
        if at < floor {
            say(format!("it shows revision {at} and had to show {floor}"));
        }
        if at > window.ceiling(returned) {
            say(format!("it shows revision {at}, which was asked for only later"));
        }
        let shown: &mut Vec<_> = shown.entry((operation.node, operation.incarnation)).or_default();
        shown.push((operation.called, returned, at));
    }
    for ((node, _), mut reads) in shown {
        reads.sort_by_key(|(_, returned, _)| *returned);
        let newest: Vec<Revision> = reads
            .iter()
            .scan(Revision(0), |newest, (_, _, at)| {
                *newest = (*newest).max(*at);
                Some(*newest)
            })
            .collect();
        for (called, _, at) in &reads {
            let before = reads.partition_point(|(_, returned, _)| returned < called);
            if let Some(newest) = before.checked_sub(1).map(|index| newest[index])
                && *at < newest
            {
                wrong.push(format!("{node} showed revision {newest}, and {at} at tick {called}"));
            }
        }
    }
}

fn documents(txn: &Txn) -> impl Iterator<Item = &Document> {
    txn.writes.iter().filter_map(|write| match write {
        Write::Put(_, document) => Some(document),
        Write::Delete(_) => None,
    })
}

/// Which keys were written, and what they hold then.
fn keys(changes: &[Change]) -> Vec<(Key, Option<Document>)> {
    changes.iter().map(|change| (change.key.clone(), change.now.as_ref().map(|now| now.document.clone()))).collect()
}

const fn before(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(1))
}
