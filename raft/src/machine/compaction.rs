//! Compaction: sweeping away what nobody may read any more.
//!
//! Every node sweeps for itself, in small steps, whenever `compacted_rev` is ahead of what `kv_rev` still holds: so it goes on after a
//! restart, or after a Raft snapshot was installed, without remembering anything.
//!
//! Invariant: operations are swept in their order. Once one is, its key has no older version, and none at all if it was a deletion: what
//! is newer hides what was removed, whether or not later steps are ever taken. A step done twice does no more than done once.

use std::{io, ops::ControlFlow};

use quorate_proto::txn::Revision;

use super::{Meta, Operation};
use crate::{
    columns::{self, Column},
    engine::{Batch, View},
    record,
};

/// What the next step of a sweep removes, of at most so many operations; `None` if there is nothing to sweep.
pub(crate) fn sweep(view: &dyn View, operations: usize) -> io::Result<Option<Batch>> {
    let compacted = Meta::load(view)?.compacted;
    let end = columns::revision_key(Revision(compacted.0 + 1), 0);
    let mut batch = Batch::default();
    let mut last = None;
    let mut swept = 0;
    view.scan(Column::Revisions, &[], Some(&end), &mut |key, row| {
        let (revision, _) = columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        let operation: Operation = record::decode(row)?;
        let name = operation.key.as_str();
        if let Some(older) = version_before(view, name, revision)? {
            batch.delete(Column::History, older);
        }
        if operation.deleted {
            batch.delete(Column::History, columns::history_key(name, revision));
        }
        last = Some(key.to_vec());
        swept += 1;
        Ok(if swept < operations { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(last.map(|mut last| {
        last.push(0);
        batch.delete_range(Column::Revisions, Vec::new(), last);
        batch
    }))
}

/// Where the newest version of a key before a revision is kept.
fn version_before(view: &dyn View, key: &str, revision: Revision) -> io::Result<Option<Vec<u8>>> {
    let Some(before) = revision.0.checked_sub(1) else { return Ok(None) };
    let from = columns::history_key(key, Revision(before));
    let mut to = columns::history_key(key, Revision(0));
    to.push(0);
    let mut found = None;
    view.scan(Column::History, &from, Some(&to), &mut |key, _| {
        found = Some(key.to_vec());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
