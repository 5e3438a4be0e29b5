//! A pod's status from what its containers do: phase, conditions, container states, as `kubectl` shows them (pure).
//!
//! Invariant: a status is a merge patch of `status` that says everything the agent is responsible for; equal situations give equal
//! patches, so that what did not change is not reported. A pod that ended keeps its status for ever.

use std::collections::BTreeMap;

use quorate_proto::world::{Timestamp, rfc3339};
use serde_json::{Map, Value, json};

use crate::{
    memory::{PodMemory, Waiting, current, previous},
    plan,
    pod::{BoundPod, Stage},
    resources,
    runtime::{Container, State},
};

/// What a status is made from, beyond the pod and its containers.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) memory: &'a PodMemory,
    /// Why containers that do not run wait.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// The node's address.
    pub(crate) host: &'a str,
    /// For the times of what changes now.
    pub(crate) wall: Timestamp,
    /// What the runtime's ids begin with: `docker`.
    pub(crate) scheme: &'a str,
}

/// How many times a container was started, as far as the store knows: the attempt of one that left no trace here.
pub(crate) fn next_attempt(status: &Value, name: &str) -> u32 {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut statuses = lists.iter().filter_map(|list| status.get(list)?.as_array()).flatten();
    let Some(known) = statuses.find(|status| status.get("name").and_then(Value::as_str) == Some(name)) else {
        return 0;
    };
    let count =
        known.get("restartCount").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let started = known.get("containerID").and_then(Value::as_str).is_some_and(|id| !id.is_empty());
    count.saturating_add(u32::from(started))
}

/// The status of a pod whose containers are here.
pub(crate) fn of(bound: &BoundPod, seen: &[&Container], context: Context<'_>) -> Value {
    let holder = plan::holder(seen);
    let mut lists: [Vec<Value>; 2] = Default::default();
    let mut sums = Sums::default();
    for (container, stage) in bound.containers() {
        let name = container.name.as_str();
        let current = current(seen, name);
        let starting = current.is_some_and(|current| context.memory.starting(container, current));
        let waiting = context.waiting.get(name);
        let health = current.and_then(|current| context.memory.health(current));
        let running = current.is_some_and(plan::is_running);
        let started = running && health.is_some_and(crate::probe::Health::started);
        let ready = match (stage, current.map(|current| &current.state)) {
            (Stage::Init, Some(State::Exited { code: 0, .. })) => waiting.is_none(),
            (Stage::Init, _) => false,
            _ => running && health.is_some_and(crate::probe::Health::ready),
        };
        // One whose hook is not done has not begun.
        let counted = current.filter(|_| !starting).map(|current| &current.state);
        sums.add(bound, name, stage, counted, (started, ready));
        let last = previous(seen, name).filter(|_| {
            !matches!((current.map(|current| &current.state), waiting), (Some(State::Exited { .. }), Some(_)))
        });
        let last = last
            .or_else(|| current.filter(|current| matches!(current.state, State::Exited { .. }) && waiting.is_some()));
        let mut status = json!({
            "name": name,
            "image": current.map_or_else(|| container.image.clone().unwrap_or_default(), |current| current.image.clone()),
            "imageID": current.map_or("", |current| current.image_id.as_str()),
            "ready": ready,
            "started": started,
            "restartCount": current.map_or_else(|| next_attempt(&bound.status, name), |current| current.attempt),
            "state": state(current.filter(|_| !starting), waiting, context),
            "lastState": last.and_then(|last| terminated(last, context)).unwrap_or_else(|| json!({})),
        });
        if let Some(current) = current.filter(|current| current.state != State::Created) {
            status["containerID"] = json!(id(current, context));
        }
        lists[usize::from(stage == Stage::Main)].push(status);
    }
    let [init, main] = lists;
    let phase = sums.phase();
    let address = plan::address(bound, holder, context.host);
    let mut status = Map::new();
    status.insert("phase".to_owned(), json!(phase));
    // What the leader said while this node was not heard is no longer so.
    status.insert("reason".to_owned(), Value::Null);
    status.insert("message".to_owned(), Value::Null);
    status.insert("conditions".to_owned(), conditions(bound, &sums, phase, context));
    status.insert("hostIP".to_owned(), json!(context.host));
    status.insert("hostIPs".to_owned(), json!([{ "ip": context.host }]));
    // A pod that ended gave its address up, and shows the last one it had.
    if !address.is_empty() {
        status.insert("podIPs".to_owned(), json!([{ "ip": address }]));
        status.insert("podIP".to_owned(), json!(address));
    }
    let start = text(context.memory.status.as_ref(), "startTime").or_else(|| text(Some(&bound.status), "startTime"));
    status.insert("startTime".to_owned(), json!(start.unwrap_or_else(|| rfc3339(context.wall))));
    status.insert("qosClass".to_owned(), json!(resources::quality_of(&bound.pod).name()));
    if !init.is_empty() {
        status.insert("initContainerStatuses".to_owned(), Value::Array(init));
    }
    status.insert("containerStatuses".to_owned(), Value::Array(main));
    Value::Object(status)
}

fn text(status: Option<&Value>, field: &str) -> Option<String> {
    Some(status?.get(field)?.as_str()?.to_owned())
}

fn id(container: &Container, context: Context<'_>) -> String {
    format!("{}://{}", context.scheme, container.id)
}

fn state(current: Option<&Container>, waiting: Option<&Waiting>, context: Context<'_>) -> Value {
    if let Some(container) = current {
        if let State::Running { started } = &container.state {
            return json!({"running": {"startedAt": rfc3339(*started)}});
        }
        if let (None, Some(terminated)) = (waiting, terminated(container, context)) {
            return terminated;
        }
    }
    let fallback = Waiting::new("ContainerCreating", "");
    let waiting = waiting.unwrap_or(&fallback);
    if waiting.message.is_empty() {
        json!({"waiting": {"reason": waiting.reason}})
    } else {
        json!({"waiting": {"reason": waiting.reason, "message": waiting.message}})
    }
}

/// Signals begin here in exit codes.
const SIGNALS: i32 = 128;

fn terminated(container: &Container, context: Context<'_>) -> Option<Value> {
    let State::Exited { started, finished, code, out_of_memory, message, words } = &container.state else {
        return None;
    };
    let reason = match (out_of_memory, code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, 127) if !message.is_empty() => "ContainerCannotRun",
        (false, _) => "Error",
    };
    let mut terminated = json!({
        "exitCode": code,
        "reason": reason,
        "startedAt": rfc3339(*started),
        "finishedAt": rfc3339(*finished),
        "containerID": id(container, context),
    });
    if *code > SIGNALS && *code < SIGNALS + 65 {
        terminated["signal"] = json!(code - SIGNALS);
    }
    if let Some(said) = [words, message].into_iter().find(|said| !said.is_empty()) {
        terminated["message"] = json!(said);
    }
    Some(json!({ "terminated": terminated }))
}

/// What the containers of a pod add up to.
#[derive(Default)]
struct Sums {
    /// Init containers that have not ended well, and sidecars that have not begun.
    incomplete: Vec<String>,
    /// An init container failed for good.
    init_failed: bool,
    /// Containers that get no traffic.
    unready: Vec<String>,
    mains: usize,
    running: usize,
    /// Ended, and to be started again.
    restarting: usize,
    succeeded: usize,
    failed: usize,
}

impl Sums {
    fn add(
        &mut self,
        bound: &BoundPod,
        name: &str,
        stage: Stage,
        state: Option<&State>,
        (started, ready): (bool, bool),
    ) {
        let complete = if stage == Stage::Sidecar { started } else { ready };
        if stage != Stage::Main && !complete {
            self.incomplete.push(name.to_owned());
        }
        if stage != Stage::Init && !ready {
            self.unready.push(name.to_owned());
        }
        let ended = match state {
            Some(State::Exited { code, .. }) => Some((*code, bound.restarts(stage, *code))),
            _ => None,
        };
        if stage != Stage::Main {
            self.init_failed |= stage == Stage::Init && matches!(ended, Some((code, false)) if code != 0);
            return;
        }
        self.mains += 1;
        match ended {
            Some((_, true)) => self.restarting += 1,
            Some((0, false)) => self.succeeded += 1,
            Some((_, false)) => self.failed += 1,
            None => self.running += usize::from(matches!(state, Some(State::Running { .. }))),
        }
    }

    /// By the kubelet's rules (`getPhase` in `pkg/kubelet/kubelet_pods.go`).
    const fn phase(&self) -> &'static str {
        let stopped = self.restarting + self.succeeded + self.failed;
        if self.init_failed {
            "Failed"
        } else if !self.incomplete.is_empty() && self.running + stopped == 0 || self.running + stopped < self.mains {
            "Pending"
        } else if self.running + self.restarting > 0 {
            "Running"
        } else if self.failed > 0 {
            "Failed"
        } else {
            "Succeeded"
        }
    }
}

/// Whether a condition holds; why not, and the message.
type Truth = (bool, &'static str, String);

fn conditions(bound: &BoundPod, sums: &Sums, phase: &str, context: Context<'_>) -> Value {
    let completed = phase == "Succeeded";
    let yes = || (true, "", String::new());
    let initialized: Truth = match (completed, sums.incomplete.is_empty()) {
        (true, _) => (true, "PodCompleted", String::new()),
        (false, true) => yes(),
        (false, false) => (
            false,
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", sums.incomplete.join(" ")),
        ),
    };
    let ready: Truth = match (completed, sums.unready.is_empty()) {
        (true, _) => (false, "PodCompleted", String::new()),
        (false, true) if sums.init_failed => (false, "PodFailed", String::new()),
        (false, true) => yes(),
        (false, false) => {
            (false, "ContainersNotReady", format!("containers with unready status: [{}]", sums.unready.join(" ")))
        }
    };
    let own =
        [("Initialized", initialized), ("Ready", ready.clone()), ("ContainersReady", ready), ("PodScheduled", yes())];
    // Conditions that others set stay as the store has them.
    let others = bound.status.get("conditions").and_then(Value::as_array).into_iter().flatten().filter(|condition| {
        let kind = condition.get("type").and_then(Value::as_str);
        !own.iter().any(|(own, _)| kind == Some(own))
    });
    let others: Vec<Value> = others.cloned().collect();
    own.iter().map(|(kind, truth)| condition(bound, kind, truth, context)).chain(others).collect()
}

fn condition(bound: &BoundPod, kind: &str, (holds, reason, message): &Truth, context: Context<'_>) -> Value {
    let status = if *holds { "True" } else { "False" };
    let known = [context.memory.status.as_ref(), Some(&bound.status)].into_iter().flatten().find_map(|known| {
        let conditions = known.get("conditions")?.as_array()?;
        conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
    });
    let since = known
        .filter(|known| known.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|known| text(Some(known), "lastTransitionTime"))
        .unwrap_or_else(|| rfc3339(context.wall));
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    condition
}

#[cfg(test)]
mod tests;
