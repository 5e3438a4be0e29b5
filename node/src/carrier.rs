//! Traffic's way to other nodes: a data stream, opened by node name.

use std::sync::Arc;

use async_trait::async_trait;
use quorate_proto::kinds::NODES;
use quorate_traffic::{Carrier, CarryError, Receiver, Sender};

use crate::{
    links::{self, Lane, Links, Opening},
    loops::Snapshots,
    registration,
};

/// Opens data streams over links.
pub(crate) struct LinkCarrier {
    links: Arc<dyn Links>,
    snapshots: Snapshots,
}

impl LinkCarrier {
    /// Over these links, to the nodes these snapshots know.
    #[must_use]
    pub(crate) const fn new(links: Arc<dyn Links>, snapshots: Snapshots) -> Self {
        Self { links, snapshots }
    }
}

#[async_trait]
impl Carrier for LinkCarrier {
    async fn open(&self, node: &str) -> Result<(Sender, Receiver), CarryError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| CarryError { node: node.to_owned(), source };
        let stored = self.snapshots.borrow().find(&NODES, None, node).cloned();
        let id = stored.and_then(|stored| registration::node_id(&stored.object));
        let id = id.ok_or_else(|| failed("there is no such node".into()))?;
        links::open(&*self.links, id, Lane::Data, Opening::Carry).await.map_err(|error| failed(error.into()))
    }
}
