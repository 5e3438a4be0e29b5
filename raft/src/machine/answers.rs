//! Exactly once: what became of a request is kept for its retries.
//!
//! Answers have places, counted in the order of applying. Those of entries that were applied together are in one row of `dedup`: nodes
//! cut rows differently, and forget the same answers at the same entries all the same.
//!
//! Invariant: what is kept is bounded, in number by [`ANSWERS`] and each in size by [`MAX_KEPT`], in the order of applying and never by a
//! clock; a request that is found here is not done again.

use std::{
    collections::{HashMap, VecDeque},
    io,
    ops::{ControlFlow, Range},
};

use quorate_proto::{
    branch::Branched,
    ids::RequestId,
    txn::{Command, CommandOutcome},
};

use super::{Applying, Meta};
use crate::{
    columns::{self, Column},
    engine::{Batch, View},
    mutant::{self, Mutant},
    record,
};

/// So many answers are kept for retries, in the order of applying: at a thousand writes a second, those of the last minute.
pub(crate) const ANSWERS: u64 = 65_536;

/// The largest answer that is kept whole, in bytes. What a transaction read is left out of a larger one: all answers together then take
/// no more than 256 MiB, and a retry can read it again.
pub(super) const MAX_KEPT: usize = 4 << 10;

/// A row has at most so many answers: it is read whole for one of them.
const TOGETHER: usize = 64;

/// Whose answers are kept, and where, in memory: nearly every request is new, and to find that out by reading costs more than to do it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The places of the answers.
    places: Range<u64>,
    /// Whose they are.
    order: VecDeque<RequestId>,
    requests: HashMap<RequestId, u64>,
    /// Where rows begin: each reaches to the next one.
    rows: VecDeque<u64>,
}

/// What applying some entries does to the answers that are kept.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Those that come in, in order.
    requests: Vec<RequestId>,
    /// Where their rows begin.
    rows: Vec<u64>,
    /// How many are let go of, from the oldest on.
    forgotten: usize,
}

impl Known {
    /// Reads whose answers are kept in a view.
    ///
    /// # Errors
    /// If they cannot be read, or some are missing.
    pub(crate) fn load(view: &dyn View, meta: &Meta) -> io::Result<Self> {
        let kept = meta.answers.clone();
        let mut known = Self { places: kept.start..kept.start, ..Self::default() };
        // The first format had a row for each place, and one for each answer.
        let (from, to) = (columns::place_key(kept.start), columns::place_key(kept.end));
        view.scan(Column::Dedup, &from, Some(&to), &mut |_, row| {
            known.add(record::decode(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let (from, to) = (columns::answers_key(0), columns::answers_key(kept.end));
        view.scan(Column::Dedup, &from, Some(&to), &mut |key, row| {
            let first = columns::answers_of(key).ok_or_else(|| record::damaged("a key of dedup".to_owned()))?;
            let row: Vec<(RequestId, CommandOutcome)> = record::decode(row)?;
            known.rows.push_back(first);
            for (place, (request, _)) in (first..).zip(row) {
                if place >= kept.start {
                    known.add(request);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if known.places != kept {
            return Err(record::damaged(format!("answers between {} and {} are missing", kept.start, kept.end)));
        }
        Ok(known)
    }

    /// Takes in what a batch did, once it was written.
    pub(crate) fn note(&mut self, answered: Answered) {
        self.rows.extend(answered.rows);
        answered.requests.into_iter().for_each(|request| self.add(request));
        for request in self.order.drain(..answered.forgotten.min(self.order.len())) {
            // It may have been forgotten, done again, and have a newer place.
            if self.requests.get(&request) == Some(&self.places.start) {
                self.requests.remove(&request);
            }
            self.places.start += 1;
        }
        while self.rows.get(1).is_some_and(|next| *next <= self.places.start) {
            self.rows.pop_front();
        }
    }

    fn add(&mut self, request: RequestId) {
        self.order.push_back(request);
        self.requests.insert(request, self.places.end);
        self.places.end += 1;
    }

    /// The answer to a request, if it is kept in the view.
    fn answer(&self, view: &dyn View, request: RequestId) -> io::Result<Option<CommandOutcome>> {
        let Some(place) = self.requests.get(&request).copied() else { return Ok(None) };
        let missing = || record::damaged(format!("the answer at place {place} is missing"));
        let after = self.rows.partition_point(|first| *first <= place);
        let Some(first) = after.checked_sub(1).and_then(|row| self.rows.get(row)).copied() else {
            let row = view.get(Column::Dedup, &columns::request_key(request))?.ok_or_else(missing)?;
            return record::decode(&row).map(Some);
        };
        let row = view.get(Column::Dedup, &columns::answers_key(first))?.ok_or_else(missing)?;
        let row: Vec<(RequestId, CommandOutcome)> = record::decode(&row)?;
        let found = usize::try_from(place - first).ok().and_then(|at| row.into_iter().nth(at));
        let (_, outcome) = found.filter(|(of, _)| *of == request).ok_or_else(missing)?;
        Ok(Some(outcome))
    }
}

impl<'a> Applying<'a> {
    /// Does what a command says, unless it was done before; its outcome in both cases.
    pub(super) fn once(&mut self, command: &Command, index: u64) -> io::Result<CommandOutcome> {
        let request = command.request();
        if let Some(outcome) = self.answer(request)?.filter(|_| !mutant::is(Mutant::RequestForgotten)) {
            return Ok(outcome);
        }
        let outcome = self.execute(command, index)?;
        let kept = kept(&outcome)?;
        self.answers.insert(request, Some(kept.clone()));
        self.answered.push((request, kept));
        self.meta.answers.end += 1;
        while self.meta.answers.end - self.meta.answers.start > self.limit {
            if let Some(request) = self.oldest() {
                // Nodes apply the same entries in different batches: it is forgotten from this entry on, not from the next batch on.
                self.answers.insert(request, None);
            }
            self.meta.answers.start += 1;
        }
        Ok(outcome)
    }

    /// Whose answer is the oldest that is kept.
    fn oldest(&self) -> Option<RequestId> {
        let forgotten = usize::try_from(self.meta.answers.start - self.stored.answers.start).ok()?;
        let order = &self.cache?.answers.order;
        let new = || self.answered.get(forgotten - order.len()).map(|(request, _)| *request);
        order.get(forgotten).copied().or_else(new)
    }

    fn answer(&self, request: RequestId) -> io::Result<Option<CommandOutcome>> {
        match self.answers.get(&request) {
            Some(outcome) => Ok(outcome.clone()),
            None => self.known()?.answer(self.view, request),
        }
    }

    fn known(&self) -> io::Result<&'a Known> {
        let known = self.cache.map(|cache| &cache.answers).filter(|known| known.places == self.stored.answers);
        known.ok_or_else(|| io::Error::other("what is in memory is of another state"))
    }

    /// Adds the rows of the answers that came in to the batch, and deletes those of which no answer is kept any more.
    pub(super) fn store_answers(&mut self) -> io::Result<Answered> {
        if self.answered.is_empty() {
            return Ok(Answered::default());
        }
        let (known, kept) = (self.known()?, &self.meta.answers);
        let mut rows = Vec::new();
        for (first, row) in (self.stored.answers.end..).step_by(TOGETHER).zip(self.answered.chunks(TOGETHER)) {
            if first + row.len() as u64 > kept.start {
                self.batch.put(Column::Dedup, columns::answers_key(first), record::encode(&row)?);
                rows.push(first);
            }
        }
        let ends = known.rows.iter().skip(1).chain(&rows).copied();
        for (first, end) in known.rows.iter().zip(ends) {
            if end > kept.start {
                break;
            }
            self.batch.delete(Column::Dedup, columns::answers_key(*first));
        }
        let first = known.rows.front().copied().unwrap_or(self.stored.answers.end);
        delete_singly(&mut self.batch, known, kept.start.min(first));
        let requests = std::mem::take(&mut self.answered).into_iter().map(|(request, _)| request).collect();
        let forgotten = usize::try_from(kept.start - self.stored.answers.start).map_err(io::Error::other)?;
        Ok(Answered { requests, rows, forgotten })
    }
}

/// Deletes the rows that the first format had for the answers before a place.
fn delete_singly(batch: &mut Batch, known: &Known, before: u64) {
    for (place, request) in (known.places.start..before).zip(&known.order) {
        batch.delete(Column::Dedup, columns::request_key(*request));
        batch.delete(Column::Dedup, columns::place_key(place));
    }
}

/// What is kept of an outcome.
fn kept(outcome: &CommandOutcome) -> io::Result<CommandOutcome> {
    match outcome {
        CommandOutcome::Branched(branched) if record::encode(outcome)?.len() > MAX_KEPT => {
            Ok(CommandOutcome::Branched(Branched { results: None, ..branched.clone() }))
        }
        _ => Ok(outcome.clone()),
    }
}
