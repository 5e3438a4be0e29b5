//! The agent: the loop that brings this node's containers to what the newest snapshot asks for, and the handle to it.
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

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use quorate_proto::{
    kinds::PODS,
    refusal::{Reason, Refusal},
    request,
    snapshot::Snapshot,
    txn::Revision,
    world::{Clock, Instant, Random, Timestamp},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    act::{Hands, Message, Outcome},
    config::Config,
    event::{Budget, Event},
    memory::{self, PodMemory, Trouble, Waiting},
    plan::{self, POD, PodPlan},
    pod::BoundPod,
    probe::{Purpose, Verdict},
    report::{Outbox, Reporter},
    runtime::{Container, Info, LogLines, PodRef, Role, Runtime, RuntimeError},
    status,
};

/// How often everything is looked at although nothing happened.
const RESYNC: Duration = Duration::from_secs(60);
/// How long to wait for a runtime that does not answer, before asking again.
const RETRY: Duration = Duration::from_secs(2);
/// Messages of actions and probes that wait for the loop.
const MESSAGES: usize = 1024;

/// A handle to the running agent. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    node: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Arc<dyn Clock>,
    health: watch::Receiver<Option<String>>,
    info: watch::Receiver<Option<Info>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl Agent {
    /// Starts the agent's tasks in `tasks`; they end when `shutdown` is cancelled. Containers go on running.
    #[expect(clippy::too_many_arguments, reason = "everything the agent has of the world, once")]
    #[must_use]
    pub fn start(
        config: Config,
        runtime: Arc<dyn Runtime>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        reporter: Arc<dyn Reporter>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (health, health_seen) = watch::channel(None);
        let (info, info_seen) = watch::channel(None);
        let (messages, inbox) = mpsc::channel(MESSAGES);
        let outbox = Arc::new(Outbox::default());
        let changed = Arc::new(Notify::new());
        let shared = Shared {
            runtime: Arc::clone(&runtime),
            node: config.node.clone(),
            snapshots: snapshots.clone(),
            clock: Arc::clone(&clock),
            health: health_seen,
            info: info_seen,
        };
        tasks.spawn(Arc::clone(&outbox).run(reporter, shutdown.clone()));
        tasks.spawn(follow(Arc::clone(&runtime), Arc::clone(&changed), shutdown.clone()));
        let hands = Hands::new(runtime, messages, config.parallel_starts);
        let keeper = Keeper {
            config,
            hands,
            clock,
            random,
            outbox,
            tasks: tasks.clone(),
            health,
            info,
            pods: BTreeMap::new(),
            seen: None,
            stale: true,
        };
        tasks.spawn(keeper.run(snapshots, inbox, changed, shutdown));
        Self { shared: Arc::new(shared) }
    }

    /// What is wrong with the runtime, in a sentence; `None` while all is well.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.shared.health.clone()
    }

    /// What the runtime is and what the machine has; `None` until it answered once.
    #[must_use]
    pub fn info(&self) -> watch::Receiver<Option<Info>> {
        self.shared.info.clone()
    }

    /// What a pod of this node wrote.
    ///
    /// # Errors
    /// If the pod is not on this node, the container is not one of its, or the runtime does not answer.
    pub async fn logs(&self, logs: &request::Logs) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        let what = format!("logs of pod {} were not read", logs.pod);
        let refuse = |reason, because: String| Refusal::new(reason, what.clone(), because);
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        let stored = snapshot.find(&PODS, Some(&logs.namespace), &logs.pod);
        let bound = stored
            .and_then(|stored| BoundPod::read(stored, &self.shared.node))
            .ok_or_else(|| refuse(Reason::NotFound, format!("pod {} is not on node {}", logs.pod, self.shared.node)))?;
        let names: Vec<&str> = bound.containers().map(|(container, _)| container.name.as_str()).collect();
        let name = match (&logs.container, bound.spec.containers.as_slice()) {
            (Some(name), _) => name.as_str(),
            (None, [only]) => only.name.as_str(),
            (None, _) => {
                return Err(refuse(Reason::BadRequest, "the pod has several containers".to_owned())
                    .hint(format!("name one of: {}", names.join(", "))));
            }
        };
        if !names.contains(&name) {
            return Err(refuse(Reason::NotFound, format!("the pod has no container `{name}`"))
                .hint(format!("name one of: {}", names.join(", "))));
        }
        let listed = self.shared.runtime.list().await.map_err(|error| error.refusal(what.clone()))?;
        let seen: Vec<&Container> =
            listed.iter().filter(|container| container.pod.uid == bound.reference.uid).collect();
        let found = if logs.previous { memory::previous(&seen, name) } else { memory::current(&seen, name) };
        let container = found.ok_or_else(|| {
            let which = if logs.previous { "no earlier container" } else { "no container yet" };
            refuse(Reason::BadRequest, format!("there is {which} of `{name}` in pod {}", logs.pod))
        })?;
        let since = logs.since_seconds.map(|seconds| {
            let wall = self.shared.clock.wall();
            Timestamp::from_second(wall.as_second().saturating_sub(i64::from(seconds))).unwrap_or(wall)
        });
        let lines = LogLines { follow: logs.follow, tail: logs.tail, since, timestamps: logs.timestamps };
        let stream =
            self.shared.runtime.logs(&container.id, &lines).await.map_err(|error| error.refusal(what.clone()))?;
        Ok(stream.map(move |item| item.map_err(|error| error.refusal(what.clone()))).boxed())
    }
}

/// Follows the runtime's events, again after each break, and tells that something changed.
async fn follow(runtime: Arc<dyn Runtime>, changed: Arc<Notify>, shutdown: CancellationToken) {
    let watch = async {
        let mut wait = RETRY;
        loop {
            if let Ok(mut events) = runtime.events().await {
                // Whatever happened before this stream began is found by listing.
                changed.notify_one();
                while let Some(Ok(())) = events.next().await {
                    wait = RETRY;
                    changed.notify_one();
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RESYNC);
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
    }
}

/// One pod as the loop keeps it.
struct Kept {
    reference: PodRef,
    /// `None`: its containers are here, and it is not bound here.
    bound: Option<Arc<BoundPod>>,
    memory: PodMemory,
    busy: BTreeSet<String>,
    budget: Budget,
}

/// The loop.
struct Keeper {
    config: Config,
    hands: Hands,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    outbox: Arc<Outbox>,
    tasks: TaskTracker,
    health: watch::Sender<Option<String>>,
    info: watch::Sender<Option<Info>>,
    /// By uid.
    pods: BTreeMap<String, Kept>,
    /// What the runtime showed when it was last asked; `None` before it answered.
    seen: Option<Vec<Container>>,
    /// Something changed since.
    stale: bool,
}

impl Keeper {
    async fn run(
        mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        mut inbox: mpsc::Receiver<Message>,
        changed: Arc<Notify>,
        shutdown: CancellationToken,
    ) {
        let mut wake_at = self.clock.now();
        let mut listed = wake_at;
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
                    self.health.send_replace(Some(error.to_string()));
                    wake_at = self.clock.now() + RETRY;
                    continue;
                }
                self.health.send_if_modified(|health| health.take().is_some());
                listed = self.clock.now();
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
            let context = plan::Context { config: &self.config, snapshot, now, node_memory, busy: &kept.busy };
            let plan = if let Some(bound) = kept.bound.clone() {
                kept.memory.observe(&bound, seen, now, wall);
                let context = plan::Context { busy: &kept.busy, ..context };
                let plan = plan::pod(&bound, seen, &kept.memory, context);
                self.explain(&bound, seen, &mut kept, &plan, wall);
                plan
            } else {
                plan::orphan(seen, &kept.memory, context)
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
        container.node == self.config.node
            || snapshot.find(&quorate_proto::kinds::NODES, None, &container.node).is_none()
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
            Message::Acted { uid, slot, outcome } => {
                self.stale = true;
                let jitter = self.random.number();
                if let Some(kept) = self.pods.get_mut(&uid) {
                    kept.busy.remove(&slot);
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

impl Kept {
    fn new(reference: PodRef, now: Instant) -> Self {
        Self { reference, bound: None, memory: PodMemory::default(), busy: BTreeSet::new(), budget: Budget::new(now) }
    }

    /// Remembers what became of an action.
    fn acted(&mut self, slot: &str, outcome: Outcome, now: Instant, jitter: u64) {
        let memory = &mut self.memory;
        match outcome {
            Outcome::Done => {
                if slot == POD {
                    memory.trouble = None;
                }
            }
            Outcome::Mounted(mounted) => {
                memory.mounted = Some(mounted);
                memory.trouble = None;
                memory.unmounted = false;
            }
            Outcome::Unmounted => {
                memory.mounted = None;
                memory.unmounted = true;
            }
            Outcome::Started { name, attempt } => {
                let container = memory.containers.entry(name).or_default();
                container.trouble = None;
                if attempt > 0 {
                    container.restarts.failed(now);
                }
            }
            Outcome::Unavailable(error) => {
                tracing::warn!(pod = %self.reference.name, %error, "not done; trying again");
                let waiting = Waiting::new("ContainerCreating", error.to_string());
                self.trouble(slot, Trouble { waiting, retry_at: now + RETRY });
            }
            Outcome::Failed(mut waiting) => {
                let failures = match memory.containers.get_mut(slot) {
                    Some(container) => &mut container.failures,
                    None => &mut memory.failures,
                };
                if waiting.reason == "ErrImagePull" && !failures.wait().is_zero() {
                    waiting.reason = "ImagePullBackOff";
                    waiting.message = format!("Back-off pulling image: ErrImagePull: {}", waiting.message);
                }
                failures.failed(now);
                // Up to a tenth more, so that a whole rack does not ask a registry in one breath.
                let tenth = u64::try_from(failures.wait().as_millis() / 10).unwrap_or(0).max(1);
                let retry_at = failures.until(now) + Duration::from_millis(jitter % tenth);
                self.trouble(slot, Trouble { waiting, retry_at });
            }
        }
    }

    fn trouble(&mut self, slot: &str, trouble: Trouble) {
        match self.memory.containers.get_mut(slot) {
            Some(container) => container.trouble = Some(trouble),
            None => self.memory.trouble = Some(trouble),
        }
    }

    /// Takes a probe's answer; returns what is to be told about it.
    fn checked(
        &mut self,
        name: &str,
        id: &str,
        purpose: Purpose,
        answer: Result<Result<(), String>, RuntimeError>,
        now: Instant,
    ) -> Option<Event> {
        let memory = self.memory.containers.get_mut(name)?;
        let (_, health) = memory.health.as_mut().filter(|(of, _)| of == id)?;
        let probe = health.probe(purpose)?;
        let why = match answer {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(error) => {
                tracing::debug!(container = name, %error, "a probe could not be made");
                probe.undecided(now);
                return None;
            }
        };
        let verdict = probe.answer(why.is_none(), now);
        if verdict == Verdict::Fails && purpose != Purpose::Readiness {
            let probe = purpose.name().to_ascii_lowercase();
            let why = format!("Container {name} failed {probe} probe, will be restarted");
            memory.condemned = Some((id.to_owned(), why));
        }
        let message = format!("{} probe failed: {}", purpose.name(), why?);
        Some(Event::warning("Unhealthy", message).of(&format!("spec.containers{{{name}}}")))
    }
}

#[cfg(test)]
mod tests;
