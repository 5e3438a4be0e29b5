//! A connection to a node of either side, with the few operations that are measured, or checked.
//!
//! Invariant: both sides are asked for the same: the same keys and values, one operation a request, as many requests at once as there are
//! clients.

use std::sync::Arc;

use quorate_proto::{
    ids::RequestId,
    key::Key,
    txn::{Change, Outcome, Revision, Txn, Versioned},
};

use super::{Failure, grpc, quic};

/// A connection.
#[derive(Debug, Clone)]
pub enum Session {
    /// To a member of etcd.
    Etcd(grpc::Connection),
    /// To one of our nodes.
    Ours(Arc<quic::Connection>),
}

/// A watch.
#[derive(Debug)]
pub enum Events {
    /// Of etcd's.
    Etcd(grpc::Watch),
    /// Of ours.
    Ours(quic::Watch),
}

/// Some of a store's keys, as of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The store's revision when it answered.
    pub revision: Revision,
    /// The keys, in order.
    pub rows: Vec<(Key, Versioned)>,
}

/// The text of the key of a number.
#[must_use]
pub fn key(bucket: &str, number: u64) -> String {
    format!("/kv/{bucket}/_/{number:08}")
}

impl Session {
    /// Puts a value; done when it is acknowledged.
    ///
    /// # Errors
    /// If it is not.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Etcd(connection) => connection.put(key, value).await,
            Self::Ours(connection) => connection.put(key, value).await,
        }
    }

    /// Has a transaction decided; only ours takes notice of the request's id. Of etcd's, at most one key may be compared.
    ///
    /// # Errors
    /// The refusal, or why there is no answer.
    pub async fn transact(&self, request: RequestId, txn: Txn) -> Result<Outcome, Failure> {
        match self {
            Self::Etcd(connection) => connection.transact(&txn).await,
            Self::Ours(connection) => connection.transact(request, txn).await,
        }
    }

    /// All keys that begin with a text: at present, as of a revision, or as the node happens to have them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows(&self, prefix: &str, stale: bool, at: Option<Revision>) -> Result<Rows, Failure> {
        match self {
            Self::Etcd(connection) => connection.rows(prefix, stale, at).await,
            Self::Ours(connection) => connection.rows(prefix, stale, at).await,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Etcd(connection) => connection.get(key, stale).await,
            Self::Ours(connection) => connection.get(key, stale).await,
        }
    }

    /// Watches all keys that begin with a text, after a revision.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn follow(&self, prefix: &str, after: Revision) -> Result<Events, Failure> {
        Ok(match self {
            Self::Etcd(connection) => Events::Etcd(connection.follow(prefix, after).await?),
            Self::Ours(connection) => Events::Ours(connection.follow(prefix, after).await?),
        })
    }

    /// Watches a key; returns when the watch has begun.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn watch(&self, key: &str) -> Result<Events, Failure> {
        Ok(match self {
            Self::Etcd(connection) => Events::Etcd(connection.watch(key).await?),
            Self::Ours(connection) => Events::Ours(connection.watch(key).await?),
        })
    }

    /// Whether the node that is connected to leads.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn leads(&self) -> Result<bool, Failure> {
        match self {
            Self::Etcd(connection) => connection.leads().await,
            Self::Ours(connection) => connection.leads().await,
        }
    }
}

impl Events {
    /// Waits for what the next revision did.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn changes(&mut self) -> Result<Arc<[Change]>, Failure> {
        match self {
            Self::Etcd(watch) => watch.changes().await,
            Self::Ours(watch) => watch.changes().await,
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn next(&mut self) -> Result<(), Failure> {
        match self {
            Self::Etcd(watch) => watch.next().await,
            Self::Ours(watch) => watch.next().await,
        }
    }
}
