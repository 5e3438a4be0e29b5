//! Which format the files of a store have, so that an older binary does not misread what a newer one wrote.
//!
//! The database says it in a row of its own; the mark and the snapshots in the version byte of their envelopes.
//!
//! Invariant: the number is raised with every change after which an older binary would read something wrong, and never otherwise.

use std::io;

use bytes::Bytes;

use crate::{
    columns::Column,
    engine::{Batch, View},
    record,
};

/// The format that is written here.
pub(crate) const FORMAT: u32 = 2;

const ROW: &[u8] = b"format";

/// Adds the format to the first batch of a database that is new, or of an older one.
pub(crate) fn claim(batch: &mut Batch) -> io::Result<()> {
    batch.put(Column::RaftMeta, ROW.to_vec(), record::encode(&FORMAT)?);
    Ok(())
}

/// Checks that a database can be read here; whether it is of an older format, which it is no longer as soon as anything is written. One that
/// says nothing is of the first format.
///
/// # Errors
/// `Unsupported` if it was written by a newer version.
pub(crate) fn check(view: &dyn View) -> io::Result<bool> {
    let row: Option<Bytes> = view.get(Column::RaftMeta, ROW)?;
    let found: u32 = row.map(|row| record::decode(&row)).transpose()?.unwrap_or(1);
    if found <= FORMAT {
        return Ok(found < FORMAT);
    }
    let what = format!("its format is {found}, and this version of quorate reads formats up to {FORMAT}");
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}
