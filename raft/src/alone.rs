//! What makes a node the only member of its group, whatever was before: a group begins from a state that is there already.
//!
//! openraft has no such step. The rows say what such a group would have come to by itself: all entries up to one are in the state and no
//! longer in the log, and the membership as of that entry is this node.
//!
//! Invariant: the rows are written in one batch with the state they speak of.

use std::io;

use bytes::Bytes;
use quorate_proto::ids::NodeId;

use crate::{
    columns::{self, Column},
    engine::Batch,
    machine::Meta,
    record::{self, LogId, Membership, StoredMembership, Vote},
};

/// The rows of `sm_meta` that belong to the members, not to the state.
pub(crate) const OF_MEMBERS: [&[u8]; 2] = [b"applied", b"membership"];

/// Adds the rows: the state holds all up to `last`, and `node` alone goes on from there.
pub(crate) fn rows(batch: &mut Batch, node: NodeId, last: LogId, vote: Vote) -> io::Result<()> {
    let mut put = |column, name: &[u8], row: Bytes| batch.put(column, name.to_vec(), row);
    put(Column::RaftMeta, b"vote", record::encode(&vote)?);
    put(Column::RaftMeta, b"purged", record::encode(&last)?);
    put(Column::RaftMeta, b"committed", record::encode(&last)?);
    let membership = Membership { voters: vec![[node].into()], members: [node].into() };
    let membership = StoredMembership { log: Some(last), membership };
    let meta = Meta { applied: Some(last), membership, ..Meta::default() };
    for (name, row) in meta.rows()?.into_iter().filter(|(name, _)| OF_MEMBERS.contains(&name.as_slice())) {
        put(Column::StateMeta, &name, row);
    }
    batch.delete_range(Column::RaftLog, columns::log_key(0), columns::log_key(u64::MAX));
    Ok(())
}
