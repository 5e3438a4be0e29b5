//! Exactly once: what became of a request is kept for its retries.
//!
//! Invariant: what is kept is bounded, in number by [`ANSWERS`] and each in size by [`MAX_KEPT`], in the order of applying and never by a
//! clock; a request that is found here is not done again.

use std::{
    collections::{HashSet, VecDeque},
    io,
    ops::ControlFlow,
};

use quorate_proto::{
    branch::Branched,
    ids::RequestId,
    txn::{Command, CommandOutcome},
};

use super::{Applying, Meta};
use crate::{
    columns::{self, Column},
    engine::View,
    mutant::{self, Mutant},
    record,
};

/// So many answers are kept for retries, in the order of applying: at a thousand writes a second, those of the last minute.
pub(crate) const ANSWERS: u64 = 65_536;

/// The largest answer that is kept whole, in bytes. What a transaction read is left out of a larger one: all answers together then take
/// no more than 256 MiB, and a retry can read it again.
pub(super) const MAX_KEPT: usize = 4 << 10;

/// Whose answers are kept, in memory: nearly every request is new, and to find that out by reading costs more than to do it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// In the order of their places.
    places: VecDeque<RequestId>,
    requests: HashSet<RequestId>,
}

impl Known {
    /// Reads whose answers are kept in a view.
    pub(crate) fn load(view: &dyn View, meta: &Meta) -> io::Result<Self> {
        let mut known = Self::default();
        let (from, to) = (columns::place_key(meta.answers.start), columns::place_key(meta.answers.end));
        view.scan(Column::Dedup, &from, Some(&to), &mut |_, row| {
            known.add(record::decode(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(known)
    }

    /// Takes in what a batch did, once it was written.
    pub(crate) fn note(&mut self, answered: Vec<RequestId>, forgotten: usize) {
        for request in self.places.drain(..forgotten.min(self.places.len())) {
            self.requests.remove(&request);
        }
        answered.into_iter().for_each(|request| self.add(request));
    }

    fn add(&mut self, request: RequestId) {
        self.places.push_back(request);
        self.requests.insert(request);
    }
}

impl Applying<'_> {
    /// Does what a command says, unless it was done before; its outcome in both cases.
    pub(super) fn once(&mut self, command: &Command, index: u64) -> io::Result<CommandOutcome> {
        let request = command.request();
        if let Some(outcome) = self.answer(request)?.filter(|_| !mutant::is(Mutant::RequestForgotten)) {
            return Ok(outcome);
        }
        let outcome = self.execute(command, index)?;
        let (kept, row) = kept(&outcome)?;
        let place = self.meta.answers.end;
        self.batch.put(Column::Dedup, columns::request_key(request), row);
        self.batch.put(Column::Dedup, columns::place_key(place), record::encode(&request)?);
        self.answers.insert(request, Some(kept));
        self.answered.push(request);
        self.meta.answers.end += 1;
        while self.meta.answers.end - self.meta.answers.start > self.limit {
            let oldest = columns::place_key(self.meta.answers.start);
            if let Some(request) = self.oldest(&oldest)? {
                self.batch.delete(Column::Dedup, columns::request_key(request));
                // Nodes apply the same entries in different batches: it is forgotten from this entry on, not from the next batch on.
                self.answers.insert(request, None);
            }
            self.batch.delete(Column::Dedup, oldest);
            self.meta.answers.start += 1;
            self.forgotten += 1;
        }
        Ok(outcome)
    }

    /// Whose answer is the oldest that is kept in the view, and has not been let go of since.
    fn oldest(&self, place: &[u8]) -> io::Result<Option<RequestId>> {
        match self.known {
            Some(known) => Ok(known.places.get(self.forgotten).copied()),
            None => self.view.get(Column::Dedup, place)?.map(|request| record::decode(&request)).transpose(),
        }
    }

    fn answer(&self, request: RequestId) -> io::Result<Option<CommandOutcome>> {
        if let Some(outcome) = self.answers.get(&request) {
            return Ok(outcome.clone());
        }
        if self.known.is_some_and(|known| !known.requests.contains(&request)) {
            return Ok(None);
        }
        let row = self.view.get(Column::Dedup, &columns::request_key(request))?;
        row.map(|row| record::decode(&row)).transpose()
    }
}

/// What is kept of an outcome, and its row.
fn kept(outcome: &CommandOutcome) -> io::Result<(CommandOutcome, bytes::Bytes)> {
    let row = record::encode(outcome)?;
    match outcome {
        CommandOutcome::Branched(branched) if row.len() > MAX_KEPT => {
            let kept = CommandOutcome::Branched(Branched { results: None, ..branched.clone() });
            let row = record::encode(&kept)?;
            Ok((kept, row))
        }
        _ => Ok((outcome.clone(), row)),
    }
}
