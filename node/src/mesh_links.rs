//! Links over the mesh, and the mesh's streams handed to the parts that answer them.
//!
//! The mesh is there before the parts are: streams that arrive earlier wait for them, as long as whoever opened them does.
//!
//! Invariant: who a caller is comes from its certificate; what it may do is decided by the part that answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use quorate_api::Caller;
use quorate_dns::{Names, doq};
use quorate_mesh::{Alpn, Handler, Mesh, Stream, Subject, WeakMesh};
use quorate_proto::{ids::NodeId, refusal::chain};
use quorate_raft::Store;
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admission,
    links::{Lane, LinkError, Links, Reader, Writer},
    loops::Snapshots,
    serve::{Services, while_wanted},
};

/// How often peers are called on while nobody leads.
const GREET: Duration = Duration::from_secs(2);

/// Streams over the mesh.
pub(crate) struct MeshLinks(Arc<SetOnce<WeakMesh>>);

impl MeshLinks {
    /// Over the mesh, once it is there. The parts that the mesh hands streams to open streams over it, so they do not keep it.
    #[must_use]
    pub(crate) const fn new(mesh: Arc<SetOnce<WeakMesh>>) -> Self {
        Self(mesh)
    }
}

#[async_trait]
impl Links for MeshLinks {
    async fn open(&self, to: NodeId, lane: Lane) -> Result<(Writer, Reader), LinkError> {
        let unreachable = |because: String| LinkError::Unreachable { to, because };
        let mesh = self.0.get().ok_or_else(|| unreachable("this node is still starting".to_owned()))?;
        let mesh = mesh.upgrade().ok_or_else(|| unreachable("this node is stopping".to_owned()))?;
        let alpn = match lane {
            Lane::Peer => Alpn::Peer,
            Lane::Data => Alpn::Data,
        };
        let stream = mesh.open(to, alpn).await.map_err(|error| unreachable(chain(&error)))?;
        let (send, receive) = stream.into_split();
        Ok((Box::new(send), Box::new(receive)))
    }
}

/// Hands the mesh's streams to the parts.
pub(crate) struct Reception {
    services: Arc<SetOnce<Services>>,
}

impl Reception {
    /// To these parts, once they are there.
    #[must_use]
    pub(crate) const fn new(services: Arc<SetOnce<Services>>) -> Self {
        Self { services }
    }
}

#[async_trait]
impl Handler for Reception {
    async fn stream(&self, caller: quorate_mesh::Caller, stream: Stream) {
        let services = self.services.wait().await;
        let (send, receive) = stream.into_split();
        // A client has said all it had to say: that it wants no answer any more shows on the way back only.
        let gone = send.stopped();
        let (writer, reader): (Writer, Reader) = (Box::new(send), Box::new(receive));
        let lane = match caller.alpn {
            Alpn::Data => Lane::Data,
            _ => Lane::Peer,
        };
        let served = match (caller.alpn, caller.subject) {
            (Alpn::Peer | Alpn::Data, Some(Subject::Node(node))) => services.node(node, lane, writer, reader).await,
            (Alpn::Client, Some(Subject::User(name))) => {
                while_wanted(services.request(Caller::User(name), writer, reader), gone).await
            }
            (Alpn::Client, Some(Subject::Node(node))) => {
                while_wanted(services.request(Caller::Node { id: node, name: None }, writer, reader), gone).await
            }
            _ => return,
        };
        if let Err(error) = served {
            tracing::debug!(error = %chain(&error), from = %caller.address, "a stream broke off");
        }
    }
}

/// Answers DNS over QUIC on the shared port.
pub(crate) struct NamesOverQuic(pub Names);

#[async_trait]
impl Handler for NamesOverQuic {
    async fn stream(&self, caller: quorate_mesh::Caller, mut stream: Stream) {
        let source = caller.address;
        let Stream { send, receive } = &mut stream;
        if let Err(error) = doq::serve(&self.0, send, receive, source).await {
            tracing::debug!(%error, from = %source, "a question was not answered");
            if let Some(code) = error.closes_connection() {
                stream.close_connection(code);
            }
        }
    }
}

/// Tells the mesh where members are, and which ones are none any more, as the node objects say.
pub(crate) async fn keep_addresses(mesh: Mesh, mut snapshots: Snapshots, shutdown: CancellationToken) {
    let mut known = BTreeMap::new();
    snapshots.mark_changed();
    while let Some(Ok(())) = shutdown.run_until_cancelled(snapshots.changed()).await {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let peers = admission::peers(&snapshot).into_iter().map(|peer| (peer.node, peer.addresses));
        let next: BTreeMap<_, _> = peers.collect();
        for (node, addresses) in &next {
            if known.get(node) != Some(addresses) {
                mesh.introduce(*node, addresses.clone());
            }
        }
        for node in known.keys().filter(|node| !next.contains_key(*node)) {
            mesh.forget(*node);
        }
        known = next;
    }
}

/// Tells whether every peer that answers refuses this node, as one that is no member.
pub(crate) async fn keep_refused(mesh: Mesh, refused: watch::Sender<bool>, shutdown: CancellationToken) {
    let (mut by, mut peers) = (mesh.refused_by(), mesh.peers());
    loop {
        let any_up = peers.borrow_and_update().values().any(|peer| peer.is_up);
        let all = !by.borrow_and_update().is_empty() && !any_up;
        refused.send_if_modified(|refused| std::mem::replace(refused, all) != all);
        let changes = async {
            tokio::select! {
                changed = by.changed() => changed.is_ok(),
                changed = peers.changed() => changed.is_ok(),
            }
        };
        if shutdown.run_until_cancelled(changes).await != Some(true) {
            return;
        }
    }
}

/// Calls on every peer while nobody leads, so that nodes that all moved find each other by the addresses that are still good.
pub(crate) async fn greet(mesh: Mesh, store: Store, snapshots: Snapshots, shutdown: CancellationToken) {
    let mut status = store.status();
    loop {
        let leaderless = status.wait_for(|status| status.leader.is_none());
        if !matches!(shutdown.run_until_cancelled(leaderless).await, Some(Ok(_))) {
            return;
        }
        let peers = admission::peers(&snapshots.borrow());
        let calls = peers.iter().filter(|peer| peer.node != mesh.node()).map(async |peer| {
            // To open a stream is to have a connection; a stream that is not written to is not seen.
            if let Err(error) = mesh.open(peer.node, Alpn::Peer).await {
                tracing::debug!(%error, "a peer was not found");
            }
        });
        shutdown.run_until_cancelled(futures_util::future::join_all(calls)).await;
        shutdown.run_until_cancelled(tokio::time::sleep(GREET)).await;
    }
}
