//! What of the state is in memory, for whoever applies entries: most transactions are about keys that were written lately, and to find
//! their rows by reading costs as much as all else a node does for a write.
//!
//! Invariant: what is here is what the state has. It is taken in only when it was written, and with it goes all that is here when another
//! state is installed.

use std::{fmt, io};

use quick_cache::{Weighter, unsync};
use quorate_proto::key::Key;

use super::{Applied, Current, Known, Meta};
use crate::engine::View;

/// Rows are kept until they weigh so much together, in bytes.
const WEIGHT: u64 = 32 << 20;

/// What a row weighs beside its key and its document, in bytes, about.
const ROW: u64 = 160;

/// The guess of how many rows there will be, which decides on nothing but what is remembered of those that were let go of.
const ROWS: usize = 4096;

/// What of the state is in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Whose answers are kept: of all of them.
    pub(super) answers: Known,
    rows: Rows,
}

/// Rows of `kv_cur`, and what is known not to be there.
struct Rows(unsync::Cache<Key, Option<Current>, Bytes>);

/// Weighs a row.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Weighter<Key, Option<Current>> for Bytes {
    fn weight(&self, key: &Key, row: &Option<Current>) -> u64 {
        ROW + key.as_str().len() as u64 + row.as_ref().map_or(0, |row| row.value.len() as u64)
    }
}

impl Cache {
    /// Reads what has to be known of a state before entries are applied to it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn load(view: &dyn View, meta: &Meta) -> io::Result<Self> {
        Ok(Self { answers: Known::load(view, meta)?, rows: Rows(unsync::Cache::with_weighter(ROWS, WEIGHT, Bytes)) })
    }

    /// What is known of a key's present.
    pub(super) fn row(&self, key: &Key) -> Option<&Option<Current>> {
        self.rows.0.get(key)
    }

    /// Takes in what applying entries came to, once it was written.
    pub(crate) fn note(&mut self, applied: &mut Applied) {
        self.answers.note(std::mem::take(&mut applied.answered));
        for (key, row) in std::mem::take(&mut applied.rows) {
            self.rows.0.insert(key, row);
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rows").field("rows", &self.0.len()).field("bytes", &self.0.weight()).finish()
    }
}
