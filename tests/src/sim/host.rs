//! A simulated host: a disk in memory, simulated containers, and a node's daemon that can be stopped, killed and started.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::Ipv4Net;
use quorate_agent::runtime::{
    Container, Role, Runtime as _, State,
    simulated::{Behaviour, Config as RuntimeConfig, Simulated},
};
use quorate_mesh::ClusterKey;
use quorate_node::{
    node::{Node, Own, Parts},
    raft_network::RaftNetwork,
    secrets::Vault,
    serve::Services,
};
use quorate_proto::{ids::NodeId, snapshot::Snapshot, world::Random as _};
use quorate_raft::{Config, Memory, Storage, Store, Timing};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    network::SimLinks,
    world::{SimClock, SimRandom, World},
};

/// Cores of a simulated host.
const CPUS: u32 = 4;
/// Memory of a simulated host, in bytes.
const MEMORY: u64 = 8 << 30;

/// A simulated host.
pub struct Host {
    id: NodeId,
    name: String,
    pod_range: Ipv4Net,
    disk: Memory,
    runtime: Arc<Simulated>,
    behaviours: BTreeMap<String, Behaviour>,
    incarnation: u64,
    running: Option<Running>,
}

/// A daemon that runs.
struct Running {
    node: Node,
    store: Store,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Host {
    pub(super) fn new(id: NodeId, name: &str, pod_range: Ipv4Net, clock: &Arc<SimClock>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            pod_range,
            disk: Memory::new(),
            runtime: runtime(name, pod_range, clock),
            behaviours: BTreeMap::new(),
            incarnation: 0,
            running: None,
        }
    }

    /// Its node id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs its containers.
    #[must_use]
    pub fn runtime(&self) -> &Arc<Simulated> {
        &self.runtime
    }

    /// The containers that run on it, without those that only hold a pod's network.
    pub(super) async fn containers(&self) -> Vec<Container> {
        let mut containers = self.runtime.list().await.expect("a runtime that answers");
        containers.retain(|container| {
            matches!((&container.role, &container.state), (Role::Container { .. }, State::Running { .. }))
        });
        containers
    }

    /// Whether its daemon runs.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The parts of its daemon that answer.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.running().node.services
    }

    /// Its store.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.running().store
    }

    /// The newest state it knows.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.running().node.snapshots.borrow())
    }

    /// How many members vote, as it knows.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.store().status().borrow().members.iter().filter(|member| member.voter).count()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a host that is on")
    }

    /// Sets what containers of an image do from their next start on, and whether those that run are well.
    pub(super) fn behave(&mut self, image: &str, behaviour: &Behaviour) {
        self.runtime.behave(image, behaviour.clone());
        self.behaviours.insert(image.to_owned(), behaviour.clone());
    }

    pub(super) async fn start(&mut self, world: &World) {
        let World { settings, network, clock, random, checker } = world;
        self.incarnation += 1;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let chance: Arc<SimRandom> = Arc::new(SimRandom::new(random.number()));
        let links =
            Arc::new(SimLinks { own: self.id, network: Arc::clone(network), tasks: tasks.clone(), off: stop.clone() });
        let store = Store::open(
            Config::new(settings.cluster_id, self.id, Timing::SIMULATED),
            Storage::Memory(self.disk.clone()),
            Arc::new(RaftNetwork::new(Arc::clone(&links) as _)),
            Arc::clone(&chance) as _,
            tasks.clone(),
            stop.clone(),
        )
        .await
        .expect("a store that opens");
        let number = self.pod_range.network().octets()[2];
        let parts = Parts {
            own: Own {
                node: self.id,
                name: self.name.clone(),
                incarnation: self.incarnation,
                addresses: vec![([10, 99, 0, number], 7443).into()],
            },
            settings: settings.clone(),
            vault: Vault::new(ClusterKey::from_bytes([7; 32]), Arc::clone(&chance) as _),
            store: store.clone(),
            links,
            runtime: Arc::new(Arc::clone(&self.runtime)),
            simulated: true,
            names: None,
            carries: false,
            decisions: quorate_control::Settings::default(),
            clock: Arc::clone(clock) as _,
            random: chance,
        };
        let node = Node::start(parts, &tasks, &stop).expect("a node that starts");
        tasks.spawn(Arc::clone(checker).watch(self.name.clone(), node.snapshots.clone()));
        network.attach(self.id, node.services.clone(), tasks.clone(), stop.clone());
        self.running = Some(Running { node, store, tasks, stop });
    }

    /// Stops the daemon. Containers go on.
    pub(super) async fn stop(&mut self) {
        if let Some(Running { node, store, tasks, stop }) = self.running.take() {
            stop.cancel();
            drop((node, store));
            tasks.close();
            tasks.wait().await;
        }
    }

    /// Cuts the power: containers are gone, and what the disk had not synced.
    pub(super) async fn kill(&mut self, clock: &Arc<SimClock>) {
        let survives = self.disk.crash();
        self.stop().await;
        self.disk = survives;
        self.runtime = runtime(&self.name, self.pod_range, clock);
        for (image, behaviour) in &self.behaviours {
            self.runtime.behave(image, behaviour.clone());
        }
    }
}

fn runtime(name: &str, pod_range: Ipv4Net, clock: &Arc<SimClock>) -> Arc<Simulated> {
    let config = RuntimeConfig { node: name.to_owned(), pod_range, cpus: CPUS, memory: MEMORY };
    Arc::new(Simulated::new(config, Arc::clone(clock) as _))
}
