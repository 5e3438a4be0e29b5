//! What ends a store's part in its cluster: damage in its own files, a disk that failed it, a state that most others contradict.
//!
//! Whoever meets it first raises the [`Fence`]. From then on the engine neither shows nor takes anything, whoever asks, and the store
//! neither votes nor answers.
//!
//! Invariant: a fence that was raised stays raised, and keeps its first reason.

use std::{io, sync::Arc};

use quorate_proto::txn::Revision;
use thiserror::Error;
use tokio::sync::watch;

/// Why a store takes no part any more. The process, or at least the store, must be started anew.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A file is not what was written to it. Taking part again could undo what was acknowledged.
    #[error("its data is damaged: {0}")]
    Damaged(String),
    /// Most members agree on another content of a revision than this node has.
    #[error("its data is wrong: at revision {revision} it has the hash {own:08x}, and most members have {agreed:08x}")]
    Diverged {
        /// Where they differ.
        revision: Revision,
        /// The hash of this node.
        own: u32,
        /// The hash of the others.
        agreed: u32,
    },
    /// There was no room for what had to be written. Nothing of it was acknowledged.
    #[error("its disk is full: {0}")]
    Full(String),
    /// A write or a sync failed. What reached the disk is not known, so it is never tried again.
    #[error("its disk failed: {0}")]
    Disk(String),
    /// Agreement ended by itself.
    #[error("agreement ended: {0}")]
    Ended(String),
}

impl Fault {
    /// Whether the data of this node is of no more use: it may come back only as a new member that is filled by its peers.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Diverged { .. })
    }
}

/// Keeps a store that has a [`Fault`] from everything. Clones are the same fence.
#[derive(Debug, Clone)]
pub(crate) struct Fence(Arc<watch::Sender<Option<Fault>>>);

impl Fence {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Raises it, unless it is raised already.
    pub(crate) fn raise(&self, fault: Fault) {
        self.0.send_if_modified(|raised| {
            let first = raised.is_none();
            if first {
                tracing::error!(%fault, "this store is fenced: it neither votes nor answers");
                *raised = Some(fault);
            }
            first
        });
    }

    /// Why it was raised, if it was.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.borrow().clone()
    }

    /// Tells when it is raised.
    pub(crate) fn raised(&self) -> watch::Receiver<Option<Fault>> {
        self.0.subscribe()
    }

    /// An error if it is raised.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(fault) => Err(io::Error::new(io::ErrorKind::PermissionDenied, fault.clone())),
        }
    }

    /// Raises it if something that was read is damaged.
    pub(crate) fn read<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if is_damage(error) {
                self.raise(Fault::Damaged(error.to_string()));
            }
        })
    }

    /// Raises it if something was not written, whatever the reason.
    pub(crate) fn written<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| match error.kind() {
            // It is being closed: that is nobody's fault.
            io::ErrorKind::NotConnected => {}
            io::ErrorKind::StorageFull => self.raise(Fault::Full(error.to_string())),
            _ if is_damage(error) => self.raise(Fault::Damaged(error.to_string())),
            _ => self.raise(Fault::Disk(error.to_string())),
        })
    }
}

/// Whether an error says that stored bytes are not what was written.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_stays_as_it_was_raised_first() {
        let fence = Fence::new();
        assert!(fence.check().is_ok());
        let torn: io::Result<()> = Err(io::Error::new(io::ErrorKind::InvalidData, "torn"));
        assert!(fence.read(torn).is_err());
        let full: io::Result<()> = Err(io::ErrorKind::StorageFull.into());
        assert!(fence.written(full).is_err());
        assert_eq!(fence.fault(), Some(Fault::Damaged("torn".to_owned())));
        assert_eq!(fence.check().unwrap_err().to_string(), "its data is damaged: torn");
    }

    #[test]
    fn what_is_closed_or_not_understood_is_no_damage() {
        let fence = Fence::new();
        for kind in [io::ErrorKind::NotConnected, io::ErrorKind::Unsupported, io::ErrorKind::Other] {
            assert!(fence.read::<()>(Err(kind.into())).is_err());
        }
        assert!(fence.written::<()>(Err(io::ErrorKind::NotConnected.into())).is_err());
        assert_eq!(fence.fault(), None);
    }
}
