//! The seam to other nodes: a stream of bytes both ways, opened by node name.

use async_trait::async_trait;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The sending half of a stream. Shutting it down ends it cleanly; dropping it before that must reset it, so that the far end reads an
/// error and not an end: that is how a connection that broke is told from one that is finished.
pub type Sender = Box<dyn AsyncWrite + Send + Unpin>;
/// The receiving half of a stream. Dropping it before its end must make the far end's writes fail.
pub type Receiver = Box<dyn AsyncRead + Send + Unpin>;

/// Opens streams to other nodes.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Opens a stream to a node; there, it is handed to [`Traffic::accept`](crate::Traffic::accept).
    ///
    /// # Errors
    /// If the node cannot be reached.
    async fn open(&self, node: &str) -> Result<(Sender, Receiver), CarryError>;
}

/// A node could not be reached.
#[derive(Debug, Error)]
#[error("node {node} cannot be reached")]
pub struct CarryError {
    /// The node's name.
    pub node: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
