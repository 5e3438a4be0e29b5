//! The agent's loop: brings this node's containers to what the newest snapshot asks for.
//!
//! It wakes for a new snapshot, for a change in the runtime, for what its own actions came to, for probes and back-offs; else it sleeps.
//! It needs nobody but its runtime: a node that is cut off goes on from the snapshot it has.
//!
//! Invariant: nothing is stopped for want of knowledge: without a loaded snapshot, or a listing that succeeded, nothing is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use quorate_proto::{
    kinds::{NODES, PODS},
    snapshot::Snapshot,
    txn::Revision,
    world::{Clock, Instant, Random, Timestamp},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    act::{Hands, Message},
    config::Config,
    event::Event,
    kept::{Kept, RETRY},
    memory::{self, Waiting},
    plan::{self, PodPlan},
    pod::BoundPod,
    report::Outbox,
    runtime::{Container, Info, PodRef, Role, Runtime, RuntimeError},
    status,
};

/// A runtime that has answered before is given so long before the node is said to be unwell: a busy machine answers late now and then.
const TROUBLE: Duration = Duration::from_secs(8);

/// How often everything is looked at although nothing happened.
const RESYNC: Duration = Duration::from_secs(60);

/// The loop.
pub(crate) struct Keeper {
    pub(crate) config: Config,
    pub(crate) hands: Hands,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) health: watch::Sender<Option<String>>,
    pub(crate) info: watch::Sender<Option<Info>>,
    /// By uid.
    pub(crate) pods: BTreeMap<String, Kept>,
    /// What the runtime showed when it was last asked; `None` before it answered.
    pub(crate) seen: Option<Vec<Container>>,
    /// Something changed since.
    pub(crate) stale: bool,
}

impl Keeper {
    /// Runs until shutdown.
    pub(crate) async fn run(
        mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        mut inbox: mpsc::Receiver<Message>,
        changed: Arc<Notify>,
    ) {
        let shutdown = self.shutdown.clone();
        let mut wake_at = self.clock.now();
        let mut listed = wake_at;
        let mut failing: Option<Instant> = None;
        loop {
            let sleep = wake_at.since(self.clock.now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                update = snapshots.changed() => if update.is_err() { return },
                () = changed.notified() => self.stale = true,
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    self.take(message);
                    while let Ok(message) = inbox.try_recv() {
                        self.take(message);
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
            let now = self.clock.now();
            self.stale |= now.since(listed) >= RESYNC;
            if self.stale || self.seen.is_none() {
                let refreshed = tokio::select! {
                    () = shutdown.cancelled() => return,
                    refreshed = self.refresh() => refreshed,
                };
                if let Err(error) = refreshed {
                    tracing::warn!(%error, "the runtime does not answer; what runs goes on running");
                    let since = *failing.get_or_insert(now);
                    if self.seen.is_none() || self.clock.now().since(since) >= TROUBLE {
                        self.health.send_replace(Some(error.to_string()));
                    }
                    wake_at = self.clock.now() + RETRY;
                    continue;
                }
                self.health.send_if_modified(|health| health.take().is_some());
                listed = self.clock.now();
                failing = None;
                self.stale = false;
            }
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let next = self.pass(&snapshot);
            wake_at = next.map_or(listed + RESYNC, |next| next.min(listed + RESYNC));
        }
    }

    /// Asks the runtime what there is.
    async fn refresh(&mut self) -> Result<(), RuntimeError> {
        if self.info.borrow().is_none() {
            let info = self.hands.runtime.info().await?;
            self.hands.runtime.prepare().await?;
            self.info.send_replace(Some(info));
        }
        let listed = self.hands.runtime.list().await?;
        if self.seen.is_none() {
            self.orphan_volumes(&listed).await?;
        }
        self.seen = Some(listed);
        Ok(())
    }

    /// Volumes whose pod has no container left, and may not be known any more, are found once, at the start.
    async fn orphan_volumes(&mut self, listed: &[Container]) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        for uid in self.hands.runtime.mounted().await? {
            if !listed.iter().any(|container| container.pod.uid == uid) {
                let reference = PodRef { namespace: String::new(), name: String::new(), uid: uid.clone() };
                self.pods.insert(uid, Kept::new(reference, now));
            }
        }
        Ok(())
    }

    /// Decides for every pod and begins what was decided. Returns when to decide again.
    fn pass(&mut self, snapshot: &Snapshot) -> Option<Instant> {
        let seen: Vec<Container> = match &self.seen {
            Some(seen) if snapshot.revision() > Revision(0) => {
                seen.iter().filter(|container| self.is_ours(container, snapshot)).cloned().collect()
            }
            _ => return None,
        };
        let (now, wall) = (self.clock.now(), self.clock.wall());
        self.read_pods(snapshot, now);
        let mut by_pod: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in &seen {
            by_pod.entry(&container.pod.uid).or_default().push(container);
            self.pods.entry(container.pod.uid.clone()).or_insert_with(|| Kept::new(container.pod.clone(), now));
        }
        let node_memory = self.info.borrow().as_ref().map_or(0, |info| info.memory);
        let mut wake_at = None;
        let uids: Vec<String> = self.pods.keys().cloned().collect();
        for uid in uids {
            let Some(mut kept) = self.pods.remove(&uid) else { continue };
            let seen = by_pod.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
            let plan = if let Some(bound) = kept.bound.clone() {
                kept.renew(snapshot);
                kept.memory.observe(&bound, seen, now, wall);
                if kept.leaves() {
                    let asked = self.hands.clone().withdraw(uid.clone(), bound.modified);
                    self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(asked));
                }
                let context = kept.context(&self.config, snapshot, now, node_memory);
                let plan = plan::pod(&bound, seen, &kept.memory, context);
                self.explain(&bound, seen, &mut kept, &plan, wall);
                plan
            } else {
                plan::orphan(seen, &kept.memory, kept.context(&self.config, snapshot, now, node_memory))
            };
            let probes = self.probe(&mut kept, seen, now);
            wake_at = [wake_at, plan.wake_at, probes].into_iter().flatten().min();
            let forget = plan.gone && kept.bound.is_none();
            self.begin(&mut kept, plan);
            if !forget {
                self.pods.insert(uid, kept);
            }
        }
        wake_at
    }

    /// Takes over the pods that the snapshot binds to this node.
    fn read_pods(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut bound_here = BTreeSet::new();
        for stored in snapshot.list(&PODS) {
            if stored.object.text(&["spec", "nodeName"]) != Some(&self.config.node) {
                continue;
            }
            let uid = stored.object.uid();
            bound_here.insert(uid.to_owned());
            let known = self.pods.get(uid).and_then(|kept| kept.bound.as_ref());
            if known.is_some_and(|bound| bound.modified == stored.modified) {
                continue;
            }
            if let Some(bound) = BoundPod::read(stored, &self.config.node) {
                let kept = self.pods.entry(uid.to_owned()).or_insert_with(|| Kept::new(bound.reference.clone(), now));
                kept.bound = Some(Arc::new(bound));
            }
        }
        for (uid, kept) in &mut self.pods {
            if !bound_here.contains(uid) {
                kept.bound = None;
            }
        }
        self.outbox.keep(|uid| bound_here.contains(uid));
    }

    /// Another node of the cluster may use the same engine; what a node left that is no member any more is ours to clear.
    fn is_ours(&self, container: &Container, snapshot: &Snapshot) -> bool {
        container.node == self.config.node || snapshot.find(&NODES, None, &container.node).is_none()
    }

    /// Tells the pod's status, and what it waits for.
    fn explain(&self, bound: &BoundPod, seen: &[&Container], kept: &mut Kept, plan: &PodPlan, wall: Timestamp) {
        if plan.gone {
            self.outbox.gone(bound);
            return;
        }
        // Once containers are removed, what they did can no longer be read off them.
        if bound.ended()
            || (bound.deleting()
                && !bound.containers().all(|(container, _)| memory::current(seen, &container.name).is_some()))
        {
            return;
        }
        let host = self.config.host_address.to_string();
        let scheme = self
            .info
            .borrow()
            .as_ref()
            .map_or_else(String::new, |info| info.version.split("://").next().unwrap_or_default().to_owned());
        let context =
            status::Context { memory: &kept.memory, waiting: &plan.waiting, host: &host, wall, scheme: &scheme };
        let status = status::of(bound, seen, context);
        kept.memory.status = Some(status.clone());
        self.outbox.status(bound, status);
        for (name, Waiting { reason, message }) in &plan.waiting {
            let event = match *reason {
                "CrashLoopBackOff" => {
                    let PodRef { namespace, name: pod, uid } = &bound.reference;
                    let message =
                        format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
                    Event::warning("BackOff", message)
                }
                "ImagePullBackOff" => Event::warning("BackOff", message.clone()),
                "CreateContainerConfigError" if message.starts_with("MountVolume") => {
                    Event::warning("FailedMount", message.clone())
                }
                "CreateContainerConfigError" => Event::warning("Failed", format!("Error: {message}")),
                _ => continue,
            };
            self.tell(kept, &event.of(&format!("spec.containers{{{name}}}")));
        }
    }

    fn tell(&self, kept: &mut Kept, event: &Event) {
        if kept.bound.is_some() && kept.budget.allows(event, self.clock.now()) {
            self.outbox.event(event.fact(&kept.reference, &self.config.node));
        }
    }

    /// Begins the probes that are due; returns when the next one is.
    fn probe(&self, kept: &mut Kept, seen: &[&Container], now: Instant) -> Option<Instant> {
        let bound = kept.bound.clone().filter(|bound| !bound.deleting() && !bound.ended())?;
        let host = self.config.host_address.to_string();
        let address: Ipv4Addr = plan::address(&bound, plan::holder(seen), &host).parse().ok()?;
        let mut wake_at = None;
        for container in seen.iter().filter(|container| plan::is_running(container)) {
            let Role::Container { name, .. } = &container.role else { continue };
            let Some(memory) = kept.memory.containers.get_mut(name) else { continue };
            let Some((_, health)) = memory.health.as_mut().filter(|(id, _)| *id == container.id) else { continue };
            let (due, next) = health.due(now);
            for purpose in due {
                if let Some(probe) = health.probe(purpose) {
                    let check = probe.begin();
                    let ids = (name.clone(), container.id.clone());
                    self.tasks.spawn(self.hands.clone().check(
                        bound.reference.uid.clone(),
                        ids,
                        address,
                        purpose,
                        check,
                    ));
                }
            }
            wake_at = [wake_at, next].into_iter().flatten().min();
        }
        wake_at
    }

    fn begin(&self, kept: &mut Kept, plan: PodPlan) {
        for action in plan.actions {
            if kept.busy.insert(action.slot().to_owned()) {
                tracing::debug!(pod = %kept.reference.name, namespace = %kept.reference.namespace, ?action, "begun");
                self.tasks.spawn(self.hands.clone().act(kept.reference.clone(), action));
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Happened { pod, event } => {
                if let Some(mut kept) = self.pods.remove(&pod.uid) {
                    self.tell(&mut kept, &event);
                    self.pods.insert(pod.uid, kept);
                }
            }
            Message::Withdrawn { uid } => {
                if let Some(kept) = self.pods.get_mut(&uid) {
                    kept.memory.withdrawn = true;
                }
            }
            Message::Acted { uid, slot, outcome } => {
                self.stale = true;
                let jitter = self.random.number();
                if let Some(kept) = self.pods.get_mut(&uid) {
                    kept.acted(&slot, outcome, now, jitter);
                }
            }
            Message::Checked { uid, name, id, purpose, answer } => {
                let Some(mut kept) = self.pods.remove(&uid) else { return };
                if let Some(event) = kept.checked(&name, &id, purpose, answer, now) {
                    self.tell(&mut kept, &event);
                }
                self.pods.insert(uid, kept);
            }
        }
    }
}

/// Follows the runtime's events, again after each break, and tells that something changed.
pub(crate) async fn follow(runtime: Arc<dyn Runtime>, changed: Arc<Notify>, shutdown: CancellationToken) {
    let watch = async {
        loop {
            if let Ok(mut events) = runtime.events().await {
                // Whatever happened before this stream began is found by listing.
                changed.notify_one();
                while let Some(Ok(())) = events.next().await {
                    changed.notify_one();
                }
            }
            // No longer after a long absence: until there is a stream, what ends by itself is found by `RESYNC` only.
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
    }
}
