//! What a deployment says of itself: its counts, whether it is available, whether it makes progress.
//!
//! Invariant: words and conditions are those of Kubernetes, which `kubectl rollout status` waits for. Nothing changes while nothing moves,
//! except that a rollout without progress is said to have failed once its deadline is over.

use std::time::Duration;

use quorate_proto::object::Object;
use serde_json::json;

use super::wanted::Wanted;
use crate::{
    decision::{Decision, Moment},
    edit::{Condition, number, of_condition, set_condition, touch_condition},
};

/// The pods of a deployment, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) replicas: i64,
    pub(super) updated: i64,
    pub(super) ready: i64,
    pub(super) available: i64,
}

impl Counts {
    fn of(deployment: &Object) -> Self {
        let count = |field: &str| number(deployment, &["status", field]).unwrap_or_default();
        Self {
            replicas: count("replicas"),
            updated: count("updatedReplicas"),
            ready: count("readyReplicas"),
            available: count("availableReplicas"),
        }
    }

    const fn old(&self) -> i64 {
        self.replicas - self.updated
    }

    /// Whether the rollout is done.
    pub(super) const fn complete(&self, desired: i64) -> bool {
        self.updated == desired && self.replicas == desired && self.available == desired
    }

    fn progressed_since(&self, before: &Self) -> bool {
        self.updated > before.updated
            || self.ready > before.ready
            || self.available > before.available
            || self.old() < before.old()
    }
}

/// The set that is being rolled out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// It is made by this decision.
    Made(&'a str),
    /// It is there.
    Found(&'a str),
    /// It will be made once the rollout may go on.
    Missing,
}

/// Writes the status into the deployment.
pub(super) fn write(
    deployment: &mut Object,
    wanted: &Wanted,
    counts: &Counts,
    target: Target<'_>,
    moment: &Moment<'_>,
    decision: &mut Decision,
) {
    let before = Counts::of(deployment);
    let generation = deployment.generation();
    deployment.merge(&json!({"status": {
        "observedGeneration": generation,
        "replicas": counts.replicas,
        "updatedReplicas": counts.updated,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": (counts.replicas.max(wanted.bounds.desired) - counts.available).max(0),
    }}));
    let available = if counts.available >= wanted.bounds.least() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let (status, reason, message) = available;
    let changed = set_condition(deployment, Condition { kind: "Available", status, reason, message }, moment.wall);
    if changed {
        touch_condition(deployment, "Available", "lastUpdateTime", moment.wall);
    }
    progress(deployment, wanted, counts, &before, target, moment, decision);
}

fn progress(
    deployment: &mut Object,
    wanted: &Wanted,
    counts: &Counts,
    before: &Counts,
    target: Target<'_>,
    moment: &Moment<'_>,
    decision: &mut Decision,
) {
    let reason_before = of_condition(deployment, "Progressing", "reason").unwrap_or_default();
    let set = |name: &str, words: &str| format!("ReplicaSet \"{name}\" {words}");
    let progressed = counts.progressed_since(before);
    let (status, reason, message) = match target {
        _ if wanted.paused => ("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()),
        Target::Made(name) => ("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\"")),
        // Once rolled out, a pod that fails does not make it a rollout again.
        Target::Found(_) if reason_before == "NewReplicaSetAvailable" && counts.old() == 0 => return,
        Target::Found(name) if counts.complete(wanted.bounds.desired) => {
            ("True", "NewReplicaSetAvailable", set(name, "has successfully progressed."))
        }
        Target::Found(name) if progressed || !is_under_way(reason_before) => {
            ("True", "ReplicaSetUpdated", set(name, "is progressing."))
        }
        Target::Missing if progressed || !is_under_way(reason_before) => {
            ("True", "ReplicaSetUpdated", "Old replica sets are being scaled down.".to_owned())
        }
        Target::Found(_) | Target::Missing if reason_before == "ProgressDeadlineExceeded" => return,
        Target::Found(_) | Target::Missing => {
            let since = of_condition(deployment, "Progressing", "lastUpdateTime").and_then(|text| text.parse().ok());
            let lasted = since.map(|since| Duration::try_from(moment.wall.duration_since(since)).unwrap_or_default());
            let left = wanted.deadline.saturating_sub(lasted.unwrap_or_default());
            if !left.is_zero() {
                decision.wake_at(moment.now + left);
                return;
            }
            let name = match target {
                Target::Found(name) => set(name, "has timed out progressing."),
                _ => format!("Deployment \"{}\" has timed out progressing.", deployment.name()),
            };
            ("False", "ProgressDeadlineExceeded", name)
        }
    };
    let condition = Condition { kind: "Progressing", status, reason, message: &message };
    if set_condition(deployment, condition, moment.wall) || progressed {
        touch_condition(deployment, "Progressing", "lastUpdateTime", moment.wall);
    }
    if !matches!(reason, "NewReplicaSetAvailable" | "DeploymentPaused" | "ProgressDeadlineExceeded") {
        decision.wake_at(moment.now + wanted.deadline);
    }
}

fn is_under_way(reason: &str) -> bool {
    matches!(reason, "NewReplicaSetCreated" | "ReplicaSetUpdated" | "ProgressDeadlineExceeded")
}
