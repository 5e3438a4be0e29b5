//! The agent's question before it stops a pod: does anybody still send it connections?
//!
//! Invariant: the agent asks once for every pod that was ready when it was to be deleted, and stops it when that is answered, or after
//! [`Config::drain`](crate::Config::drain).

use async_trait::async_trait;
use quorate_proto::txn::Revision;

/// Knows what the routes of all nodes hold. Implemented by whoever owns the agent.
#[async_trait]
pub trait Withdrawal: Send + Sync + 'static {
    /// Returns when no node that can be reached begins new connections to what was taken away by `revision`, and those that had begun
    /// have arrived. Dropped when the agent stops.
    async fn withdrawn(&self, revision: Revision);
}
