//! Transactions that choose, as the state machine does them.
//!
//! First every compare on the way is made, on the state before the transaction; then the chosen operations are done on a draft, in order.
//!
//! Invariant: a transaction that is refused leaves no trace: its draft is dropped. What it answers is no larger than one page.

use std::io;

use quorate_proto::{
    branch::{Branch, Branched, Comparison, MAX_DELETED, Operation, OperationResult},
    key::Key,
    lease::{LeaseId, MAX_LEASE_KEYS},
    query::{Query, Row},
    range::KeyRange,
    txn::{CommandOutcome, CommandRefusal, Document},
};

use super::{Applying, Current, Draft, read::Budget};

/// Which way a branch goes.
struct Way<'b> {
    succeeded: bool,
    steps: Vec<Step<'b>>,
}

enum Step<'b> {
    Do(&'b Operation),
    Branch(Way<'b>),
}

/// What a transaction has come to so far.
struct Run {
    draft: Draft,
    budget: Budget,
}

/// Why a transaction goes no further.
enum Stop {
    Refused(CommandRefusal),
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<CommandRefusal> for Stop {
    fn from(refusal: CommandRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Applying<'_> {
    /// Applies a transaction that chooses.
    pub(super) fn branch(&mut self, branch: &Branch) -> io::Result<CommandOutcome> {
        let way = self.choose(branch)?;
        let mut run = Run { draft: Draft::new(self.next_revision()), budget: Budget::default() };
        match self.walk(&mut run, &way) {
            Ok(results) => {
                let revision = self.commit(run.draft)?;
                let (succeeded, results) = (way.succeeded, Some(results));
                Ok(CommandOutcome::Branched(Branched { revision, succeeded, results }))
            }
            Err(Stop::Refused(refusal)) => Ok(CommandOutcome::Refused(refusal)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn choose<'b>(&self, branch: &'b Branch) -> io::Result<Way<'b>> {
        let mut succeeded = true;
        for comparison in &branch.compares {
            if !self.holds(comparison)? {
                succeeded = false;
                break;
            }
        }
        let operations = if succeeded { &branch.then } else { &branch.otherwise };
        let step = |operation: &'b Operation| match operation {
            Operation::Branch(within) => self.choose(within).map(Step::Branch),
            operation => Ok(Step::Do(operation)),
        };
        Ok(Way { succeeded, steps: operations.iter().map(step).collect::<io::Result<_>>()? })
    }

    fn holds(&self, comparison: &Comparison) -> io::Result<bool> {
        if let Some(key) = comparison.range.single() {
            let row = self.current(&key)?.map(|row| row.row(&key));
            return Ok(comparison.holds(row.as_ref()));
        }
        let (mut all, mut any) = (true, false);
        self.each(None, &comparison.range, &mut |key, row| {
            any = true;
            all = comparison.holds(Some(&row.row(key)));
            Ok(if all { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) })
        })?;
        Ok(if any { all } else { comparison.holds(None) })
    }

    fn walk(&self, run: &mut Run, way: &Way<'_>) -> Result<Vec<OperationResult>, Stop> {
        let mut results = Vec::with_capacity(way.steps.len());
        for step in &way.steps {
            results.push(match step {
                Step::Branch(within) => {
                    OperationResult::Branch { succeeded: within.succeeded, results: self.walk(run, within)? }
                }
                Step::Do(Operation::Put { key, document, lease, previous }) => {
                    let before = self.put(run, key, document, *lease)?;
                    OperationResult::Put(before.filter(|_| *previous).map(|row| run.budget.cut(row.row(key))))
                }
                Step::Do(Operation::Delete { range, previous }) => self.delete(run, range, *previous)?,
                Step::Do(Operation::Query(query)) => OperationResult::Found(self.find(run, query)?),
                // Chosen already.
                Step::Do(Operation::Branch(_)) => continue,
            });
        }
        Ok(results)
    }

    fn put(
        &self,
        run: &mut Run,
        key: &Key,
        document: &Document,
        lease: Option<LeaseId>,
    ) -> Result<Option<Current>, Stop> {
        if let Some(lease) = lease {
            let row = self.lease(lease)?.ok_or(CommandRefusal::NoSuchLease(lease))?;
            let number = lease.0.get();
            let added = run.draft.after.values().flatten().filter(|row| row.lease == number).count();
            let attached = self.current(key)?.is_some_and(|row| row.lease == number);
            if !attached && row.keys as usize + added >= MAX_LEASE_KEYS as usize {
                return Err(CommandRefusal::LeaseFull(lease).into());
            }
        }
        Ok(run.draft.put(self, key, document, lease)?)
    }

    fn delete(&self, run: &mut Run, range: &KeyRange, previous: bool) -> Result<OperationResult, Stop> {
        let mut found: Vec<(Key, Row)> = Vec::new();
        self.each(Some(&run.draft), range, &mut |key, row| {
            found.push((key.clone(), row.row(key)));
            let full = found.len() > MAX_DELETED;
            Ok(if full { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) })
        })?;
        if found.len() > MAX_DELETED {
            return Err(CommandRefusal::TooManyDeleted.into());
        }
        let (count, mut shown, mut room) = (found.len() as u64, Vec::new(), previous);
        for (key, row) in found {
            run.draft.delete(self, &key)?;
            room = room && run.budget.take(row.weight());
            if room {
                shown.push(row);
            }
        }
        Ok(OperationResult::Deleted { count, previous: shown })
    }

    fn find(&self, run: &mut Run, query: &Query) -> Result<quorate_proto::query::Page, Stop> {
        if let Some(refusal) = self.refuses(query) {
            return Err(refusal.into());
        }
        Ok(self.page(Some(&run.draft), query, &mut run.budget)?)
    }
}
