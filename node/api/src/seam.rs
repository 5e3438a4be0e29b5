//! What the API needs from the rest of the daemon: the agreed state, and what only the node itself can do.
//!
//! Invariant: the API keeps no state of its own between requests; all it knows comes through these traits.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    key::Key,
    lease::{Lease, LeaseId},
    query::{Page, Query},
    refusal::Refusal,
    request::{ClusterStatus, Logs, Read, TokenInfo},
    snapshot::Snapshot,
    txn::{Change, Command, CommandOutcome, Document, Outcome, Revision, Txn, Versioned},
    watch::WatchSpec,
};

/// The changes of one revision after the other.
pub type Changes = BoxStream<'static, Result<Arc<[Change]>, Refusal>>;

/// The agreed state: read it, propose changes to it, follow it.
#[async_trait]
pub trait Desired: Send + Sync + 'static {
    /// This node's newest state that satisfies `read`; waits for it if need be.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` if there is no such state in time.
    async fn snapshot(&self, read: Read) -> Result<Arc<Snapshot>, Refusal>;

    /// Proposes a transaction, through the leader, and waits until it is applied. The same request id gets the same outcome.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Timeout` if that is not known, `TooLarge` beyond the limits of a transaction.
    async fn propose(&self, request: RequestId, txn: Txn) -> Result<Outcome, Refusal>;

    /// All changes after a revision: complete, in the store's order, each once; an item is all that one revision changed, and not empty.
    /// Ends when this node stops.
    ///
    /// An `Err` is the last item: `Expired` if the revision is no longer kept or the reader was too slow.
    fn changes(&self, after: Revision) -> Changes;

    /// What a key held at a revision this node has reached.
    ///
    /// # Errors
    /// `Expired` if the revision is no longer kept.
    fn at(&self, key: &Key, revision: Revision) -> Result<Option<Versioned>, Refusal>;
}

/// The envelopes of the deliveries of a watch, shared by all who watch the same; an `Err` is the last item.
pub type Deliveries = BoxStream<'static, Result<Bytes, Ended>>;

/// The store as its own verbs reach it. What is asked here was allowed.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// One page of a range, once this node may answer.
    ///
    /// # Errors
    /// See [`Unread`].
    async fn query(&self, read: Read, query: &Query) -> Result<Page, Unread>;

    /// Has a command committed, through the leader, and waits until it is applied. The same request id gets the same outcome.
    ///
    /// # Errors
    /// As [`Desired::propose`]; `Invalid` for a transaction that contradicts itself, or a lease of absurd length.
    async fn execute(&self, command: &Command) -> Result<CommandOutcome, Refusal>;

    /// Tells of changes in a range that are newer than the revision it returns.
    ///
    /// # Errors
    /// See [`Ended`].
    fn watch(&self, spec: WatchSpec) -> Result<(Revision, Deliveries), Ended>;

    /// Gives a lease its full time again, and says how long that is; `None` if there is no such lease.
    ///
    /// # Errors
    /// `Unavailable` if no leader confirms it.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, Refusal>;

    /// A lease, what it has left and what is attached to it; `None` if there is no such lease.
    ///
    /// # Errors
    /// `Unavailable` if no leader can be asked.
    async fn lease(&self, lease: LeaseId) -> Result<Option<Lease>, Refusal>;
}

/// Why a query is not answered with a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// The revision it asks for is no longer kept.
    Compacted {
        /// The oldest that can be read.
        oldest: Revision,
    },
    /// The revision it asks for is yet to come.
    FutureRevision {
        /// Which.
        asked: Revision,
        /// The newest.
        at: Revision,
    },
    /// Anything else.
    Refused(Refusal),
}

/// Why a watch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// What it is to tell next is no longer kept.
    Compacted {
        /// The oldest revision it can begin after.
        oldest: Revision,
    },
    /// This node does not go on with it; another may.
    Cancelled {
        /// Everything up to this revision was told.
        after: Revision,
        /// Why.
        because: String,
    },
    /// Anything else.
    Refused(Refusal),
}

/// What only the node can do: it knows the members, holds the join secrets, and reaches the node that runs a pod.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Members, leader, revision, as this node sees them.
    ///
    /// # Errors
    /// If this node cannot tell.
    async fn status(&self) -> Result<ClusterStatus, Refusal>;

    /// Where nodes can be asked, as this node knows: `host:port`, those of [`quorate_proto::request::MAX_ENDPOINTS`] nodes at most.
    fn endpoints(&self) -> Vec<String>;

    /// The cluster at a glance: a [`quorate_proto::overview::Overview`] as JSON, with what the leader knows if it can be asked. If
    /// `forwarded` is set, this node was asked by another, and asks nobody else.
    ///
    /// # Errors
    /// If it cannot be written.
    async fn overview(&self, forwarded: bool) -> Result<Document, Refusal>;

    /// What a pod wrote, from the node of this name, which runs it. The pod and its container exist; `logs.container` is filled in.
    /// If `logs.forwarded` is set, this node must be the one: it is not passed on again.
    ///
    /// # Errors
    /// If the node cannot be reached, or refuses.
    async fn logs(&self, node: String, logs: Logs) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal>;

    /// The whole state at one revision, as the bytes of a backup.
    ///
    /// # Errors
    /// As [`Desired::snapshot`].
    async fn backup(&self, read: Read) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal>;

    /// A node lives. Kept in memory by the leader only.
    ///
    /// # Errors
    /// `Unavailable` if this node does not lead.
    async fn heartbeat(&self, node: NodeId, incarnation: u64) -> Result<(), Refusal>;

    /// Makes a join token and returns it whole: the only time its secret is shown.
    ///
    /// # Errors
    /// As [`Desired::propose`], or `Invalid` for a lifetime or a number of uses beyond the limits.
    async fn create_token(&self, request: RequestId, lifetime: Duration, uses: u32) -> Result<String, Refusal>;

    /// All join tokens, without secrets.
    ///
    /// # Errors
    /// As [`Desired::snapshot`].
    async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Refusal>;

    /// Ends a join token.
    ///
    /// # Errors
    /// `NotFound`, or as [`Desired::propose`].
    async fn revoke_token(&self, request: RequestId, id: String) -> Result<(), Refusal>;
}

/// Who asks, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A person or a program, by name.
    User(String),
    /// A node of this cluster.
    Node {
        /// Its id, from the certificate.
        id: NodeId,
        /// Its name, if known: for messages only. Rights follow the id.
        name: Option<String>,
    },
}

/// What is agreed for the whole cluster when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cluster: part of every node's `spec.providerID`.
    pub cluster: ClusterId,
    /// The range service addresses are given out from: its first address and the length of its prefix, in bits (8 to 30).
    pub service_range: (Ipv4Addr, u8),
}
