//! What the state machine knows about itself: the rows of `sm_meta`.
//!
//! Invariant: these rows are written in the same batch as the data they describe, and read from the same view.

use std::{io, ops::Range};

use bytes::Bytes;
use quorate_proto::txn::Revision;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    columns::Column,
    engine::{Batch, View},
    record::{self, LogId, Membership, StoredMembership},
};

/// The rows of `sm_meta`, but for the generation, which belongs to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The last entry that was applied.
    pub(crate) applied: Option<LogId>,
    /// The membership as of then.
    pub(crate) membership: StoredMembership,
    /// The newest revision; 0 before the first.
    pub(crate) revision: Revision,
    /// Revisions up to this one cannot be replayed any more; 0 while all can.
    pub(crate) compacted: Revision,
    /// Over all changes: equal on all nodes at equal revisions.
    pub(crate) hash: u32,
    /// The places of the answers that are kept.
    pub(crate) answers: Range<u64>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            applied: None,
            membership: StoredMembership {
                log: None,
                membership: Membership { voters: Vec::new(), members: std::collections::BTreeSet::new() },
            },
            revision: Revision(0),
            compacted: Revision(0),
            hash: 0,
            answers: 0..0,
        }
    }
}

impl Meta {
    /// Reads the rows; those of an empty store are the default.
    pub(crate) fn load(view: &dyn View) -> io::Result<Self> {
        let default = Self::default();
        Ok(Self {
            applied: read(view, "applied")?.unwrap_or(default.applied),
            membership: read(view, "membership")?.unwrap_or(default.membership),
            revision: read(view, "rev")?.unwrap_or(default.revision),
            compacted: read(view, "compacted_rev")?.unwrap_or(default.compacted),
            hash: read(view, "hash")?.unwrap_or(default.hash),
            answers: read(view, "answers")?.unwrap_or(default.answers),
        })
    }

    /// Reads the newest revision alone.
    pub(crate) fn revision(view: &dyn View) -> io::Result<Revision> {
        Ok(read(view, "rev")?.unwrap_or_default())
    }

    /// The rows, as they are stored and as a snapshot carries them.
    pub(crate) fn rows(&self) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
        Ok(vec![
            row("applied", &self.applied)?,
            row("membership", &self.membership)?,
            row("rev", &self.revision)?,
            row("compacted_rev", &self.compacted)?,
            row("hash", &self.hash)?,
            row("answers", &self.answers)?,
        ])
    }

    /// Adds the rows that are no longer as they were before to a batch: the others are in the store already.
    pub(crate) fn store_since(&self, before: &Self, batch: &mut Batch) -> io::Result<()> {
        // Most batches change neither of these, and the membership is the largest row of all.
        let (membership, compacted) = (self.membership != before.membership, self.compacted != before.compacted);
        let changed = [
            Some(row("applied", &self.applied)?),
            membership.then(|| row("membership", &self.membership)).transpose()?,
            Some(row("rev", &self.revision)?),
            compacted.then(|| row("compacted_rev", &self.compacted)).transpose()?,
            Some(row("hash", &self.hash)?),
            Some(row("answers", &self.answers)?),
        ];
        for (key, value) in changed.into_iter().flatten() {
            batch.put(Column::StateMeta, key, value);
        }
        Ok(())
    }

    /// Adds the rows to a batch.
    pub(crate) fn store(&self, batch: &mut Batch) -> io::Result<()> {
        for (key, value) in self.rows()? {
            batch.put(Column::StateMeta, key, value);
        }
        Ok(())
    }
}

fn row<T: Serialize>(name: &str, value: &T) -> io::Result<(Vec<u8>, Bytes)> {
    Ok((name.as_bytes().to_vec(), record::encode(value)?))
}

fn read<T: DeserializeOwned>(view: &dyn View, name: &str) -> io::Result<Option<T>> {
    view.get(Column::StateMeta, name.as_bytes())?.map(|row| record::decode(&row)).transpose()
}
