//! What the agent remembers of a pod between two passes: attempts, back-off, health, volumes (pure).
//!
//! All of it may be lost: a restarted agent finds its containers by their labels and forgets only how long to wait.
//!
//! Invariant: what is remembered of a container belongs to one id; another container of the same name starts without it.

use std::collections::BTreeMap;

use quorate_proto::{
    k8s::api::core::v1 as core,
    world::{Instant, Timestamp},
};
use serde_json::Value;

use crate::{
    backoff::Backoff,
    hook,
    pod::BoundPod,
    probe::Health,
    runtime::{Container, Role, State},
};

/// Why something waits, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Waiting {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Of one container of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerMemory {
    /// The container that ended last, and when that was noticed.
    pub(crate) exited: Option<(String, Instant)>,
    /// Restarts after it ended.
    pub(crate) restarts: Backoff,
    /// Failures to start it: its image, its settings.
    pub(crate) failures: Backoff,
    /// Why it could not be started; it is tried again.
    pub(crate) trouble: Option<Waiting>,
    /// The container of this id has begun: the hook for its start is done.
    pub(crate) begun: Option<String>,
    /// How the container of this id is.
    pub(crate) health: Option<(String, Health)>,
    /// The container of this id is to be killed, and why.
    pub(crate) condemned: Option<(String, String)>,
}

/// A pod's volumes as they were last made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// What they were made from.
    pub(crate) version: u64,
    /// Where each one is.
    pub(crate) paths: BTreeMap<String, String>,
}

/// Of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodMemory {
    pub(crate) containers: BTreeMap<String, ContainerMemory>,
    pub(crate) mounted: Option<Mounted>,
    pub(crate) unmounted: bool,
    /// Why its volumes or its holder could not be made; it is tried again.
    pub(crate) trouble: Option<Waiting>,
    pub(crate) failures: Backoff,
    /// Since when it is known that it is to be deleted.
    pub(crate) deleting: Option<Instant>,
    /// Nobody sends new connections to it since then.
    pub(crate) withdrawn: bool,
    /// The status that was last made of it.
    pub(crate) status: Option<Value>,
}

impl PodMemory {
    /// Takes in what the runtime shows of a pod now.
    pub(crate) fn observe(&mut self, bound: &BoundPod, seen: &[&Container], now: Instant, wall: Timestamp) {
        if bound.deleting() {
            self.deleting.get_or_insert(now);
        }
        for (container, _) in bound.containers() {
            let memory = self.containers.entry(container.name.clone()).or_default();
            let Some(current) = current(seen, &container.name) else { continue };
            match &current.state {
                State::Created => {}
                State::Running { started } => {
                    memory.trouble = None;
                    if hook::post_start(container).is_none() || shown_running(&bound.status, &current.id) {
                        memory.begun = Some(current.id.clone());
                    }
                    if memory.begun.as_ref() != Some(&current.id) {
                        continue;
                    }
                    if memory.health.as_ref().is_none_or(|(id, _)| *id != current.id) {
                        let age = u64::try_from(wall.as_millisecond() - started.as_millisecond()).unwrap_or(0);
                        let mut health = Health::new(container, now - std::time::Duration::from_millis(age));
                        if let Some((started, ready)) = known(&bound.status, &current.id) {
                            health.adopt(started, ready);
                        }
                        memory.health = Some((current.id.clone(), health));
                    }
                }
                State::Exited { .. } => {
                    if memory.exited.as_ref().is_none_or(|(id, _)| *id != current.id) {
                        memory.exited = Some((current.id.clone(), now));
                        memory.restarts.forgive(now);
                        memory.health = None;
                        memory.condemned = None;
                    }
                }
            }
        }
    }

    /// The pod's volumes and its network could be made.
    pub(crate) fn well(&mut self) {
        self.trouble = None;
        self.failures = Backoff::default();
    }

    /// Whether a container runs whose hook for its start is not done.
    pub(crate) fn starting(&self, container: &core::Container, current: &Container) -> bool {
        let begun = self.containers.get(&container.name).and_then(|memory| memory.begun.as_ref());
        matches!(current.state, State::Running { .. })
            && hook::post_start(container).is_some()
            && begun != Some(&current.id)
    }

    /// How a running container is.
    pub(crate) fn health(&self, container: &Container) -> Option<&Health> {
        let Role::Container { name, .. } = &container.role else { return None };
        let (id, health) = self.containers.get(name)?.health.as_ref()?;
        (*id == container.id).then_some(health)
    }
}

/// The latest container of a name.
pub(crate) fn current<'a>(seen: &[&'a Container], name: &str) -> Option<&'a Container> {
    let of_name =
        seen.iter().filter(|container| matches!(&container.role, Role::Container { name: of, .. } if of == name));
    of_name.max_by_key(|container| container.attempt).copied()
}

/// The container of a name before the latest one.
pub(crate) fn previous<'a>(seen: &[&'a Container], name: &str) -> Option<&'a Container> {
    let latest = current(seen, name)?;
    let older: Vec<&Container> = seen.iter().filter(|container| container.id != latest.id).copied().collect();
    current(&older, name)
}

/// What the store says of the container of this id.
fn stored<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut statuses = lists.iter().filter_map(|list| status.get(list)?.as_array()).flatten();
    statuses.find(|status| {
        status.get("containerID").and_then(Value::as_str).is_some_and(|known| known.ends_with(&format!("://{id}")))
    })
}

/// Whether the store knows the container of this id as one that runs.
fn shown_running(status: &Value, id: &str) -> bool {
    stored(status, id).is_some_and(|status| status.pointer("/state/running").is_some())
}

/// Whether the store knows the container of this id as started and as ready.
fn known(status: &Value, id: &str) -> Option<(bool, bool)> {
    let found = stored(status, id)?;
    let flag = |field: &str| found.get(field).and_then(Value::as_bool).unwrap_or_default();
    Some((flag("started"), flag("ready")))
}
