//! A whole cluster in one thread, from one seed, in virtual time: real agreement, API, controllers and agents; simulated hosts, network
//! and containers.
//!
//! Every node is a [`quorate_node::node::Node`] as the daemon builds it; only what touches the world is another implementation of the
//! same seam: storage in memory, links in memory, the simulated runtime, a clock that jumps to the next deadline.
//!
//! Invariant: one seed is one run: whatever is drawn comes from it, and whatever waits waits in virtual time.

#![expect(clippy::expect_used, reason = "a simulation that cannot go on has failed")]

mod ask;
mod check;
mod coverage;
pub(crate) mod faults;
mod host;
pub mod invent;
mod manifest;
mod network;
mod promise;
mod settle;
mod show;
pub mod story;
pub(crate) mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    future::Future,
    sync::Arc,
    time::Duration,
};

use quorate_agent::runtime::simulated::Behaviour;
use quorate_node::{registration, settings::ClusterSettings};
use quorate_proto::{
    ids::{ClusterId, NodeId},
    kinds::{JOINTOKENS, NODES},
    object::Object,
    snapshot::Snapshot,
    txn::{Outcome, Txn},
    world::{Clock as _, Random as _},
};
use serde_json::{Value, json};
use tokio::{runtime::RngSeed, time::timeout};
use tokio_util::task::TaskTracker;

use self::{
    check::Checker,
    coverage::Coverage,
    host::Host,
    network::Network,
    promise::Acknowledged,
    world::{SimClock, SimRandom, World},
};

#[cfg(not(tokio_unstable))]
compile_error!(
    "simulated runs repeat only with `--cfg tokio_unstable`: a RUSTFLAGS variable overrides .cargo/config.toml"
);

/// How long a cluster may take to settle.
const PATIENCE: Duration = Duration::from_secs(180);
/// The id of the token with which simulated hosts join.
const TOKEN: &str = "sim";

/// A simulated cluster.
pub struct Sim {
    world: World,
    hosts: BTreeMap<String, Host>,
    indexes: show::Indexes,
    acknowledged: Acknowledged,
    coverage: Coverage,
    /// Whom requests go to, while it is on.
    via: Option<String>,
    /// What was asked and not yet answered.
    pending: Vec<ask::Pending>,
    tasks: TaskTracker,
}

/// Runs a script on a new simulated world.
///
/// # Panics
/// If the runtime cannot be built.
pub fn run<F: Future>(seed: u64, script: impl FnOnce(Sim) -> F) -> F::Output {
    crate::seeds::log();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime for one thread");
    runtime.block_on(async move { script(Sim::new(seed)).await })
}

impl Sim {
    fn new(seed: u64) -> Self {
        let random = Arc::new(SimRandom::new(seed));
        let clock = Arc::new(SimClock::start());
        let checker = Arc::new(Checker::new(&clock));
        let world = World {
            network: Arc::new(Network::new(random.number(), &checker)),
            settings: ClusterSettings {
                cluster_id: ClusterId(random.id()),
                service_range: "10.213.0.0/16".parse().expect("a range"),
                pod_range: "10.214.0.0/16".parse().expect("a range"),
                zone: "cluster.local".to_owned(),
            },
            clock,
            random,
            checker,
        };
        Self {
            world,
            hosts: BTreeMap::new(),
            indexes: show::Indexes::default(),
            acknowledged: Acknowledged::default(),
            coverage: Coverage::default(),
            via: None,
            pending: Vec::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Founds a cluster on `n1` and has `n2` and so on join it; returns when all are ready and vote as they should.
    ///
    /// # Panics
    /// If the cluster does not come up.
    pub async fn nodes(&mut self, count: usize) {
        let first = NodeId(self.world.random.id());
        let moment = registration::Moment { wall: self.world.clock.wall(), random: &*self.world.random };
        let founded =
            registration::found(&self.world.settings, &json!({}), first, "n1", &moment).expect("a first node");
        let mut host = Host::new(first, "n1", founded.pod_range, &self.world.clock);
        host.start(&self.world).await;
        host.store().initialize().await.expect("a new store");
        host.store().propose(self.world.random.request_id(), founded.txn).await.expect("the first objects");
        self.hosts.insert("n1".to_owned(), host);
        for index in 2..=count {
            self.join(&format!("n{index}")).await;
        }
        let voters = if count < 3 { 1 } else { count - (count + 1) % 2 };
        self.until("all nodes are ready and vote", |sim| {
            let snapshot = sim.snapshot();
            let ready = snapshot.list(&NODES).filter(|stored| stored.object.is_true("Ready")).count();
            let voting = sim.alive().map(|host| host.voters()).min().unwrap_or_default();
            ready == count && voting == voters.min(5)
        })
        .await;
    }

    /// A fault strikes a host that is on: it counts.
    fn note_fault(&self, name: &str, how: &str) {
        if self.host(name).is_on() {
            let leads = self.leader().as_deref() == Some(name);
            self.coverage.note(&format!("a {} was {how}", if leads { "leader" } else { "follower" }));
        }
    }

    /// What happened so far that makes a run worth something.
    #[must_use]
    pub fn coverage(&self) -> BTreeSet<String> {
        self.coverage.all()
    }

    async fn join(&mut self, name: &str) {
        let expires = "2028-01-01T00:00:00Z";
        let token = json!({"apiVersion": "quorate.dev/v1", "kind": "JoinToken", "metadata": {"name": TOKEN},
            "spec": {"usesLeft": 1, "expires": expires}});
        let token = Object::from_value(token).expect("a token");
        let key = JOINTOKENS.key(None, TOKEN).expect("a key");
        let store = self.any().store().clone();
        store
            .propose(self.world.random.request_id(), Txn::new().put(key, token.to_document()))
            .await
            .expect("a token that is stored");
        self.until("the token is known", |sim| {
            sim.snapshot()
                .find(&JOINTOKENS, None, TOKEN)
                .is_some_and(|token| token.object.at(&["spec", "usesLeft"]) == Some(&Value::from(1)))
        })
        .await;
        let node = NodeId(self.world.random.id());
        let candidate =
            registration::Candidate { node, wanted_name: name, token: TOKEN, request: name, addresses: &[] };
        let moment = registration::Moment { wall: self.world.clock.wall(), random: &*self.world.random };
        let snapshot = self.snapshot();
        let place = registration::register(&snapshot, &self.world.settings, &candidate, &moment).expect("a place");
        let outcome =
            store.propose(self.world.random.request_id(), place.txn).await.expect("a registration that is stored");
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        let mut host = Host::new(node, name, place.pod_range, &self.world.clock);
        host.start(&self.world).await;
        self.hosts.insert(name.to_owned(), host);
    }

    /// Cuts a host off from all others. It goes on by itself.
    pub fn cut(&self, name: &str) {
        self.note_fault(name, "cut off");
        self.world.network.change(|faults| faults.cut(self.host(name).id()));
    }

    /// Lets nothing in or out of a host, and nobody hear why, as if its processes were stopped for a while.
    pub fn freeze(&self, name: &str) {
        self.note_fault(name, "frozen");
        self.world.network.change(|faults| faults.freeze(self.host(name).id()));
    }

    /// What one host sends no longer reaches the other.
    pub fn block(&self, from: &str, to: &str) {
        self.note_fault(from, "not heard by another");
        let (from, to) = (self.host(from).id(), self.host(to).id());
        self.world.network.change(|faults| faults.block(from, to));
    }

    /// Two hosts no longer reach each other; others still reach both.
    pub fn part(&self, one: &str, other: &str) {
        self.note_fault(one, "parted from another");
        let (one, other) = (self.host(one).id(), self.host(other).id());
        self.world.network.change(|faults| {
            faults.block(one, other);
            faults.block(other, one);
        });
    }

    /// So many of a hundred packets are lost everywhere.
    pub fn lose(&self, percent: u32) {
        if percent > 0 {
            self.coverage.note("packets lost");
        }
        self.world.network.change(|faults| faults.lose(percent));
    }

    /// Ends what [`Sim::cut`], [`Sim::freeze`], [`Sim::block`] and [`Sim::part`] began.
    pub fn heal(&self, name: &str) {
        self.world.network.change(|faults| faults.heal(self.host(name).id()));
    }

    /// Cuts a host's power: daemon and containers are gone, and of its disk what was not synced.
    pub async fn kill(&mut self, name: &str) {
        self.note_fault(name, "killed");
        let host = self.hosts.get_mut(name).expect("a host of this name");
        self.world.network.remove(host.id());
        host.kill(&self.world.clock).await;
    }

    /// Restarts a host's daemon. Its containers go on.
    pub async fn restart(&mut self, name: &str) {
        self.note_fault(name, "restarted");
        let host = self.hosts.get_mut(name).expect("a host of this name");
        self.world.network.remove(host.id());
        host.stop().await;
        host.start(&self.world).await;
    }

    /// Switches a killed host on again; one that is on stays on.
    pub async fn start(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).expect("a host of this name");
        if !host.is_on() {
            host.start(&self.world).await;
        }
    }

    /// The name of the node that leads, as the majority sees it.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        let leading = self.reachable().find(|host| host.store().status().borrow().leading)?;
        Some(leading.name().to_owned())
    }

    /// The host of a name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).expect("a host of this name")
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// What was wrong so far: see [`Checker`].
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.world.checker.wrong()
    }

    /// A number that two runs have in common if all that happened in them is the same, and at the same times.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.world.checker.digest()
    }

    /// From now on so many pods of a deployment must be ready at every revision.
    pub fn never_below(&self, deployment: &str, ready: usize) {
        self.world.checker.never_below(deployment, ready);
    }

    /// Sets what containers of an image do from their next start on, wherever they run, and whether those that run are well.
    pub fn behave(&mut self, image: &str, behaviour: &Behaviour) {
        self.hosts.values_mut().for_each(|host| host.behave(image, behaviour));
    }

    /// The names of all hosts.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    /// Lets time pass until something is so.
    ///
    /// # Panics
    /// If it does not become so.
    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !so(self) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "it never came to be that {what}:\n{}", self.account());
    }

    /// The newest state, as the leader or else the most advanced node that is on has it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let newest = self.reachable().map(Host::snapshot).max_by_key(|snapshot| snapshot.revision());
        newest.unwrap_or_default()
    }

    /// All pods, by owner and age, with their nodes and how they are.
    pub fn pods(&mut self) -> String {
        let snapshot = self.snapshot();
        show::pods(&snapshot, &mut self.indexes)
    }

    /// The containers that really run, whatever the cluster believes.
    pub async fn containers(&mut self) -> String {
        let mut containers = Vec::new();
        for host in self.alive() {
            containers.extend(host.containers().await);
        }
        show::containers(containers, &self.indexes)
    }

    /// All services with the pods that get their connections.
    #[must_use]
    pub fn services(&self) -> String {
        show::services(&self.snapshot(), &self.indexes)
    }

    /// Pods whose status says why they are as they are.
    #[must_use]
    pub fn reasons(&self) -> String {
        show::reasons(&self.snapshot(), &self.indexes)
    }

    /// All nodes, and how they are.
    #[must_use]
    pub fn describe(&self) -> String {
        show::nodes(&self.snapshot())
    }

    /// All nodes, and what each host that is on has of the agreed state: for whoever wonders why something is not so.
    fn account(&self) -> String {
        let mut text = self.describe();
        for host in self.alive() {
            let (leading, voters) = (host.store().status().borrow().leading, host.voters());
            let revision = host.snapshot().revision();
            _ = writeln!(text, "{} at revision {revision}, sees {voters} voters, leads: {leading}", host.name());
        }
        text
    }

    fn alive(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().filter(|host| host.is_on())
    }

    fn reachable(&self) -> impl Iterator<Item = &Host> {
        self.alive().filter(|host| !self.world.network.is_cut(host.id()))
    }

    fn any(&self) -> &Host {
        self.reachable().next().or_else(|| self.alive().next()).expect("a host that is on")
    }
}
