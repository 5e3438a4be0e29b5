//! Why answering names does not begin.
//!
//! Invariant: every cause is named; nothing is listened on after an error.

use crate::server::BindError;

/// Why answering names could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The resolvers for other names could not be set up.
    #[error("the resolvers for names outside the cluster cannot be used")]
    Upstream(#[source] hickory_net::NetError),
}
