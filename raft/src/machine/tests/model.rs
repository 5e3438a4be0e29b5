//! etcd's semantics, as plainly as they can be written: every state of the store, kept whole.
//!
//! Invariant: nothing here is shared with the state machine but the words.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::{
    branch::{Branch, Branched, Operation, OperationResult},
    ids::RequestId,
    key::Key,
    lease::LeaseId,
    query::{Page, Query, Row, Select},
    txn::{Command, CommandOutcome, CommandRefusal, Document, Revision, Txn, Write},
    watch::{Event, Update},
    wire::{self, cap},
};

use crate::machine::answers::MAX_KEPT;

pub(super) type State = BTreeMap<Key, Row>;

/// Every state there was.
pub(super) struct Model {
    /// By revision.
    pub(super) states: Vec<State>,
    pub(super) updates: Vec<Update>,
    pub(super) compacted: u64,
    pub(super) leases: BTreeSet<LeaseId>,
    answers: BTreeMap<RequestId, CommandOutcome>,
}

/// A transaction on its way.
struct Run<'a> {
    model: &'a Model,
    now: State,
    touched: Vec<Key>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            states: vec![State::new()],
            updates: Vec::new(),
            compacted: 0,
            leases: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    pub(super) fn present(&self) -> &State {
        self.states.last().unwrap()
    }

    pub(super) fn apply(&mut self, command: &Command) -> CommandOutcome {
        if let Some(answer) = self.answers.get(&command.request()) {
            return answer.clone();
        }
        let outcome = match command {
            Command::Apply { txn, .. } => self.txn(txn),
            Command::Branch { branch, .. } => self.branch(branch),
            Command::Compact { revision, .. } if revision.0 <= self.compacted => {
                CommandOutcome::Refused(CommandRefusal::Compacted { oldest: Revision(self.compacted) })
            }
            Command::Compact { revision, .. } if revision.0 > self.revision() => {
                let at = Revision(self.revision());
                CommandOutcome::Refused(CommandRefusal::FutureRevision { asked: *revision, at })
            }
            Command::Compact { revision, .. } => {
                self.compacted = revision.0;
                CommandOutcome::Compacted(*revision)
            }
            Command::Grant { lease, .. } if !self.leases.insert(*lease) => {
                CommandOutcome::Refused(CommandRefusal::LeaseExists(*lease))
            }
            Command::Grant { .. } => CommandOutcome::Granted,
            Command::Revoke { lease, .. } if !self.leases.remove(lease) => {
                CommandOutcome::Refused(CommandRefusal::NoSuchLease(*lease))
            }
            Command::Revoke { lease, .. } => {
                let mut run = self.run();
                let keys = run.now.values().filter(|row| row.lease == Some(*lease)).map(|row| row.key.clone());
                for key in keys.collect::<Vec<_>>() {
                    run.delete(&key);
                }
                let (now, touched) = (run.now, run.touched);
                CommandOutcome::Revoked(self.commit(now, touched))
            }
        };
        let kept = match &outcome {
            CommandOutcome::Branched(branched) if wire::encode(&outcome, cap::APPEND).unwrap().len() > MAX_KEPT => {
                CommandOutcome::Branched(Branched { results: None, ..branched.clone() })
            }
            outcome => outcome.clone(),
        };
        self.answers.insert(command.request(), kept);
        outcome
    }

    fn run(&self) -> Run<'_> {
        Run { model: self, now: self.present().clone(), touched: Vec::new() }
    }

    fn txn(&mut self, txn: &Txn) -> CommandOutcome {
        for compare in &txn.compares {
            if self.present().get(&compare.key).map(|row| row.modified) != compare.seen {
                return CommandOutcome::Stale(compare.key.clone());
            }
        }
        let mut run = self.run();
        for write in &txn.writes {
            match write {
                Write::Put(key, document) => drop(run.put(key, document, None)),
                Write::Delete(key) => drop(run.delete(key)),
            }
        }
        let (now, touched) = (run.now, run.touched);
        CommandOutcome::Applied(self.commit(now, touched))
    }

    fn branch(&mut self, branch: &Branch) -> CommandOutcome {
        let mut run = self.run();
        match run.branch(branch) {
            Ok((succeeded, results)) => {
                let (now, touched) = (run.now, run.touched);
                let revision = self.commit(now, touched);
                CommandOutcome::Branched(Branched { revision, succeeded, results: Some(results) })
            }
            Err(refusal) => CommandOutcome::Refused(refusal),
        }
    }

    fn commit(&mut self, now: State, touched: Vec<Key>) -> Revision {
        let before = self.present();
        let revision = Revision(self.revision() + 1);
        let event = |key: Key| Event { now: now.get(&key).cloned(), before: before.get(&key).cloned(), key };
        let events = touched.into_iter().map(event).filter(|event| event.now.is_some() || event.before.is_some());
        let events: Vec<_> = events.collect();
        if events.is_empty() {
            return Revision(self.revision());
        }
        self.updates.push(Update { revision, events });
        self.states.push(now);
        revision
    }

    /// What a query answers, on a present that may be drafted.
    pub(super) fn query(&self, now: &State, query: &Query) -> Result<Page, CommandRefusal> {
        let (oldest, at) = (Revision(self.compacted), Revision(self.revision()));
        let state = match query.at {
            Some(asked) if asked > at => return Err(CommandRefusal::FutureRevision { asked, at }),
            Some(asked) if asked < oldest => return Err(CommandRefusal::Compacted { oldest }),
            Some(asked) => &self.states[usize::try_from(asked.0).unwrap()],
            None => now,
        };
        let mut rows: Vec<Row> = state.values().filter(|row| query.range.contains(&row.key)).cloned().collect();
        let count = rows.len();
        rows.truncate(query.rows() as usize);
        let page = Page { revision: at, more: rows.len() < count, count: rows.len() as u64, rows };
        Ok(match query.select {
            Select::Rows => page,
            Select::Keys => {
                Page { rows: page.rows.into_iter().map(|row| Row { document: None, ..row }).collect(), ..page }
            }
            Select::Count => Page { rows: Vec::new(), more: false, count: count as u64, ..page },
        })
    }
}

impl Run<'_> {
    fn touch(&mut self, key: &Key) {
        if !self.touched.contains(key) {
            self.touched.push(key.clone());
        }
    }

    fn put(&mut self, key: &Key, document: &Document, lease: Option<LeaseId>) -> Option<Row> {
        self.touch(key);
        let revision = Revision(self.model.revision() + 1);
        let before = self.now.get(key).cloned();
        let row = Row {
            key: key.clone(),
            created: before.as_ref().map_or(revision, |row| row.created),
            modified: revision,
            version: before.as_ref().map_or(1, |row| row.version + 1),
            lease,
            document: Some(document.clone()),
        };
        self.now.insert(key.clone(), row);
        before
    }

    fn delete(&mut self, key: &Key) -> Option<Row> {
        self.touch(key);
        self.now.remove(key)
    }

    fn branch(&mut self, branch: &Branch) -> Result<(bool, Vec<OperationResult>), CommandRefusal> {
        let before = self.model.present();
        let succeeded = branch.compares.iter().all(|compare| {
            let rows: Vec<_> = before.values().filter(|row| compare.range.contains(&row.key)).collect();
            if rows.is_empty() { compare.holds(None) } else { rows.into_iter().all(|row| compare.holds(Some(row))) }
        });
        let mut results = Vec::new();
        for operation in if succeeded { &branch.then } else { &branch.otherwise } {
            results.push(match operation {
                Operation::Put { key, document, lease, previous } => {
                    if let Some(lease) = lease
                        && !self.model.leases.contains(lease)
                    {
                        return Err(CommandRefusal::NoSuchLease(*lease));
                    }
                    OperationResult::Put(self.put(key, document, *lease).filter(|_| *previous))
                }
                Operation::Delete { range, previous } => {
                    let keys: Vec<_> = self.now.keys().filter(|key| range.contains(key)).cloned().collect();
                    let rows: Vec<_> = keys.iter().filter_map(|key| self.delete(key)).collect();
                    let count = rows.len() as u64;
                    OperationResult::Deleted { count, previous: if *previous { rows } else { Vec::new() } }
                }
                Operation::Query(query) => OperationResult::Found(self.model.query(&self.now, query)?),
                Operation::Branch(branch) => {
                    let (succeeded, results) = self.branch(branch)?;
                    OperationResult::Branch { succeeded, results }
                }
            });
        }
        Ok((succeeded, results))
    }
}
