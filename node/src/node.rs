//! A node: its parts, introduced to each other. The daemon gives it the real world, the simulator another.
//!
//! Invariant: nothing runs pods before this node's snapshot holds its own node object, so that an empty store is never taken for an
//! order to stop everything.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use quorate_agent::{Agent, Reporter, Runtime, Withdrawal};
use quorate_api::{Api, Caller, Settings as ApiSettings};
use quorate_dns::{Names, Settings as NameSettings};
use quorate_proto::{
    ids::NodeId,
    kinds::NODES,
    overview::Standing,
    refusal::chain,
    snapshot::Snapshot,
    txn::Revision,
    world::{Clock, Random},
};
use quorate_raft::Store;
use quorate_traffic::Traffic;
use thiserror::Error;
use tokio::sync::{OnceCell, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bound,
    cluster::Membership,
    derived::Derived,
    desired::Agreed,
    heard::Heard,
    heartbeat,
    kept::Kept,
    leading::Leading,
    links::Links,
    loops::{Nudge, Snapshots},
    replica::{self, Publisher},
    reporter::{self, ApiReporter},
    secrets::Vault,
    serve::Services,
    settings::ClusterSettings,
    standing,
    voters::Planner,
    withdrawal::{Asking, Routed},
};

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Counts its starts.
    pub incarnation: u64,
    /// Where it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
}

/// What a node is made of.
pub struct Parts {
    /// Who it is.
    pub own: Own,
    /// What the cluster agreed on.
    pub settings: ClusterSettings,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// The agreed state.
    pub store: Store,
    /// The way to other nodes.
    pub links: Arc<dyn Links>,
    /// What runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Whether that is only simulated.
    pub simulated: bool,
    /// What answers names, and how; a simulated cluster in one process has none.
    pub names: Option<(Names, Arc<NameSettings>)>,
    /// Whether connections are carried: not to simulated pods.
    pub carries: bool,
    /// The bounds of decisions.
    pub decisions: quorate_control::Settings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids, names, secrets.
    pub random: Arc<dyn Random>,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// What the store holds cannot be used.
    #[error("the store of this node cannot be used")]
    Replica(#[from] replica::ReplicaError),
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// Serves the streams that others open.
    pub services: Services,
    /// This node's newest snapshots.
    pub snapshots: Snapshots,
    /// What gates joins.
    pub agreed: Agreed,
    /// What this node is to its cluster.
    pub standing: watch::Receiver<Standing>,
    /// Is told whether all peers that answer refuse this node, as one that is no member.
    pub refused: watch::Sender<bool>,
}

impl Node {
    /// Builds the parts and introduces them. They stop when `shutdown` is cancelled; `tasks` then run out.
    ///
    /// # Errors
    /// If what the store holds cannot be used.
    pub fn start(parts: Parts, tasks: &TaskTracker, shutdown: &CancellationToken) -> Result<Self, StartError> {
        let Parts { own, settings, vault, store, links, runtime, .. } = &parts;
        let first = replica::load(store)?;
        let (reaching, reached) = watch::channel(first.revision());
        let (sender, snapshots) = watch::channel(Arc::new(first));
        let publisher = Publisher { snapshots: sender, reached: reaching };
        let (following, stopping) = (store.clone(), shutdown.clone());
        tasks.spawn(async move {
            if let Err(error) = replica::follow(following, publisher, stopping.clone()).await {
                // The watches behind it end, and with them everything that decides on what it showed.
                tracing::error!(error = %chain(&error), "this node cannot go on");
                stopping.cancel();
            }
        });

        let (sender, standing) = watch::channel(Standing::Member);
        let (refused, refusals) = watch::channel(false);
        tasks.spawn(standing::keep(own.node, snapshots.clone(), refusals, sender, shutdown.clone()));
        let (clock, random) = (Arc::clone(&parts.clock), Arc::clone(&parts.random));
        let planner = Planner::new(store.clone(), snapshots.clone(), clock, random);

        let returned = Nudge::new();
        let heard = Arc::new(Heard::new(returned.clone()));
        let agreed = Agreed::new(store.clone(), snapshots.clone(), reached);
        let agent = Arc::new(OnceCell::new());
        let membership = Membership {
            cluster: settings.cluster_id,
            own: own.node,
            name: own.name.clone(),
            addresses: own.addresses.clone(),
            simulated: parts.simulated,
            agreed: agreed.clone(),
            store: store.clone(),
            snapshots: snapshots.clone(),
            heard: Arc::clone(&heard),
            links: Arc::clone(links),
            vault: vault.clone(),
            planner: planner.clone(),
            standing: standing.clone(),
            agent: Arc::clone(&agent),
            clock: Arc::clone(&parts.clock),
            random: Arc::clone(&parts.random),
        };
        let api = Api::new(
            Arc::new(agreed.clone()),
            Arc::new(membership),
            Arc::new(Kept::new(store.clone())),
            Arc::clone(&parts.clock),
            Arc::clone(&parts.random),
            ApiSettings {
                cluster: settings.cluster_id,
                service_range: (settings.service_range.network(), settings.service_range.prefix_len()),
            },
        );
        let reporter: Arc<dyn Reporter> = Arc::new(ApiReporter::new(
            api.clone(),
            Caller::Node { id: own.node, name: Some(own.name.clone()) },
            Arc::clone(&parts.random),
        ));

        let leading = Leading {
            store: store.clone(),
            agreed: agreed.clone(),
            snapshots: snapshots.clone(),
            heard: Arc::clone(&heard),
            returned,
            planner,
            settings: parts.decisions,
            clock: Arc::clone(&parts.clock),
            random: Arc::clone(&parts.random),
        };
        tasks.spawn(leading.keep(shutdown.clone()));

        let traffic = parts.carries.then(|| parts.traffic(&snapshots, tasks, shutdown));
        let (route, revision) = watch::channel(Revision(0));
        let routed = Routed { revision, traffic: traffic.clone() };
        let services = Services {
            api,
            store: store.clone(),
            traffic: traffic.clone(),
            snapshots: snapshots.clone(),
            routed: routed.clone(),
            heard: Arc::clone(&heard),
            clock: Arc::clone(&parts.clock),
        };

        let (clock, name) = (Arc::clone(&parts.clock), own.name.clone());
        let hear = move || heard.hear(&name, clock.now());
        let beats =
            heartbeat::keep(store.clone(), Arc::clone(links), own.node, own.incarnation, hear, shutdown.clone());
        tasks.spawn(beats);

        match parts.names.clone() {
            Some((names, settings)) => {
                let derived = Derived { names, settings, traffic, routed: route };
                let known = known(own.name.clone(), snapshots.clone());
                tasks.spawn(derived.keep(snapshots.clone(), known, shutdown.clone()));
            }
            // A node without names and routes is as far as it has heard.
            None => drop(tasks.spawn(follow(snapshots.clone(), route, shutdown.clone()))),
        }
        let (asking, withdrawals) = Asking::new(own.node, routed, Arc::clone(links), snapshots.clone());
        tasks.spawn(asking.run(shutdown.clone()));

        let (sender, shown) = watch::channel(Arc::clone(&snapshots.borrow()));
        tasks.spawn(bound::keep(own.name.clone(), snapshots.clone(), standing.clone(), sender, shutdown.clone()));
        let (runtime, withdrawal) = (Arc::clone(runtime), Arc::new(withdrawals));
        let running = Running { runtime, reporter, withdrawal, agent, shown, tasks: tasks.clone() };
        tasks.spawn(running.pods(parts, snapshots.clone(), shutdown.clone()));
        Ok(Self { services, snapshots, agreed, standing, refused })
    }
}

impl Parts {
    fn traffic(&self, snapshots: &Snapshots, tasks: &TaskTracker, shutdown: &CancellationToken) -> Traffic {
        let config = quorate_traffic::Config {
            node: self.own.name.clone(),
            service_range: self.settings.service_range,
            reserved: vec![std::net::SocketAddrV4::new(self.settings.dns_address(), 53)],
            limits: quorate_traffic::Limits::default(),
        };
        let carrier = crate::carrier::LinkCarrier::new(Arc::clone(&self.links), snapshots.clone());
        let traffic = Traffic::start(config, Arc::new(carrier), Arc::clone(&self.random), tasks, shutdown);
        traffic.publish_addresses(self.own.addresses.iter().filter_map(ipv4).collect());
        traffic
    }

    fn agent_config(&self, cpus: usize) -> quorate_agent::Config {
        quorate_agent::Config {
            cluster: self.settings.cluster_id,
            node: self.own.name.clone(),
            host_address: self.own.addresses.iter().find_map(ipv4).unwrap_or(Ipv4Addr::LOCALHOST),
            dns: self.settings.dns_address(),
            zone: self.settings.zone.clone(),
            drain: quorate_agent::Config::DRAIN,
            parallel_starts: quorate_agent::Config::parallel_starts(cpus),
        }
    }
}

/// What runs the pods of this node.
struct Running {
    runtime: Arc<dyn Runtime>,
    reporter: Arc<dyn Reporter>,
    withdrawal: Arc<dyn Withdrawal>,
    agent: Arc<OnceCell<Agent>>,
    /// What the agent is shown of the agreed state.
    shown: Snapshots,
    tasks: TaskTracker,
}

impl Running {
    /// Waits until this node is known, then runs its pods and tells how it is.
    async fn pods(self, parts: Parts, snapshots: Snapshots, shutdown: CancellationToken) {
        let known = known(parts.own.name.clone(), snapshots.clone());
        if shutdown.run_until_cancelled(known).await != Some(true) {
            return;
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let for_agent = quorate_agent::Parts {
            config: parts.agent_config(cpus),
            runtime: self.runtime,
            snapshots: self.shown,
            reporter: Arc::clone(&self.reporter),
            withdrawal: self.withdrawal,
            clock: Arc::clone(&parts.clock),
            random: Arc::clone(&parts.random),
        };
        let agent = Agent::start(for_agent, &self.tasks, &shutdown);
        let agent = self.agent.get_or_init(async || agent).await;
        reporter::keep_own_status(&parts.own, snapshots, agent, &*self.reporter, &*parts.clock, &shutdown).await;
    }
}

/// Tells the revision of every newer snapshot.
async fn follow(mut snapshots: Snapshots, revision: watch::Sender<Revision>, shutdown: CancellationToken) {
    loop {
        revision.send_replace(snapshots.borrow_and_update().revision());
        if !matches!(shutdown.run_until_cancelled(snapshots.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Waits until the snapshots hold this node's object; `false` if they end before.
async fn known(name: String, mut snapshots: Snapshots) -> bool {
    let has_own = |snapshot: &Arc<Snapshot>| snapshot.find(&NODES, None, &name).is_some();
    snapshots.wait_for(has_own).await.is_ok()
}

const fn ipv4(address: &SocketAddr) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
