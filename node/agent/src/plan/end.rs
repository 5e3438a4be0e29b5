//! What to do with a pod that is over here: deleted, ended, or not bound to this node any more (pure).
//!
//! Invariant: containers are asked to stop before anything of the pod is removed, its holder goes with the last of them, and its volumes
//! go after that.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, Context, POD, PodPlan, is_running};
use crate::{
    hook,
    memory::PodMemory,
    pod::{BoundPod, Stage},
    runtime::{Container, Role},
};

/// What to do with containers whose pod is not known here any more.
pub(crate) fn orphan(seen: &[&Container], memory: &PodMemory, context: Context<'_>) -> PodPlan {
    let mut plan = PodPlan::default();
    for container in seen.iter().filter(|container| is_running(container) && container.role != Role::Holder) {
        plan.act(context, kill(container, container.grace, "The pod is not bound to this node any more"));
    }
    remove_all(seen, memory, context, &mut plan);
    plan
}

/// A pod that is to be deleted: its containers are asked to stop, then everything of it is removed.
pub(super) fn delete(bound: &BoundPod, seen: &[&Container], memory: &PodMemory, context: Context<'_>) -> PodPlan {
    let mut plan = PodPlan::default();
    let since = memory.deleting.unwrap_or(context.now);
    let drain = if bound.was_ready() { context.config.drain.min(bound.grace() / 2) } else { Duration::ZERO };
    let drained = memory.withdrawn || context.now >= since + drain;
    if !drained && seen.iter().any(|container| is_running(container)) {
        plan.wake(since + drain);
        return plan;
    }
    let grace = bound.grace().saturating_sub(context.now.since(since).min(drain));
    stop_in_order(bound, seen, grace, context, &mut plan);
    remove_all(seen, memory, context, &mut plan);
    plan
}

/// A pod that ended: what still runs is stopped, its network is given up; its containers stay, for their logs.
pub(super) fn end(bound: &BoundPod, seen: &[&Container], context: Context<'_>) -> PodPlan {
    let mut plan = PodPlan::default();
    stop_in_order(bound, seen, bound.grace(), context, &mut plan);
    if plan.actions.is_empty() && context.busy.is_empty() {
        for holder in seen.iter().filter(|container| container.role == Role::Holder) {
            plan.act(context, Action::Remove { id: holder.id.clone() });
        }
    }
    plan
}

/// The pod's own containers first; sidecars once those are down.
fn stop_in_order(bound: &BoundPod, seen: &[&Container], grace: Duration, context: Context<'_>, plan: &mut PodPlan) {
    let sidecars: BTreeSet<&str> = bound
        .containers()
        .filter(|(_, stage)| *stage == Stage::Sidecar)
        .map(|(container, _)| container.name.as_str())
        .collect();
    let running = || seen.iter().filter(|container| is_running(container) && container.role != Role::Holder);
    let is_sidecar = |container: &Container| match &container.role {
        Role::Container { name, .. } => sidecars.contains(name.as_str()),
        Role::Holder => false,
    };
    let only_sidecars = running().all(|container| is_sidecar(container));
    for container in running().filter(|container| only_sidecars || !is_sidecar(container)) {
        plan.act(context, stop(bound, seen, container, grace, "Stopping container", context));
    }
}

fn remove_all(seen: &[&Container], memory: &PodMemory, context: Context<'_>, plan: &mut PodPlan) {
    let running = seen.iter().any(|container| is_running(container) && container.role != Role::Holder);
    if running || !context.busy.is_empty() {
        return;
    }
    for container in seen {
        plan.act(context, Action::Remove { id: container.id.clone() });
    }
    if seen.is_empty() {
        if memory.unmounted {
            plan.gone = true;
        } else {
            plan.act(context, Action::Unmount);
        }
    }
}

/// Stops a container of a pod that is known, after its hook.
pub(super) fn stop(
    bound: &BoundPod,
    seen: &[&Container],
    container: &Container,
    grace: Duration,
    why: &str,
    context: Context<'_>,
) -> Action {
    let mut action = kill(container, grace, why);
    if let Action::Stop { name, call, .. } = &mut action {
        let written = bound.containers().find(|(of, _)| of.name == *name);
        let hook = written.and_then(|(container, _)| hook::pre_stop(container));
        *call = hook.and_then(|hook| super::call(bound, seen, hook, context));
    }
    action
}

/// Stops a container of which nothing is known but what its runtime says.
fn kill(container: &Container, grace: Duration, why: &str) -> Action {
    let name = match &container.role {
        Role::Container { name, .. } => name.clone(),
        Role::Holder => POD.to_owned(),
    };
    Action::Stop { name, id: container.id.clone(), grace, why: why.to_owned(), call: None }
}
