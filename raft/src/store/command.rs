//! Commands beyond the simple transaction: those that choose, compaction, leases.
//!
//! Invariant: what is beyond a limit is refused before it is proposed, here and by the leader; what comes back refused was not done.

use quorate_proto::{
    branch::{Branch, BranchError, Branched},
    ids::RequestId,
    lease::{LeaseId, TtlError, check_ttl},
    txn::{Command, CommandOutcome, CommandRefusal, MAX_TXN, Revision},
};
use thiserror::Error;

use super::{ProposeError, Store, propose::limits};

/// Why a command was not done.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It was not proposed, or what became of it is not known.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The transaction is beyond a limit, or contradicts itself.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// The time to live is beyond a limit.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// It was committed, and nothing was done.
    #[error(transparent)]
    Refused(#[from] CommandRefusal),
}

/// Checks a command against the limits.
pub(crate) fn check_limits(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Apply { txn, .. } => Ok(limits(txn)?),
        Command::Branch { branch, .. } => Ok(branch.check()?),
        Command::Grant { ttl_seconds, .. } => Ok(check_ttl(*ttl_seconds)?),
        Command::Compact { .. } | Command::Revoke { .. } => Ok(()),
    }
}

impl Store {
    /// Proposes any command, here or on the leader, and waits for what becomes of it. Tries again by itself while that is safe.
    ///
    /// May be dropped while it waits; the outcome is then unknown.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute(&self, command: &Command) -> Result<CommandOutcome, CommandError> {
        check_limits(command)?;
        let encoded = crate::record::encode(command).map_err(|_| BranchError::Bytes(MAX_TXN + 1))?;
        let reads = matches!(command, Command::Branch { .. });
        match self.submitted(encoded, reads).await? {
            CommandOutcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
    }

    /// Proposes a transaction that chooses.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn branch(&self, request: RequestId, branch: Branch) -> Result<Branched, CommandError> {
        match self.execute(&Command::Branch { request, branch }).await? {
            CommandOutcome::Branched(branched) => Ok(branched),
            _ => Err(ProposeError::Unknown.into()),
        }
    }

    /// Lets go of everything before a revision: it is the oldest that can be read from then on.
    ///
    /// # Errors
    /// [`CommandRefusal::Compacted`] if that was done before, [`CommandRefusal::FutureRevision`] if it is yet to come.
    pub async fn compact(&self, request: RequestId, revision: Revision) -> Result<Revision, CommandError> {
        match self.execute(&Command::Compact { request, revision }).await? {
            CommandOutcome::Compacted(oldest) => Ok(oldest),
            _ => Err(ProposeError::Unknown.into()),
        }
    }

    /// Grants a lease under a number that the caller chose, at random.
    ///
    /// # Errors
    /// [`CommandRefusal::LeaseExists`] if the number is taken; [`TtlError`] if the time to live is beyond a limit.
    pub async fn grant(&self, request: RequestId, lease: LeaseId, ttl_seconds: u64) -> Result<(), CommandError> {
        match self.execute(&Command::Grant { request, lease, ttl_seconds }).await? {
            CommandOutcome::Granted => Ok(()),
            _ => Err(ProposeError::Unknown.into()),
        }
    }

    /// Ends a lease; the revision that deleted its keys, or the present one if it had none.
    ///
    /// # Errors
    /// [`CommandRefusal::NoSuchLease`] if it was never granted, or has ended.
    pub async fn revoke(&self, request: RequestId, lease: LeaseId) -> Result<Revision, CommandError> {
        match self.execute(&Command::Revoke { request, lease, granted: None }).await? {
            CommandOutcome::Revoked(revision) => Ok(revision),
            _ => Err(ProposeError::Unknown.into()),
        }
    }
}
