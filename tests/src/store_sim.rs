//! The store's own simulation: several stores, each on a host with a clock and a disk of its own, in one thread, from one seed.
//!
//! Concurrent clients write, read and watch; faults of network, disks, clocks, processes and membership strike at any time. Then all is
//! mended, and what everybody was told is checked against what was decided.
//!
//! ```text
//! tick: faults strike ─► messages arrive ─► clients and watchers ask ─► every host runs for a tick ─► every status is looked at
//! ```
//!
//! Invariant: one seed is one run, whatever the process: hosts run one after the other, and all chance comes from the seed.

#![expect(clippy::expect_used, reason = "a simulation that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_proto::{ids::NodeId, txn::Revision, world::Random as _};
use quorate_raft::{
    LogLimits, Urgency,
    voters::{Policy, Registered, plan},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use self::{
    client::{Client, Recorder},
    history::{Freshness, Operation, What, Written},
    host::Host,
    observe::Observed,
    trouble::Troubles,
    watcher::{Audit, Watcher},
    wire::{Body, Message, Wire},
};
use crate::sim::world::SimRandom;

pub mod check;
mod client;
pub mod history;
mod host;
mod observe;
mod trouble;
mod watcher;
mod wire;

/// Milliseconds of a tick.
const TICK: u64 = 5;
/// For how many ticks faults strike: thirty seconds.
const STRIKE: u64 = 6_000;
/// Within how many ticks after all is mended the stores must agree and serve: fifteen seconds.
const HEALED: u64 = 3_000;
/// How many clients there are.
const CLIENTS: usize = 5;
/// How often the voters are planned, in ticks.
const PLAN: u64 = 60;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was wrong, in words; empty if nothing was.
    pub wrong: Vec<String>,
    /// What happened that makes the run worth something.
    pub happened: BTreeSet<&'static str>,
    /// A number that two runs have in common if all messages and all states in them are the same, at the same times.
    pub trace: u64,
    /// How many operations were checked.
    pub operations: usize,
}

/// All hosts, and what goes on between them.
struct World {
    random: StdRng,
    seeds: SimRandom,
    wire: Arc<Wire>,
    hosts: BTreeMap<NodeId, Host>,
    /// The nodes that are to be members.
    registered: BTreeSet<NodeId>,
    /// Whether a step of the planner is under way.
    planning: Arc<AtomicBool>,
    recorder: Recorder,
    audit: Arc<Mutex<Audit>>,
    observed: Observed,
    happened: BTreeSet<&'static str>,
    wrong: Vec<String>,
    limits: LogLimits,
    nodes: u64,
    /// Nodes whose disk was lost.
    lost: BTreeSet<NodeId>,
}

/// Runs the stores from a seed.
///
/// # Panics
/// If the simulation itself cannot go on.
#[must_use]
pub fn run(seed: u64) -> Report {
    crate::seeds::log();
    let mut world = World::new(seed);
    world.found();
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let mut watchers = vec![Watcher::new(Revision(0), &world.recorder), Watcher::new(Revision(25), &world.recorder)];
    let mut troubles = Troubles::new(&mut world.random);
    let end = world.now() + STRIKE;
    while world.now() < end && world.wrong.is_empty() && world.observed.wrong.is_empty() {
        troubles.step(&mut world);
        world.ask(&mut clients, &mut watchers, true);
        world.tick();
    }
    troubles.end(&mut world);
    world.heal(&mut clients, &mut watchers);
    if watchers.iter().any(|watcher| watcher.taken_up > 3) {
        world.happened.insert("a watch went on on other nodes");
    }
    world.report()
}

impl World {
    fn new(seed: u64) -> Self {
        let seeds = SimRandom::new(seed);
        let mut random = StdRng::seed_from_u64(seeds.number());
        let limits = match random.random_range(0..3) {
            0 => LogLimits { bytes: u64::MAX, entries: 30, keep: 3 },
            1 => LogLimits { bytes: 20_000, entries: 400, keep: 40 },
            _ => LogLimits::default(),
        };
        Self {
            wire: Arc::new(Wire::new(seeds.number())),
            random,
            seeds,
            hosts: BTreeMap::new(),
            registered: BTreeSet::new(),
            planning: Arc::default(),
            recorder: Recorder { history: Arc::default(), tick: Arc::new(AtomicU64::new(1)) },
            audit: Arc::default(),
            observed: Observed::default(),
            happened: BTreeSet::new(),
            wrong: Vec::new(),
            limits,
            nodes: 0,
            lost: BTreeSet::new(),
        }
    }

    fn now(&self) -> u64 {
        self.recorder.now()
    }

    /// Something happens that is worth something, and of which the log tells.
    fn note(&mut self, what: &'static str, node: NodeId) {
        tracing::info!(tick = self.now(), %node, "{what}");
        self.happened.insert(what);
    }

    /// A new host joins: its node is to be a member.
    fn add(&mut self) -> NodeId {
        self.nodes += 1;
        let node = NodeId(u128::from(self.nodes));
        let drift = self.random.random_range(-100..100);
        self.hosts.insert(node, Host::new(node, drift, self.limits));
        self.registered.insert(node);
        self.start(node);
        node
    }

    /// Switches a host on.
    fn start(&mut self, node: NodeId) {
        let seed = self.seeds.number();
        let host = self.hosts.get_mut(&node).expect("a host");
        if host.running.is_some() {
            return;
        }
        match host.start(&self.wire, seed) {
            Ok(()) => {
                if let Some(running) = &host.running {
                    watcher::audit(host, running, &self.audit);
                }
            }
            Err(error) => self.wrong.push(format!("tick {}: {node} does not start: {error}", self.recorder.now())),
        }
    }

    /// Cuts a host's power, and tells the others that it is gone.
    fn kill(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).expect("a host");
        let unsynced = host.disk.unsynced();
        if host.running.is_some() && unsynced > 0 {
            self.happened.insert("unsynced writes were lost");
        }
        host.kill(self.random.random_range(0..=unsynced));
        for other in self.hosts.values().filter(|other| other.id != node) {
            if let Some(running) = &other.running {
                running.deliver(Message { from: node, to: other.id, body: Body::Broken });
            }
        }
    }

    /// The cluster begins with one node; the others join.
    fn found(&mut self) {
        let first = self.add();
        let running = self.hosts[&first].running.as_ref().expect("a host that starts");
        let store = running.store.clone();
        running.tasks.spawn_on(async move { drop(store.initialize().await) }, running.runtime.handle());
        let count = [3, 3, 3, 4, 5, 5][self.random.random_range(0..6)];
        for _ in 1..count {
            self.add();
        }
        let voters = if count % 2 == 0 { count - 1 } else { count };
        for _ in 0..HEALED {
            self.tick();
            let status = |host: &Host| host.running.as_ref().map(|running| running.store.status().borrow().clone());
            let voting = |host: &Host| {
                status(host).is_some_and(|status| status.members.iter().filter(|member| member.voter).count() == voters)
            };
            if self.hosts.values().all(voting) {
                return;
            }
        }
        self.wrong.push("the cluster never came up".to_owned());
    }

    /// Lets clients and watchers go on.
    fn ask(&mut self, clients: &mut [Client], watchers: &mut [Watcher], more: bool) {
        let hosts: Vec<&Host> =
            self.hosts.values().filter(|host| host.running.is_some() && self.registered.contains(&host.id)).collect();
        for client in clients.iter_mut().filter(|client| more || client.waits()) {
            if client.step(if more { &hosts } else { &[] }, &self.recorder, &mut self.random) {
                self.happened.insert("a request was tried again");
            }
        }
        for watcher in watchers {
            watcher.step(&hosts, &self.recorder, &mut self.random);
        }
    }

    /// Everything that happens within a tick.
    fn tick(&mut self) {
        let now = self.recorder.tick.fetch_add(1, Ordering::Relaxed) + 1;
        for message in self.wire.due(now * TICK * 1000) {
            self.deliver(now, message);
        }
        if now.is_multiple_of(PLAN) {
            self.plan();
        }
        for host in self.hosts.values_mut() {
            host.run(TICK);
            let Some(running) = host.running.as_ref().filter(|_| !host.is_frozen()) else { continue };
            let status = running.store.status().borrow().clone();
            self.observed.look(now, host.id, host.incarnation, &status);
        }
    }

    fn deliver(&mut self, now: u64, message: Message) {
        let Message { from, to, body } = &message;
        let bytes = match body {
            Body::Request { bytes, .. } | Body::Answer { bytes, .. } | Body::Frame { bytes, .. } => &bytes[..],
            _ => &[],
        };
        (now, from, to, bytes).hash(&mut self.observed.trace);
        if let Body::Request { urgency: Urgency::Bulk, .. } = body {
            self.happened.insert("a Raft snapshot was sent");
        }
        match self.hosts.get(to).and_then(|host| host.running.as_ref()) {
            Some(running) => running.deliver(message),
            None => {
                if let Some(running) = self.hosts.get(from).and_then(|host| host.running.as_ref()) {
                    running.deliver(Message { from: *to, to: *from, body: Body::Broken });
                }
            }
        }
    }

    /// Has the leader take the planner's next step.
    fn plan(&mut self) {
        let policy = Policy { max_voters: 5, stable: Duration::from_millis(500), silent: Duration::from_secs(4) };
        let registered = Registered { may_vote: true, zone: String::new() };
        let registered: BTreeMap<_, _> = self.registered.iter().map(|node| (*node, registered.clone())).collect();
        for host in self.hosts.values().filter(|host| host.acts()) {
            let Some(running) = &host.running else { continue };
            // Outside of it, time would be the machine's.
            let inside = running.runtime.enter();
            let Some(view) = running.store.view(registered.clone(), policy) else { continue };
            drop(inside);
            let Some((step, _)) = plan(&view).step else { continue };
            if self.planning.swap(true, Ordering::Relaxed) {
                return;
            }
            self.happened.insert("the voters were changed");
            let (store, planning) = (running.store.clone(), Ended(Arc::clone(&self.planning)));
            let take = async move {
                // A refused step is planned anew.
                drop(store.step(&view, step).await);
                drop(planning);
            };
            running.tasks.spawn_on(take, running.runtime.handle());
        }
    }

    /// The node that leads, if one says so.
    fn leader(&self) -> Option<NodeId> {
        let leads = |host: &&Host| host.running.as_ref().is_some_and(|running| running.store.status().borrow().leading);
        self.hosts.values().filter(|host| host.acts()).find(leads).map(|host| host.id)
    }

    /// All is mended: the stores must agree, and every one write and read.
    fn heal(&mut self, clients: &mut [Client], watchers: &mut [Watcher]) {
        // Nodes that are to leave go on until they have left: they may vote until then.
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            if !self.lost.contains(&node) {
                self.start(node);
            }
        }
        let mended = self.now();
        while !self.agreed() {
            if self.now() > mended + HEALED {
                let account = self.account();
                self.wrong.push(format!("the stores do not agree after all was mended:\n{account}"));
                return;
            }
            self.ask(clients, watchers, false);
            self.tick();
        }
        self.serve();
        for _ in 0..HEALED {
            if clients.iter().all(|client| !client.waits()) && self.agreed() && self.watched() {
                return;
            }
            self.ask(clients, watchers, false);
            self.tick();
        }
    }

    /// Every node writes and reads.
    fn serve(&mut self) {
        let nodes: Vec<NodeId> = self.registered.iter().copied().collect();
        for round in 0..10_u64 {
            for write in [true, false] {
                let node = nodes[usize::try_from(round).unwrap_or_default() % nodes.len()];
                let what = if write { client::last_write(round) } else { client::last_read() };
                let host = &self.hosts[&node];
                let Some(running) = &host.running else { continue };
                let operation = Operation {
                    client: CLIENTS,
                    node,
                    incarnation: host.incarnation,
                    called: self.now(),
                    returned: None,
                    what,
                };
                let (number, ended) = client::ask(operation, running, &self.recorder);
                for _ in 0..1000 {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    self.tick();
                }
                let served = match self.recorder.note(|history| history.operations[number].what.clone()) {
                    What::Write { answer, .. } => matches!(answer, Written::Decided(_)),
                    What::Read { page, .. } => page.is_some(),
                };
                if !served {
                    let account = self.account();
                    self.wrong.push(format!("{node} does not serve after all was mended:\n{account}"));
                    return;
                }
            }
        }
    }

    /// Whether one leads, and all that are to be members are, at the same revision.
    fn agreed(&self) -> bool {
        let members = self.hosts.values().filter(|host| self.registered.contains(&host.id));
        let mut statuses =
            members.map(|host| host.running.as_ref().map(|running| running.store.status().borrow().clone()));
        let Some(leader) = self.leader().and_then(|leader| self.hosts[&leader].running.as_ref()) else { return false };
        let leader = leader.store.status().borrow().clone();
        let belongs: BTreeSet<NodeId> = leader.members.iter().map(|member| member.id).collect();
        let same = statuses.all(|status| status.is_some_and(|status| status.revision == leader.revision));
        same && !leader.changing && belongs == self.registered
    }

    /// Whether a member may be lost for good: all that are to be members are, and act.
    fn is_whole(&self) -> bool {
        self.agreed() && self.hosts.values().all(|host| host.acts() || !self.registered.contains(&host.id))
    }

    /// Whether every watch has come as far as the store.
    fn watched(&self) -> bool {
        let last = self.audit.lock().unwrap_or_else(PoisonError::into_inner).ledger.keys().last().copied();
        self.recorder.note(|history| {
            history.watches.iter().all(|watched| {
                let come = watched.delivered.last().and_then(|changes| changes.first()).map(|change| change.revision);
                come == last || last <= Some(watched.from)
            })
        })
    }

    /// What each host says of itself: for whoever wonders why something is not so.
    fn account(&self) -> String {
        let say = |host: &Host| match &host.running {
            Some(running) => format!("{}: {:?}", host.id, *running.store.status().borrow()),
            None => format!("{}: off", host.id),
        };
        self.hosts.values().map(say).collect::<Vec<_>>().join("\n")
    }

    fn report(mut self) -> Report {
        let mut wrong = std::mem::take(&mut self.wrong);
        wrong.append(&mut self.observed.wrong);
        if self.observed.elections > 1 {
            self.happened.insert("another node came to lead");
        }
        let faults = self.hosts.values().filter_map(|host| {
            let fault = host.running.as_ref()?.store.status().borrow().fault.clone()?;
            Some(format!("{} has failed: {fault}", host.id))
        });
        wrong.extend(faults);
        // Nothing may happen any more while it is looked at.
        self.hosts.clear();
        let history = self.recorder.note(|history| history.clone());
        let audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        for operation in &history.operations {
            tracing::debug!(?operation);
        }
        for (revision, changes) in &audit.ledger {
            tracing::debug!(%revision, ?changes);
        }
        wrong.extend(audit.wrong.iter().cloned());
        wrong.extend(check::revisions(&history.operations, &audit.ledger));
        let end = audit.ledger.keys().last().copied().unwrap_or_default();
        wrong.extend(check::watches(&history.watches, &audit.ledger, end));
        self.happened.extend(happened(&history.operations));
        history.operations.len().hash(&mut self.observed.trace);
        Report {
            wrong,
            happened: self.happened,
            trace: self.observed.trace.finish(),
            operations: history.operations.len(),
        }
    }
}

/// What the answers show to have happened.
fn happened(operations: &[Operation]) -> impl Iterator<Item = &'static str> {
    operations.iter().filter_map(|operation| match &operation.what {
        What::Write { answer: Written::Decided(quorate_proto::txn::Outcome::Stale(_)), .. } => {
            Some("a transaction was stale")
        }
        What::Write { answer: Written::Decided(_), .. } => Some("a write was acknowledged"),
        What::Write { answer: Written::NotDone, .. } => Some("a write was refused"),
        What::Write { answer: Written::Unknown, .. } if operation.returned.is_some() => {
            Some("the outcome of a write was not known")
        }
        What::Read { freshness: Freshness::Linearizable, page: None, .. } => Some("a linearizable read was refused"),
        _ => None,
    })
}

/// Lowers a flag at its end, however that comes.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
