//! Exactly once: what became of a request is kept for its retries.
//!
//! Invariant: what is kept is bounded, in number by [`ANSWERS`] and each in size by [`MAX_KEPT`], in the order of applying and never by a
//! clock; a request that is found here is not done again.

use std::io;

use quorate_proto::{
    branch::Branched,
    ids::RequestId,
    txn::{Command, CommandOutcome},
};

use super::Applying;
use crate::{
    columns::{self, Column},
    mutant::{self, Mutant},
    record,
};

/// So many answers are kept for retries, in the order of applying: at a thousand writes a second, those of the last minute.
pub(crate) const ANSWERS: u64 = 65_536;

/// The largest answer that is kept whole, in bytes. What a transaction read is left out of a larger one: all answers together then take
/// no more than 256 MiB, and a retry can read it again.
pub(super) const MAX_KEPT: usize = 4 << 10;

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
        self.answers.insert(request, kept);
        self.meta.answers.end += 1;
        while self.meta.answers.end - self.meta.answers.start > self.limit {
            let oldest = columns::place_key(self.meta.answers.start);
            if let Some(request) = self.view.get(Column::Dedup, &oldest)? {
                let request = record::decode(&request)?;
                self.batch.delete(Column::Dedup, columns::request_key(request));
                self.answers.remove(&request);
            }
            self.batch.delete(Column::Dedup, oldest);
            self.meta.answers.start += 1;
        }
        Ok(outcome)
    }

    fn answer(&self, request: RequestId) -> io::Result<Option<CommandOutcome>> {
        if let Some(outcome) = self.answers.get(&request) {
            return Ok(Some(outcome.clone()));
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
