//! A connection to a node of either side, with the few operations that are measured.
//!
//! Invariant: both sides are asked for the same: the same keys and values, one operation a request, as many requests at once as there are
//! clients.

use std::sync::Arc;

use crate::{Failure, grpc, quic};

/// A connection.
#[derive(Clone)]
pub(crate) enum Session {
    Etcd(grpc::Connection),
    Ours(Arc<quic::Connection>),
}

/// A watch of many ranges of one key each.
pub(crate) enum Events {
    Etcd(grpc::Watch),
    Ours(quic::Watch),
}

/// The text of the key of a number.
pub(crate) fn key(bucket: &str, number: u64) -> String {
    format!("/kv/{bucket}/_/{number:08}")
}

impl Session {
    /// Puts a value; done when it is acknowledged.
    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Etcd(connection) => connection.put(key, value).await,
            Self::Ours(connection) => connection.put(key, value).await,
        }
    }

    /// The value of a key.
    pub(crate) async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Etcd(connection) => connection.get(key, stale).await,
            Self::Ours(connection) => connection.get(key, stale).await,
        }
    }

    /// Watches a key; returns when the watch has begun.
    pub(crate) async fn watch(&self, key: &str) -> Result<Events, Failure> {
        Ok(match self {
            Self::Etcd(connection) => Events::Etcd(connection.watch(key).await?),
            Self::Ours(connection) => Events::Ours(connection.watch(key).await?),
        })
    }

    /// Whether the node that is connected to leads.
    pub(crate) async fn leads(&self) -> Result<bool, Failure> {
        match self {
            Self::Etcd(connection) => connection.leads().await,
            Self::Ours(connection) => connection.leads().await,
        }
    }
}

impl Events {
    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> Result<(), Failure> {
        match self {
            Self::Etcd(watch) => watch.next().await,
            Self::Ours(watch) => watch.next().await,
        }
    }
}
