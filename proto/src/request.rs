//! What clients and nodes ask of a node, and what they are answered.
//!
//! A stream carries one [`Request`] frame, then [`Answer`] frames: one for most requests, many for lists, watches and logs. All are
//! sent as frames of [`crate::wire`]; variants and fields are only ever added at the end, as new variants.
//!
//! Invariant: who may ask what is decided by `node/api` for every variant; a variant without an entry in its table does not compile.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, NodeId, RequestId},
    refusal::Refusal,
    store::{StoreAnswer, StoreRequest},
    txn::{Document, Revision},
};

/// Asked of any node by a client, or of the leader by a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// One object. Answer: `Objects` with one document.
    Get {
        /// Which.
        object: Reference,
        /// How fresh.
        read: Read,
    },
    /// The objects of a kind. Answer: `Objects` or `Table`, several if they are many, then `End`.
    List(Selection),
    /// Changes of the objects of a kind: those that exist, then whatever happens. Answer: `Event` or `Table`, until either side ends it.
    Watch(Selection),
    /// Creates or changes an object to be as its manifest says (three-way, as `kubectl apply`). Answer: `Changed`.
    Apply {
        /// Retries carry the same.
        request: RequestId,
        /// The object, as JSON.
        object: Document,
        /// Stops before anything is written.
        dry_run: bool,
    },
    /// Creates an object. Answer: `Changed`.
    Create {
        /// Retries carry the same.
        request: RequestId,
        /// The object, as JSON.
        object: Document,
        /// Stops before anything is written.
        dry_run: bool,
    },
    /// Replaces an object; with `metadata.resourceVersion`, only if it was last written then. Answer: `Changed`.
    Replace {
        /// Retries carry the same.
        request: RequestId,
        /// The object, as JSON.
        object: Document,
        /// Stops before anything is written.
        dry_run: bool,
    },
    /// Changes an object by a merge patch (RFC 7386). Answer: `Changed`.
    Patch {
        /// Retries carry the same.
        request: RequestId,
        /// Which.
        object: Reference,
        /// The patch, as JSON.
        patch: Document,
        /// Stops before anything is written.
        dry_run: bool,
    },
    /// Deletes an object, and in the background what it owns. Answer: `Changed`.
    Delete {
        /// Retries carry the same.
        request: RequestId,
        /// Which.
        object: Reference,
        /// Seconds a pod gets to stop, instead of its own `terminationGracePeriodSeconds`.
        grace_seconds: Option<u32>,
    },
    /// Sets how many replicas there are to be. Answer: `Changed`.
    Scale {
        /// Retries carry the same.
        request: RequestId,
        /// Which.
        object: Reference,
        /// How many.
        replicas: u32,
    },
    /// What a pod wrote. Passed on once, to the node that runs the pod. Answer: `Data`, then `End`.
    Logs(Logs),
    /// Members, leader, revision. Answer: `Status`.
    Status,
    /// Makes a join token. Answer: `Token`.
    CreateToken {
        /// Retries carry the same.
        request: RequestId,
        /// How long it is good for, in seconds.
        lifetime_seconds: u64,
        /// How many nodes may join with it.
        uses: u32,
    },
    /// All join tokens, without their secrets. Answer: `Tokens`.
    ListTokens,
    /// Ends a join token. Answer: `Done`.
    RevokeToken {
        /// Retries carry the same.
        request: RequestId,
        /// The token's id.
        id: String,
    },
    /// From a node to the leader: it lives. Never stored. Answer: `Done`.
    Heartbeat {
        /// Counts the node's starts.
        incarnation: u64,
    },
    /// From a node to any node: what it saw of what it runs. Answer: `Done`.
    Report {
        /// Retries carry the same.
        request: RequestId,
        /// What changed.
        facts: Vec<Fact>,
    },
    /// As `Watch`, and to be resumed on any node. Answer: as `Watch`, and a `Bookmark` after what exists, after the changes of each
    /// revision, and from time to time, until either side ends it.
    WatchFrom {
        /// Which objects.
        selection: Selection,
        /// Only what happened after this revision, as a Kubernetes watch from this `resourceVersion`; `None`: what exists first.
        after: Option<Revision>,
    },
    /// Where nodes can be asked. Answer: `Endpoints`.
    Endpoints,
    /// The cluster at a glance. Passed on once, to the leader, for what only that one knows. Answer: `Overview`.
    Overview {
        /// Set by the node that passes the request on, so that it is passed on once.
        forwarded: bool,
    },
    /// Has a node leave the cluster: it stops voting, its pods end, its object goes, its daemon stops. Answer: `Changed`, at once.
    Leave {
        /// Retries carry the same.
        request: RequestId,
        /// The node's name.
        node: String,
    },
    /// The whole state at one revision, as the bytes of a backup. Answer: `Data`, then `End`.
    Backup {
        /// How fresh it must be.
        read: Read,
    },
    /// One of the store's own verbs, on the keys that users keep. Answer: `Store`, of a watch several.
    Store(StoreRequest),
}

/// An object, by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Any name the kind goes by: `deploy`, `pods`, `deployment.apps`.
    pub kind: String,
    /// `None`: `default`, or cluster-scoped.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Read {
    /// Sees every write that was acknowledged before it was asked for.
    Linearizable,
    /// What this node has, also when it is cut off.
    Stale,
    /// At least this revision.
    AtLeast(Revision),
}

/// Which objects, and how they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Any name the kind goes by.
    pub kind: String,
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    /// `app=web,tier!=db`; empty selects all.
    pub labels: String,
    /// `metadata.name=web`; empty selects all.
    pub fields: String,
    /// As objects, or as rows of a table.
    pub shape: Shape,
    /// How fresh.
    pub read: Read,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Whole.
    Objects,
    /// As rows, made by the node: [`Table`].
    Table,
}

/// Which lines a pod wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; needed if the pod has several.
    pub container: Option<String>,
    /// Goes on until the container ends.
    pub follow: bool,
    /// The container before its last restart.
    pub previous: bool,
    /// Only the last lines.
    pub tail: Option<u32>,
    /// Only what was written in the last seconds.
    pub since_seconds: Option<u32>,
    /// Each line with its time.
    pub timestamps: bool,
    /// Set by the node that passes the request on, so that it is passed on once.
    pub forwarded: bool,
}

/// Something a node saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// The status of a pod bound to the node: a merge patch of `status`.
    Pod {
        /// Namespace and name.
        namespace: String,
        /// The pod's name.
        name: String,
        /// A pod of the same name with another uid is another pod.
        uid: String,
        /// The patch, as JSON.
        status: Document,
    },
    /// A pod that was to be deleted has no containers any more.
    Gone {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The pod's uid.
        uid: String,
    },
    /// The node's own status: a merge patch of `status`.
    Node {
        /// The patch, as JSON.
        status: Document,
    },
    /// Something that happened, worth telling: a whole `v1` Event without name and times.
    Event {
        /// The event, as JSON.
        event: Document,
    },
}

/// One frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Not done; nothing follows.
    Refused(Refusal),
    /// Done; nothing to say.
    Done,
    /// Objects, whole, and the revision of the list.
    Objects {
        /// The revision they were read at.
        revision: Revision,
        /// The objects, with `resourceVersion`.
        objects: Vec<Document>,
    },
    /// Rows of a table.
    Table(Table),
    /// One change in a watch.
    Event {
        /// What happened.
        kind: EventKind,
        /// The object afterwards; as it last was if it was deleted.
        object: Document,
    },
    /// What became of a change.
    Changed {
        /// What was done.
        change: ChangeKind,
        /// The object as it is now.
        object: Document,
        /// Fields that were accepted and are not honoured, one sentence each.
        warnings: Vec<String>,
    },
    /// Bytes of a log.
    Data(Bytes),
    /// Nothing follows.
    End,
    /// The cluster as the answering node sees it.
    Status(ClusterStatus),
    /// A new join token: shown once.
    Token(String),
    /// Join tokens without their secrets.
    Tokens(Vec<TokenInfo>),
    /// In a watch that can be resumed: everything up to this revision was told.
    Bookmark(Revision),
    /// Where nodes of the cluster can be asked, `host:port`: those of [`MAX_ENDPOINTS`] of them at most.
    Endpoints(Vec<String>),
    /// The cluster at a glance: a [`crate::overview::Overview`] as JSON.
    Overview(Document),
    /// What the store says itself.
    Store(StoreAnswer),
}

/// The most endpoints that are told: enough that one of them answers, whatever becomes of the others.
pub const MAX_ENDPOINTS: usize = 16;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// It appeared, or came to be selected.
    Added,
    /// It changed.
    Modified,
    /// It was deleted, or is no longer selected.
    Deleted,
}

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It was changed.
    Configured,
    /// It was as asked for already.
    Unchanged,
    /// It was deleted, or is being deleted.
    Deleted,
}

/// A table, made by the node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The headings; empty in all but the first table of an answer.
    pub columns: Vec<TableColumn>,
    /// The rows.
    pub rows: Vec<TableRow>,
}

/// A heading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableColumn {
    /// In capitals.
    pub name: String,
    /// Only with `-o wide`.
    pub wide: bool,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// The object's namespace; empty if cluster-scoped.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// One text a column.
    pub cells: Vec<String>,
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that answers.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// The leader, as far as the node knows.
    pub leader: Option<NodeId>,
    /// The revision the node has applied.
    pub revision: Revision,
    /// Whether pods are simulated.
    pub simulated: bool,
    /// All members.
    pub members: Vec<Member>,
}

/// A member of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name, if its node object is there.
    pub name: Option<String>,
    /// Whether it votes.
    pub voter: bool,
}

/// A join token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id: the part of the token that may be shown.
    pub id: String,
    /// How many nodes may still join with it.
    pub uses_left: u32,
    /// Until when, as RFC 3339.
    pub expires: String,
}
