//! What to do next for a pod: from what is wanted, what the runtime shows and what is remembered, to actions (pure).
//!
//! It is not told what changed: the same situation always leads to the same actions, after a restart as after an event.
//!
//! Invariant: at most one action per slot (a container of a pod, or the pod itself) is under way; a pod's containers are started only
//! in its present holder's network, and a container whose holder is gone is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_proto::{k8s::api::core::v1 as core, snapshot::Snapshot, world::Instant};

use crate::{
    backoff::go_duration,
    config::Config,
    environment::Place,
    hook::{self, Call, Hook},
    memory::{PodMemory, Waiting, current, previous},
    pod::{BoundPod, Stage},
    runtime::{Container, ContainerSpec, Credentials, HolderSpec, PodRef, Role, State, Volume},
    workload::{self, Around, PullPolicy},
};

/// The slot of what concerns the pod as a whole.
pub(crate) const POD: &str = "";

/// Something to be done by the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Makes the pod's volumes, or brings them up to date.
    Mount { volumes: Vec<Volume>, version: u64 },
    /// Starts the pod's holder.
    StartHolder(Box<HolderSpec>),
    /// Fetches the image if need be, makes and starts a container.
    Start { container: Box<ContainerSpec>, policy: PullPolicy, credentials: Vec<Credentials>, field: String },
    /// Calls the hook of a container that was started.
    Begin { slot: String, name: String, id: String, call: Call },
    /// Stops a container, after its hook was called.
    Stop { name: String, id: String, grace: Duration, why: String, call: Option<Call> },
    /// Removes a container that does not run, or a holder.
    Remove { id: String },
    /// Removes the pod's volumes.
    Unmount,
}

impl Action {
    /// What it is done to; nothing else is done to that meanwhile.
    pub(crate) fn slot(&self) -> &str {
        match self {
            Self::Mount { .. } | Self::StartHolder(_) | Self::Unmount => POD,
            Self::Start { container, .. } => &container.name,
            // It does not keep the container from being stopped.
            Self::Begin { slot, .. } => slot,
            Self::Stop { name, .. } => name,
            Self::Remove { id } => id,
        }
    }
}

/// What a pass decided for one pod.
#[derive(Debug, Default)]
pub(crate) struct PodPlan {
    pub(crate) actions: Vec<Action>,
    /// When to decide again even if nothing changes.
    pub(crate) wake_at: Option<Instant>,
    /// Why containers that do not run wait.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// Nothing is left of the pod here.
    pub(crate) gone: bool,
}

/// What a decision is made from, beyond the pod.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Instant,
    /// Bytes.
    pub(crate) node_memory: u64,
    /// Slots of this pod in which something is under way.
    pub(crate) busy: &'a BTreeSet<String>,
    /// Slots of this pod in which something failed, and until when they are left alone.
    pub(crate) resting: &'a BTreeMap<String, Instant>,
}

/// What becomes of a container.
enum Fate {
    Start { attempt: u32, not_before: Instant },
    Keep,
    Stop { why: String },
    Done { well: bool },
}

impl PodPlan {
    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn act(&mut self, context: Context<'_>, action: Action) {
        match context.resting.get(action.slot()) {
            Some(until) if *until > context.now => self.wake(*until),
            _ if context.busy.contains(action.slot()) => {}
            _ => self.actions.push(action),
        }
    }
}

/// The holder that holds the pod's network now.
pub(crate) fn holder<'a>(seen: &[&'a Container]) -> Option<&'a Container> {
    let running = seen.iter().filter(|container| container.role == Role::Holder && is_running(container));
    running.max_by_key(|container| container.attempt).copied()
}

pub(crate) const fn is_running(container: &Container) -> bool {
    matches!(container.state, State::Running { .. })
}

/// What to do for a pod that is bound here.
pub(crate) fn pod(bound: &BoundPod, seen: &[&Container], memory: &PodMemory, context: Context<'_>) -> PodPlan {
    if bound.deleting() {
        return end::delete(bound, seen, memory, context);
    }
    if bound.ended() {
        return end::end(bound, seen, context);
    }
    let mut plan = PodPlan::default();
    tidy(bound, seen, context, &mut plan);
    let holder = holder(seen);
    let fates: Vec<(&core::Container, Stage, Fate)> = bound
        .containers()
        .map(|(container, stage)| (container, stage, fate(bound, container, stage, seen, memory, holder, context)))
        .collect();
    for (container, _, fate) in &fates {
        if let (Fate::Stop { why }, Some(current)) = (fate, current(seen, &container.name)) {
            plan.act(context, end::stop(bound, seen, current, bound.grace(), why, context));
        }
    }
    if finished(&fates) {
        for (container, _, fate) in &fates {
            if let (Fate::Keep, Some(current)) = (fate, current(seen, &container.name)) {
                let why = "The pod's containers ended";
                plan.act(context, end::stop(bound, seen, current, bound.grace(), why, context));
            }
        }
        return plan;
    }
    begin(bound, &fates, seen, memory, context, &mut plan);
    let mounted = mount(bound, memory, holder, context, &mut plan);
    let Some(holder) = holder else {
        // Whoever still runs is in the network of a holder that is gone, and has been told to stop above.
        let running = seen.iter().any(|container| is_running(container));
        if mounted && !running && context.busy.is_empty() && plan.actions.is_empty() {
            start_holder(bound, seen, context, &mut plan);
        }
        creating(&fates, memory.trouble.as_ref(), &mut plan);
        return plan;
    };
    if !mounted {
        creating(&fates, memory.trouble.as_ref(), &mut plan);
        return plan;
    }
    start(bound, seen, memory, holder, fates, context, &mut plan);
    plan
}

/// Removes what nobody needs: attempts before the last two, containers the pod does not name, holders that ended.
fn tidy(bound: &BoundPod, seen: &[&Container], context: Context<'_>, plan: &mut PodPlan) {
    for container in seen {
        let Role::Container { name, .. } = &container.role else {
            // One that is being started does not run yet.
            if !is_running(container) && !context.busy.contains(POD) {
                plan.act(context, Action::Remove { id: container.id.clone() });
            }
            continue;
        };
        let kept =
            [current(seen, name), previous(seen, name)].into_iter().flatten().any(|kept| kept.id == container.id);
        let named = bound.containers().any(|(of, _)| of.name == *name);
        if named && kept {
            continue;
        }
        if is_running(container) {
            let why = "The pod does not name this container any more";
            plan.act(context, end::stop(bound, seen, container, bound.grace(), why, context));
        } else if !context.busy.contains(name.as_str()) {
            plan.act(context, Action::Remove { id: container.id.clone() });
        }
    }
}

fn fate(
    bound: &BoundPod,
    container: &core::Container,
    stage: Stage,
    seen: &[&Container],
    memory: &PodMemory,
    holder: Option<&Container>,
    context: Context<'_>,
) -> Fate {
    let name = &container.name;
    let remembered = memory.containers.get(name);
    let at_once = |attempt| Fate::Start { attempt, not_before: context.now };
    let Some(current) = current(seen, name) else { return at_once(crate::status::next_attempt(&bound.status, name)) };
    let Role::Container { hash, holder: joined, .. } = &current.role else { return Fate::Keep };
    let same = hash == bound.hash(name);
    match &current.state {
        State::Created => at_once(current.attempt),
        State::Running { .. } => {
            let condemned = remembered.and_then(|memory| memory.condemned.as_ref());
            if !same {
                Fate::Stop { why: format!("Container {name} definition changed, will be restarted") }
            } else if let Some((_, why)) = condemned.filter(|(id, _)| *id == current.id) {
                Fate::Stop { why: why.clone() }
            } else if holder.is_none_or(|holder| holder.id != *joined) {
                Fate::Stop { why: format!("Container {name} lost its pod's network, will be restarted") }
            } else {
                Fate::Keep
            }
        }
        State::Exited { code, .. } => {
            let again = !same || bound.restarts(stage, *code);
            // A new network is prepared anew: what an init container did to the old one is lost.
            let stale =
                stage == Stage::Init && holder.is_none_or(|holder| holder.id != *joined) && !begun(bound, seen, holder);
            if !(again || stale && *code == 0) {
                return Fate::Done { well: *code == 0 };
            }
            let not_before = match remembered.and_then(|memory| Some((memory, memory.exited.as_ref()?))) {
                Some((memory, (id, noticed))) if *id == current.id && !stale => memory.restarts.until(*noticed),
                _ => context.now,
            };
            Fate::Start { attempt: current.attempt.saturating_add(1), not_before }
        }
    }
}

/// Calls the hooks of containers that were started and have not begun.
fn begin(
    bound: &BoundPod,
    fates: &[(&core::Container, Stage, Fate)],
    seen: &[&Container],
    memory: &PodMemory,
    context: Context<'_>,
    plan: &mut PodPlan,
) {
    for (container, _, fate) in fates {
        let name = &container.name;
        if let (Fate::Keep, Some(current), Some(hook)) = (fate, current(seen, name), hook::post_start(container))
            && memory.starting(container, current)
            && let Some(call) = call(bound, seen, hook, context)
        {
            let slot = format!("{name}/postStart");
            plan.act(context, Action::Begin { slot, name: name.clone(), id: current.id.clone(), call });
        }
    }
}

/// A hook with the address of its pod; `None` while it has none.
fn call(bound: &BoundPod, seen: &[&Container], hook: Hook, context: Context<'_>) -> Option<Call> {
    let address = address(bound, holder(seen), &context.config.host_address.to_string()).parse().ok()?;
    Some(Call { hook, address })
}

/// Whether one of the pod's own containers was started in the present network, or all have ended for good: nothing is left to prepare.
fn begun(bound: &BoundPod, seen: &[&Container], holder: Option<&Container>) -> bool {
    let mains: Vec<_> = bound.spec.containers.iter().map(|container| current(seen, &container.name)).collect();
    let in_network = |container: &Container| matches!((&container.role, holder), (Role::Container { holder: joined, .. }, Some(holder)) if *joined == holder.id);
    let ended = |container: &Container| matches!(container.state, State::Exited { code, .. } if !bound.restarts(Stage::Main, code));
    mains.iter().any(|main| main.is_some_and(in_network)) || mains.iter().all(|main| main.is_some_and(ended))
}

/// Whether the pod is over: an init container failed for good, or all its own containers ended for good.
fn finished(fates: &[(&core::Container, Stage, Fate)]) -> bool {
    let failed =
        fates.iter().any(|(_, stage, fate)| *stage == Stage::Init && matches!(fate, Fate::Done { well: false }));
    let mut mains = fates.iter().filter(|(_, stage, _)| *stage == Stage::Main);
    failed || (!fates.is_empty() && mains.all(|(_, _, fate)| matches!(fate, Fate::Done { .. })))
}

/// Whether the pod's volumes are there; if not, or if they are out of date, what to do about it.
fn mount(
    bound: &BoundPod,
    memory: &PodMemory,
    holder: Option<&Container>,
    context: Context<'_>,
    plan: &mut PodPlan,
) -> bool {
    let version = workload::volumes_version(bound, context.snapshot);
    let there = memory.mounted.is_some();
    if memory.mounted.as_ref().is_some_and(|mounted| mounted.version == version) {
        return true;
    }
    let host = context.config.host_address.to_string();
    let address = address(bound, holder, &host);
    let place = Place { node: &context.config.node, host: &host, address: &address };
    match workload::volumes(bound, context.snapshot, place) {
        Ok(volumes) => plan.act(context, Action::Mount { volumes, version }),
        // Volumes that were made stay as they were while their source is gone.
        Err(_) if there => {}
        Err(why) => {
            for (container, _) in bound.containers() {
                plan.waiting.insert(container.name.clone(), Waiting::new("CreateContainerConfigError", why.clone()));
            }
        }
    }
    there
}

fn start_holder(bound: &BoundPod, seen: &[&Container], context: Context<'_>, plan: &mut PodPlan) {
    let holders = seen.iter().filter(|container| container.role == Role::Holder);
    let attempt = holders.map(|container| container.attempt.saturating_add(1)).max().unwrap_or(0);
    plan.act(context, Action::StartHolder(Box::new(workload::holder(bound, context.config, attempt))));
}

/// Containers that will be started once the pod is prepared.
fn creating(fates: &[(&core::Container, Stage, Fate)], trouble: Option<&Waiting>, plan: &mut PodPlan) {
    let initial = fates.iter().any(|(_, stage, fate)| *stage == Stage::Init && !matches!(fate, Fate::Done { .. }));
    for (container, stage, fate) in fates {
        if matches!(fate, Fate::Start { .. }) {
            let reason = if initial && *stage == Stage::Main { "PodInitializing" } else { "ContainerCreating" };
            let waiting = trouble.cloned().unwrap_or_else(|| Waiting::new(reason, ""));
            plan.waiting.entry(container.name.clone()).or_insert(waiting);
        }
    }
}

/// Starts what may start now: init containers one after the other, then the pod's own.
fn start(
    bound: &BoundPod,
    seen: &[&Container],
    memory: &PodMemory,
    holder: &Container,
    fates: Vec<(&core::Container, Stage, Fate)>,
    context: Context<'_>,
    plan: &mut PodPlan,
) {
    let skip_init = begun(bound, seen, Some(holder));
    let (mut open, mut initialized) = (true, true);
    for (container, stage, fate) in fates {
        let passed = match (&fate, stage) {
            // As in Kubernetes, the next one is not started before the hook of this one is done.
            (Fate::Keep, Stage::Main) => {
                !current(seen, &container.name).is_some_and(|current| memory.starting(container, current))
            }
            (_, Stage::Main) => true,
            (Fate::Done { well }, _) => *well,
            (Fate::Keep, Stage::Sidecar) => {
                let health = current(seen, &container.name).and_then(|current| memory.health(current));
                health.is_some_and(crate::probe::Health::started)
            }
            _ => skip_init,
        };
        if let Fate::Start { attempt, not_before } = fate {
            if open && !(skip_init && stage == Stage::Init) {
                start_one(bound, container, stage, memory, holder, (attempt, not_before), context, plan);
            } else if !open {
                let reason = if initialized { "ContainerCreating" } else { "PodInitializing" };
                plan.waiting.insert(container.name.clone(), Waiting::new(reason, ""));
            }
        }
        open &= passed;
        initialized &= passed || stage == Stage::Main;
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of `start`, which has them all at hand")]
fn start_one(
    bound: &BoundPod,
    container: &core::Container,
    stage: Stage,
    memory: &PodMemory,
    holder: &Container,
    (attempt, not_before): (u32, Instant),
    context: Context<'_>,
    plan: &mut PodPlan,
) {
    let name = &container.name;
    let remembered = memory.containers.get(name);
    if not_before > context.now {
        let wait = remembered.map_or(Duration::ZERO, |memory| memory.restarts.wait());
        let PodRef { namespace, name: pod, uid } = &bound.reference;
        let message =
            format!("back-off {} restarting failed container={name} pod={pod}_{namespace}({uid})", go_duration(wait));
        plan.waiting.insert(name.clone(), Waiting::new("CrashLoopBackOff", message));
        plan.wake(not_before);
        return;
    }
    if let Some(trouble) = remembered.and_then(|memory| memory.trouble.as_ref()) {
        plan.waiting.insert(name.clone(), trouble.clone());
    }
    let host = context.config.host_address.to_string();
    let address = address(bound, Some(holder), &host);
    let nothing = BTreeMap::new();
    let around = Around {
        holder: &holder.id,
        attempt,
        volumes: memory.mounted.as_ref().map_or(&nothing, |mounted| &mounted.paths),
        place: Place { node: &context.config.node, host: &host, address: &address },
        node_memory: context.node_memory,
    };
    match workload::container(bound, container, context.snapshot, around) {
        Ok(spec) => {
            let list = if stage == Stage::Main { "containers" } else { "initContainers" };
            let action = Action::Start {
                container: Box::new(spec),
                policy: workload::pull_policy(container),
                credentials: workload::credentials(bound, context.snapshot),
                field: format!("spec.{list}{{{name}}}"),
            };
            plan.act(context, action);
            if attempt == 0 {
                plan.waiting.entry(name.clone()).or_insert_with(|| Waiting::new("ContainerCreating", ""));
            }
        }
        Err(why) => {
            plan.waiting.insert(name.clone(), Waiting::new("CreateContainerConfigError", why));
        }
    }
}

/// The pod's address: its holder's, or the node's; empty while it has none.
pub(crate) fn address(bound: &BoundPod, holder: Option<&Container>, host: &str) -> String {
    match holder {
        Some(_) if bound.host_network() => host.to_owned(),
        Some(holder) => holder.address.map_or_else(String::new, |address| address.to_string()),
        None => String::new(),
    }
}

mod end;

pub(crate) use end::orphan;

#[cfg(test)]
mod tests;
