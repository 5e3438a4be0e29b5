//! Ordered rows in columns, on disk or in memory: all that log and state machine need of a storage engine.
//!
//! Invariant: a batch is written whole or not at all, batches survive a crash in the order in which they were written (a later one never
//! without an earlier one), and what was written before a returned `sync` survives every crash.

use std::{io, ops::ControlFlow, time::Duration};

use bytes::Bytes;

use crate::columns::Column;

mod disk;
mod guarded;
mod memory;

pub(crate) use disk::{Disk, exists};
pub(crate) use guarded::Guarded;
pub use memory::{Memory, Trouble};

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Column, Vec<u8>, Bytes),
    Delete(Column, Vec<u8>),
    /// From the first key, up to the second, which stays.
    DeleteRange(Column, Vec<u8>, Vec<u8>),
}

/// Changes that are written together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    /// Bytes of keys and values.
    pub(crate) size: usize,
}

impl Batch {
    pub(crate) fn put(&mut self, column: Column, key: Vec<u8>, value: Bytes) {
        self.size += key.len() + value.len();
        self.ops.push(Op::Put(column, key, value));
    }

    pub(crate) fn delete(&mut self, column: Column, key: Vec<u8>) {
        self.size += key.len();
        self.ops.push(Op::Delete(column, key));
    }

    pub(crate) fn delete_range(&mut self, column: Column, from: Vec<u8>, to: Vec<u8>) {
        self.size += from.len() + to.len();
        self.ops.push(Op::DeleteRange(column, from, to));
    }
}

/// A row of the state, as a snapshot carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) column: Column,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Bytes,
}

/// What a scan calls for each row; `Break` ends the scan.
pub(crate) type Each<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>> + 'a;

/// One consistent state of all columns.
pub(crate) trait View {
    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Bytes>>;
    /// The rows from `from` up to `to` (which is left out; `None`: to the end), in order.
    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, each: &mut Each<'_>) -> io::Result<()>;
    /// All rows, in order, each read from where it is kept and checked there; what is cached stays so.
    fn sweep(&self, column: Column, each: &mut Each<'_>) -> io::Result<()>;
}

/// A storage engine.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Shows one consistent state. The view sees nothing that is written after it began.
    fn view(&self, look: &mut dyn FnMut(&dyn View) -> io::Result<()>) -> io::Result<()>;

    /// Writes a batch; it is seen at once, and durable after the next [`Engine::sync`].
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Makes everything written before durable. An error is final: what reached the disk is not known, so it is never tried again.
    fn sync(&self) -> io::Result<()>;

    /// How long the disk takes for the next sync, where that is simulated; a real one takes its time in [`Engine::sync`].
    fn delay(&self) -> Duration;

    /// Replaces all columns of the state by these rows, and writes `meta`: both or neither, whatever happens. Durable on return.
    fn replace(&self, rows: &mut dyn Iterator<Item = io::Result<Row>>, meta: Batch) -> io::Result<()>;

    /// How much room is left for more, in bytes.
    fn free(&self) -> io::Result<u64>;

    /// Lets go of files and threads. Whatever comes after is refused.
    fn close(&self);

    /// Whether all files are closed.
    fn closed(&self) -> bool;
}

/// Looks at one consistent state and returns what was found.
pub(crate) fn look<T>(engine: &dyn Engine, mut find: impl FnMut(&dyn View) -> io::Result<T>) -> io::Result<T> {
    let mut found = None;
    engine.view(&mut |view| {
        found = Some(find(view)?);
        Ok(())
    })?;
    found.ok_or_else(|| io::Error::other("the engine showed nothing"))
}

#[cfg(test)]
mod tests;
