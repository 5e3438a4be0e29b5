//! Ends pods on nodes whose `NoExecute` taints they do not tolerate; their controllers replace them elsewhere.
//!
//! `tolerationSeconds` are honoured as written, counted from the taint's `timeAdded`; pods that do not mention a taint end at once. An
//! evicted pod stays until its node's agent has ended it, or the node object is deleted: nobody else can know. What is to be known of
//! pods on a node that is not heard is written into them (see `lost`).
//!
//! Invariant: while most nodes fail at once (see `silence`), no pod is ended because its node failed.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    k8s::api::core::v1::{Taint, Toleration},
    kinds::{NODES, PODS},
    snapshot::Stored,
    txn::Txn,
    world::Timestamp,
};

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{of_condition, update},
    lost::{self, Fate},
    pod::{ask_to_end, is_finished, is_terminating, node_name},
    silence::Silence,
    taint::{NO_EXECUTE, NOT_READY, UNREACHABLE, taints, tolerates, tolerations},
};

/// A node that some pods may not stay on.
struct Failing<'a> {
    node: &'a Stored,
    /// Those that end pods.
    taints: Vec<Taint>,
    /// What is to be said of its silence; `None` if it is heard.
    silence: Option<String>,
}

/// Ends what may not stay where it is.
pub(crate) fn evict(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let silence = Silence::listen(snapshot, moment);
    let nodes = snapshot.objects.list(&NODES).map(|node| (node.object.name(), Failing::of(node, &silence)));
    let failing: BTreeMap<&str, Failing<'_>> = nodes.filter(|(_, node)| node.fails()).collect();
    if failing.is_empty() {
        return decision;
    }
    for pod in snapshot.objects.list(&PODS) {
        let Some(failing) = node_name(&pod.object).and_then(|node| failing.get(node)) else { continue };
        let cut_off = silence.cut_off.as_ref().filter(|_| failing.is_failed());
        let fate = match cut_off {
            _ if is_terminating(&pod.object) => Fate::Ends,
            Some(reason) => {
                decision.explain(&pod.key, reason);
                Fate::Held(reason)
            }
            None => match time_left(&failing.taints, &tolerations(&pod.object), moment.wall) {
                Some(left) if left.is_zero() => Fate::Ends,
                Some(left) => {
                    decision.wake_at(moment.now + left);
                    Fate::EndsAt(moment.wall.checked_add(left).unwrap_or(moment.wall))
                }
                None => Fate::Stays,
            },
        };
        let mut changed = pod.object.clone();
        if fate == Fate::Ends {
            ask_to_end(&mut changed, moment.wall);
        }
        if let Some(silence) = failing.silence.as_ref().filter(|_| !is_finished(&pod.object)) {
            let why = lost::why(&pod.object, silence, fate);
            lost::tell(&mut changed, &why, fate, moment.wall);
            decision.explain(&pod.key, why);
        }
        // Decided on what the node was: if it has been heard meanwhile, it is decided anew.
        let unless_heard = Txn::new().expect(failing.node.key.clone(), Some(failing.node.modified));
        decision.propose(update(unless_heard, pod, &changed));
    }
    decision
}

impl<'a> Failing<'a> {
    fn of(node: &'a Stored, silence: &Silence<'_>) -> Self {
        let mut taints = taints(&node.object);
        taints.retain(|taint| taint.effect == NO_EXECUTE);
        let unknown = of_condition(&node.object, "Ready", "status") == Some("Unknown");
        let name = node.object.name();
        let acted_on = silence.cut_off.is_some() || taints.iter().any(|taint| taint.key == UNREACHABLE);
        let silent = unknown && acted_on && silence.is_silent(name);
        Self { node, taints, silence: silent.then(|| silence.say(name)) }
    }

    const fn fails(&self) -> bool {
        !self.taints.is_empty() || self.silence.is_some()
    }

    /// Whether the node itself failed; a user may have other reasons to want pods off it.
    fn is_failed(&self) -> bool {
        self.silence.is_some() || self.taints.iter().any(|taint| taint.key == UNREACHABLE || taint.key == NOT_READY)
    }
}

/// How long a pod may stay under these taints; `None` for ever.
fn time_left(taints: &[Taint], tolerations: &[Toleration], wall: Timestamp) -> Option<Duration> {
    let left = |taint: &Taint| {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Some(Duration::ZERO);
        };
        let allowed = Duration::from_secs(toleration.toleration_seconds?.max(0).unsigned_abs());
        let since = taint.time_added.as_ref().map_or(wall, |added| added.0);
        let lasted = Duration::try_from(wall.duration_since(since)).unwrap_or_default();
        Some(allowed.saturating_sub(lasted))
    };
    taints.iter().filter_map(left).min()
}

#[cfg(test)]
mod tests;
