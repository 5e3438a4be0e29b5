//! The store's own verbs, for whoever keeps keys of their own in it: query, execute, watch, leases.
//!
//! They reach the keys of the group [`GROUP`] alone, `/kv/<bucket>/<namespace or _>/<name>`, and the leases of users; the cluster's
//! objects live beside them, and are read and changed by the other requests only.
//!
//! Invariant: [`StoreRequest::check`] holds for whatever reaches the store by these verbs.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    branch::{Branch, MAX_DEPTH, Operation},
    key::Key,
    lease::{Lease, LeaseId},
    query::{Page, Query},
    range::KeyRange,
    request::Read,
    txn::{Command, CommandOutcome, Revision, Txn},
    watch::WatchSpec,
};

/// The group of the keys that users keep. No kind is of it.
pub const GROUP: &str = "kv";

/// How those keys begin.
pub const PREFIX: &str = "/kv/";

/// The first text behind all of those keys.
pub const END: &str = "/kv0";

/// The largest number of a user's lease, as in etcd, whose numbers have a sign. Those beyond are the cluster's own.
pub const MAX_LEASE: u64 = i64::MAX as u64;

/// The largest delivery that a watch is told, in bytes of its envelope.
pub const MAX_DELIVERY: usize = crate::wire::cap::APPEND;

/// The most bytes of a delivery in one answer: a larger one comes in several.
pub const PIECE: usize = 1 << 20;

/// Asked of any node by a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// The rows of a range. Answer: `Page`, `Compacted` or `FutureRevision`.
    Query {
        /// How fresh.
        read: Read,
        /// Which rows.
        query: Query,
    },
    /// Has a command committed. Answer: `Outcome`.
    Execute(Command),
    /// Tells of changes in a range. Answer: `Watching`, then `Watched` until either side ends it; by the node, with `Compacted` or
    /// `Cancelled`.
    Watch(WatchSpec),
    /// Gives a lease its full time again. Answer: `Kept`.
    KeepAlive(LeaseId),
    /// What a lease has left, and what is attached to it. Answer: `Lease`.
    TimeToLive(LeaseId),
}

/// One answer of the store's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAnswer {
    /// The rows that were asked for.
    Page(Page),
    /// What became of a command; also that it was committed and refused.
    Outcome(CommandOutcome),
    /// A watch has begun: it tells of all that is newer than this revision.
    Watching(Revision),
    /// The envelope of a [`crate::watch::Delivery`], or a piece of it: encoded once for all who watch.
    Watched {
        /// At most [`PIECE`] bytes.
        bytes: Bytes,
        /// Whether the next answer continues the envelope.
        more: bool,
    },
    /// What was asked for is no longer kept; of a watch, its end. A watch begins again from the present state, or after this revision.
    Compacted {
        /// The oldest revision that can be read, or watched from.
        oldest: Revision,
    },
    /// A query of a revision that is yet to come.
    FutureRevision {
        /// Which.
        asked: Revision,
        /// The newest.
        at: Revision,
    },
    /// The end of a watch that its node does not go on with; another one may.
    Cancelled {
        /// Everything up to this revision was told: the watch may be resumed after it.
        after: Revision,
        /// Why.
        because: String,
    },
    /// For how many seconds a lease lives from now on unless it is kept alive again; `None`: there is no such lease.
    Kept(Option<u64>),
    /// A lease, with those of its keys that are users'.
    Lease {
        /// `None`: there is no such lease.
        lease: Option<Lease>,
        /// Whether it has more keys than [`PIECE`] bytes hold.
        more: bool,
    },
}

/// Why the store's verbs leave something alone, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreLimit {
    /// A key of the cluster's.
    #[error("the key `{0}` is not one of `{PREFIX}<bucket>/<namespace or _>/<name>`")]
    Key(Key),
    /// A range that holds keys of the cluster's, or might.
    #[error("the range of {0} does not lie within `{PREFIX}` up to `{END}`")]
    Range(KeyRange),
    /// A lease of the cluster's.
    #[error("the lease {0} is beyond {max}, the largest of a user's", max = MAX_LEASE)]
    Lease(LeaseId),
    /// Branches in branches in branches.
    #[error("branches are nested at most {MAX_DEPTH} deep")]
    Depth,
}

impl StoreRequest {
    /// Whether it is about nothing but what users keep: every key, range and lease in it is looked at.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), StoreLimit> {
        match self {
            Self::Query { query, .. } => range(&query.range),
            Self::Execute(command) => match command {
                Command::Apply { txn, .. } => transaction(txn),
                Command::Branch { branch, .. } => within(branch, MAX_DEPTH),
                Command::Grant { lease: id, .. } | Command::Revoke { lease: id, .. } => lease(*id),
                // What is compacted is the whole store's past, and no key.
                Command::Compact { .. } => Ok(()),
            },
            Self::Watch(spec) => range(&spec.range),
            Self::KeepAlive(id) | Self::TimeToLive(id) => lease(*id),
        }
    }
}

/// Whether a key is one that users keep.
#[must_use]
pub fn is_users(key: &Key) -> bool {
    key.as_str().starts_with(PREFIX)
}

fn key(key: &Key) -> Result<(), StoreLimit> {
    if is_users(key) { Ok(()) } else { Err(StoreLimit::Key(key.clone())) }
}

fn range(range: &KeyRange) -> Result<(), StoreLimit> {
    let ends = range.to().is_some_and(|to| to <= END);
    if ends && range.from().starts_with(PREFIX) { Ok(()) } else { Err(StoreLimit::Range(range.clone())) }
}

fn lease(lease: LeaseId) -> Result<(), StoreLimit> {
    if lease.0.get() <= MAX_LEASE { Ok(()) } else { Err(StoreLimit::Lease(lease)) }
}

fn transaction(txn: &Txn) -> Result<(), StoreLimit> {
    let compared = txn.compares.iter().map(|compare| &compare.key);
    compared.chain(txn.writes.iter().map(crate::txn::Write::key)).try_for_each(key)
}

fn within(branch: &Branch, depth: usize) -> Result<(), StoreLimit> {
    let depth = depth.checked_sub(1).ok_or(StoreLimit::Depth)?;
    branch.compares.iter().try_for_each(|comparison| range(&comparison.range))?;
    branch.then.iter().chain(&branch.otherwise).try_for_each(|operation| match operation {
        Operation::Put { key: name, lease: attached, .. } => {
            key(name)?;
            attached.map_or(Ok(()), lease)
        }
        Operation::Delete { range: deleted, .. } => range(deleted),
        Operation::Query(query) => range(&query.range),
        Operation::Branch(branch) => within(branch, depth),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        branch::{Operator, Target},
        ids::RequestId,
        kinds::KINDS,
        txn::Document,
        watch::WatchFrom,
    };

    const REQUEST: RequestId = RequestId(1);

    fn users(name: &str) -> Key {
        Key::new(GROUP, "bench", None, name).unwrap()
    }

    fn clusters() -> Key {
        Key::new("", "pods", Some("default"), "web").unwrap()
    }

    fn document() -> Document {
        Document(Bytes::from_static(b"v"))
    }

    fn why(request: &StoreRequest) -> String {
        request.check().err().map(|limit| limit.to_string()).unwrap_or_default()
    }

    #[test]
    fn no_kind_is_of_the_users_group() {
        assert!(KINDS.iter().all(|kind| kind.group != GROUP));
    }

    #[test]
    fn a_range_is_the_users_only_if_no_other_key_could_be_in_it() {
        let asked = |range| why(&StoreRequest::Watch(WatchSpec::new(range, WatchFrom::Now)));
        for range in [
            KeyRange::prefix(PREFIX),
            KeyRange::prefix("/kv/bench/_/a"),
            KeyRange::between("/kv/a", "/kv/b"),
            KeyRange::between("/kv/", END),
            Ok(KeyRange::key(&users("a"))),
        ] {
            assert_eq!(asked(range.unwrap()), "");
        }
        for range in [
            Ok(KeyRange::all()),
            Ok(KeyRange::key(&clusters())),
            KeyRange::prefix("/kv"),
            KeyRange::prefix("/"),
            KeyRange::starting_at("/kv/a"),
            KeyRange::between("/kv", "/kv/b"),
            KeyRange::between("/kv.io/a", "/kv/b"),
            KeyRange::between("/kv/a", "/kv0a"),
            KeyRange::between("/kv/a", "/rbac/"),
        ] {
            let range = range.unwrap();
            let expected = format!("the range of {range} does not lie within `/kv/` up to `/kv0`");
            assert_eq!(asked(range), expected);
        }
    }

    #[test]
    fn every_leaf_of_a_transaction_is_looked_at_however_deep_it_is() {
        let inner = |operation| Branch::new().then(Operation::Branch(Branch::new().otherwise(operation)));
        let execute = |branch| why(&StoreRequest::Execute(Command::Branch { request: REQUEST, branch }));
        let lease = LeaseId::new(MAX_LEASE + 1).unwrap();
        let put = |key, lease| Operation::Put { key, document: document(), lease, previous: false };
        assert_eq!(execute(inner(put(users("a"), LeaseId::new(MAX_LEASE)))), "");
        for branch in [
            inner(put(clusters(), None)),
            inner(put(users("a"), Some(lease))),
            inner(Operation::delete(KeyRange::all())),
            inner(Operation::Query(Query::new(KeyRange::key(&clusters())))),
            Branch::new().when(&clusters(), Operator::Equal, Target::Version(0)),
            inner(Operation::Branch(Branch::new().when_all(KeyRange::all(), Operator::Equal, Target::Version(0)))),
        ] {
            assert_ne!(execute(branch.clone()), "", "{branch:?}");
        }
        let mut deep = Branch::new();
        for _ in 0..MAX_DEPTH {
            deep = Branch::new().then(Operation::Branch(deep));
        }
        assert_eq!(execute(deep), "branches are nested at most 8 deep");
    }

    #[test]
    fn a_simple_transaction_compares_and_writes_users_keys_only() {
        let execute = |txn| why(&StoreRequest::Execute(Command::Apply { request: REQUEST, txn }));
        assert_eq!(execute(Txn::new().create(users("a"), document()).delete(users("b"))), "");
        let refused = "the key `/core/pods/default/web` is not one of `/kv/<bucket>/<namespace or _>/<name>`";
        assert_eq!(execute(Txn::new().put(clusters(), document())), refused);
        assert_eq!(execute(Txn::new().delete(clusters())), refused);
        assert_eq!(execute(Txn::new().expect(clusters(), None).put(users("a"), document())), refused);
    }

    #[test]
    fn the_clusters_leases_are_out_of_reach() {
        let own = LeaseId::new(MAX_LEASE).unwrap();
        let clusters = LeaseId::new(MAX_LEASE + 1).unwrap();
        let commands = |lease| {
            [
                StoreRequest::Execute(Command::Grant { request: REQUEST, lease, ttl_seconds: 5 }),
                StoreRequest::Execute(Command::Revoke { request: REQUEST, lease, granted: None }),
                StoreRequest::KeepAlive(lease),
                StoreRequest::TimeToLive(lease),
            ]
        };
        assert!(commands(own).iter().all(|request| request.check().is_ok()));
        for request in commands(clusters) {
            assert_eq!(
                why(&request),
                "the lease 8000000000000000 is beyond 9223372036854775807, the largest of a user's"
            );
        }
    }
}
