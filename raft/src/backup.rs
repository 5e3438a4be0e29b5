//! Backups: the whole state at one revision, as a file that says what it is and can be checked whole.
//!
//! ```text
//! "quorate backup\n" | version byte          what it is, before anything else is believed
//! blocks                                     as of a Raft snapshot: length | crc32 | bytes; together a header, rows, their count
//! a block of length 0 | SHA-256              over every byte before: it ends here, and nothing was exchanged
//! ```
//!
//! The rows are those of a Raft snapshot. What is bound to the members (applied entry, membership, log, vote) is left out: a backup is of
//! a state, not of a node.
//!
//! Invariant: a backup is of exactly one revision. A reader takes memory for a block or a row, never for what a file claims to hold, and
//! has answered for a file only when it has read its last byte.

use std::io::{self, Read};

use bytes::Bytes;
use quorate_proto::{ids::ClusterId, txn::Revision};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    alone::OF_MEMBERS,
    columns::Column,
    engine::View,
    machine::Meta,
    snapshot::{BLOCK, BLOCK_HEADER, Sink, Writer},
};

mod read;
mod restore;

pub use read::{Backup, Summary};
pub use restore::{RestoreError, restore};

/// What every backup begins with.
const MAGIC: &[u8; 15] = b"quorate backup\n";

/// The format that is written, and the only one that is read.
const VERSION: u8 = 1;

/// Bytes of the sum at the end.
const SUM: usize = 32;

/// The largest piece a backup is sent in, in bytes.
pub const PIECE: usize = BLOCK + BLOCK_HEADER;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The cluster it was taken of.
    pub cluster: ClusterId,
    /// The revision it is the state of.
    pub revision: Revision,
    /// The hash over all changes up to that revision, as every node of the cluster had it.
    pub hash: u32,
    /// When it was taken by the clock of the node that gave it, in seconds since the Unix epoch.
    pub taken: i64,
    /// The version of the binary that wrote it.
    pub build: String,
}

/// The header. Stored, so variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Header {
    /// Since 0.1: what it is of, and the rows of `sm_meta` but for [`OF_MEMBERS`].
    V1(Origin, Vec<(Vec<u8>, Bytes)>),
}

/// Why a file is not read as a backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It is something else.
    #[error("it is no backup: it does not begin with `quorate backup`")]
    Foreign,
    /// It was written by another version.
    #[error("it has format version {0}, and this binary reads version {VERSION}")]
    Version(u8),
    /// Its end is missing.
    #[error("it is cut short: it ends after {0} bytes")]
    Cut(u64),
    /// Bytes are not those that were written.
    #[error("it is damaged: the checksum of what ends at byte {0} does not fit")]
    Damaged(u64),
    /// Something follows its end.
    #[error("it goes on behind its end, which is at byte {0}")]
    Longer(u64),
    /// The checksums fit, and what they cover cannot be.
    #[error("its checksums fit, but what it holds cannot be: {0}")]
    Malformed(String),
}

/// What an error of a reader is about: ours, passed through `io::Read`, or the content's.
fn fault(error: io::Error) -> BackupError {
    match error.downcast::<BackupError>() {
        Ok(fault) => fault,
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            BackupError::Malformed(error.to_string())
        }
        Err(error) => BackupError::Io(error),
    }
}

/// Writes the state as a backup: hands its bytes on in pieces of at most [`PIECE`].
pub(crate) fn write(
    view: &dyn View,
    cluster: ClusterId,
    taken: i64,
    send: &mut dyn FnMut(Bytes) -> io::Result<()>,
) -> io::Result<()> {
    let meta = Meta::load(view)?;
    let build = env!("CARGO_PKG_VERSION").to_owned();
    let origin = Origin { cluster, revision: meta.revision, hash: meta.hash, taken, build };
    let kept = meta.rows()?.into_iter().filter(|(name, _)| !OF_MEMBERS.contains(&name.as_slice())).collect();
    let mut file = Sending { send, digest: Context::new(&SHA256) };
    file.send([MAGIC.as_slice(), &[VERSION]].concat().into())?;
    let mut writer = Writer::new(file, &Header::V1(origin, kept))?;
    for column in Column::STATE {
        view.scan(column, &[], None, &mut |key, value| {
            writer.row(column, key, value)?;
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
    }
    let mut file = writer.finish()?;
    file.send(Bytes::from_static(&[0; BLOCK_HEADER]))?;
    let sum = Bytes::copy_from_slice(file.digest.clone().finish().as_ref());
    file.send(sum)
}

/// A backup on its way out, and the sum over what has gone.
struct Sending<'a> {
    send: &'a mut dyn FnMut(Bytes) -> io::Result<()>,
    digest: Context,
}

impl Sending<'_> {
    fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.digest.update(&bytes);
        (self.send)(bytes)
    }
}

impl Sink for Sending<'_> {
    fn push(&mut self, block: Bytes) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        let header = [length.to_be_bytes(), crc32fast::hash(&block).to_be_bytes()].concat();
        self.send([header.as_slice(), &block].concat().into())
    }
}

/// Reads exactly so many bytes, or says where the file ends.
fn fill(source: &mut impl Read, buffer: &mut [u8], at: u64) -> Result<(), BackupError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => return Err(BackupError::Cut(at + filled as u64)),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BackupError::Io(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
