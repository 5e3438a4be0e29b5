//! A node of one for tests: real parts on a disk in memory, simulated containers, nobody else to reach.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use quorate_agent::runtime::simulated::{Config as RuntimeConfig, Simulated};
use quorate_mesh::ClusterKey;
use quorate_proto::{
    ids::{ClusterId, NodeId},
    object::Object,
    request::{Read, Request, Selection, Shape},
    txn::Txn,
    world::{Clock, Random},
};
use quorate_raft::{Config, Memory, Storage, Store, Timing};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    links::{Lane, LinkError, Links, Reader, Writer},
    node::{Node, Own, Parts},
    raft_network::RaftNetwork,
    secrets::Vault,
    settings::ClusterSettings,
    world::{SystemClock, SystemRandom},
};

/// The node's cluster.
pub(crate) const CLUSTER: ClusterId = ClusterId(1);

struct Nobody;

#[async_trait]
impl Links for Nobody {
    async fn open(&self, to: NodeId, _lane: Lane) -> Result<(Writer, Reader), LinkError> {
        Err(LinkError::Unreachable { to, because: "there is nobody else".to_owned() })
    }
}

/// A node that leads itself; stops when it is dropped.
pub(crate) struct Alone {
    pub(crate) node: Node,
    pub(crate) shutdown: CancellationToken,
}

impl Alone {
    pub(crate) async fn start() -> Self {
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let id = NodeId(1);
        let links: Arc<dyn Links> = Arc::new(Nobody);
        let store = Store::open(
            Config::new(CLUSTER, id, Timing::SIMULATED),
            Storage::Memory(Memory::new()),
            Arc::new(RaftNetwork::new(Arc::clone(&links))),
            Arc::clone(&random),
            tasks.clone(),
            shutdown.clone(),
        );
        let store = store.await.unwrap();
        store.initialize().await.unwrap();
        let pod_range = "10.214.1.0/24".parse().unwrap();
        let runtime = RuntimeConfig { node: "n1".to_owned(), pod_range, cpus: 1, memory: 1 << 30 };
        let parts = Parts {
            own: Own {
                node: id,
                name: "n1".to_owned(),
                incarnation: 1,
                addresses: vec![([10, 99, 0, 1], 7443).into()],
            },
            settings: ClusterSettings {
                cluster_id: CLUSTER,
                service_range: "10.213.0.0/16".parse().unwrap(),
                pod_range: "10.214.0.0/16".parse().unwrap(),
                zone: "cluster.local".to_owned(),
            },
            vault: Vault::new(ClusterKey::from_bytes([7; 32]), Arc::clone(&random)),
            store,
            links,
            runtime: Arc::new(Arc::new(Simulated::new(runtime, Arc::clone(&clock)))),
            simulated: true,
            names: None,
            carries: false,
            decisions: quorate_control::Settings::default(),
            clock,
            random,
        };
        Self { node: Node::start(parts, &tasks, &shutdown).unwrap(), shutdown }
    }

    /// Puts an object of the cluster's own into the store, and waits until this node knows it.
    pub(crate) async fn put(&self, object: Value) {
        let object = Object::from_value(object).unwrap();
        let kind = quorate_proto::kinds::Kind::of(object.api_version(), object.kind()).unwrap();
        let key = kind.key(object.namespace(), object.name()).unwrap();
        let txn = Txn::new().put(key.clone(), object.to_document());
        self.node.services.store.propose(SystemRandom.request_id(), txn).await.unwrap();
        within(self.node.snapshots.clone().wait_for(|snapshot| snapshot.get(&key).is_some())).await.unwrap();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A deadline for what must come, however slow the machine.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it did not come within 30 s")
}

/// Waits until something is so.
pub(crate) async fn until(so: impl Fn() -> bool) {
    within(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A watch of all namespaces; its first answer, the headings of a table, comes at once.
pub(crate) fn watch() -> Request {
    Request::Watch(Selection {
        kind: "namespaces".to_owned(),
        namespace: None,
        labels: String::new(),
        fields: String::new(),
        shape: Shape::Table,
        read: Read::Stale,
    })
}

/// A namespace, for a watch to tell.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": format!("uid-{name}")}})
}
