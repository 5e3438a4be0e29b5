//! Binds waiting pods to nodes.
//!
//! All waiting pods are decided in one pass against a running tally, so that two of them never count on the same room. What is bound and
//! has not ended counts, also while it ends. Which node is chosen among those that fit: one that no `PreferNoSchedule` speaks against,
//! with the fewest pods of the same controller, then the emptiest.
//!
//! Invariant: a pod is bound once and never moved; no node gets more than its `status.allocatable`.

use quorate_proto::{kinds::PODS, snapshot::Stored, txn::Txn};

use self::{filter::Misfits, wanted::Wanted};
use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{Condition, items, number, set_condition, update},
    pod::{is_active, node_name},
};

mod filter;
mod node;
mod resources;
mod wanted;

/// The most bindings of one decision. The next decision carries on: this only keeps a proposal queue short.
const MAX_BINDINGS: usize = 256;

/// Binds what waits, and says of what does not fit why not.
pub(crate) fn schedule(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let mut waiting: Vec<&Stored> = snapshot.objects.list(&PODS).map(AsRef::as_ref).filter(|pod| waits(pod)).collect();
    if waiting.is_empty() {
        return decision;
    }
    waiting.sort_by_cached_key(|pod| {
        let priority = number(&pod.object, &["spec", "priority"]).unwrap_or_default();
        (std::cmp::Reverse(priority), pod.created, pod.key.clone())
    });
    let mut nodes = node::candidates(snapshot, moment);
    for pod in waiting {
        if decision.operations.len() >= MAX_BINDINGS {
            break;
        }
        let wanted = match Wanted::of(&pod.object) {
            Ok(wanted) => wanted,
            Err(reason) => {
                decision.explain(&pod.key, reason);
                continue;
            }
        };
        let mut misfits = Misfits::default();
        let chosen = nodes
            .iter_mut()
            .filter_map(|node| match filter::misfit(&wanted, node) {
                None => Some(node),
                Some(reason) => {
                    misfits.add(reason);
                    None
                }
            })
            .min_by_key(|node| node.score(&wanted));
        match chosen {
            Some(node) => {
                node.take(&wanted);
                decision.propose(bind(pod, node.name, moment));
            }
            None => {
                let message = misfits.to_string();
                decision.propose(cannot_bind(pod, &message, moment));
                decision.explain(&pod.key, message);
            }
        }
    }
    decision
}

fn waits(pod: &Stored) -> bool {
    node_name(&pod.object).is_none()
        && is_active(&pod.object)
        && items(&pod.object, &["spec", "schedulingGates"]).is_empty()
        && matches!(pod.object.text(&["spec", "schedulerName"]), None | Some("" | "default-scheduler"))
}

fn bind(pod: &Stored, node: &str, moment: &Moment<'_>) -> Txn {
    let mut bound = pod.object.clone();
    bound.set(&["spec", "nodeName"], node);
    let scheduled = Condition { kind: "PodScheduled", status: "True", reason: "", message: "" };
    set_condition(&mut bound, scheduled, moment.wall);
    update(Txn::new(), pod, &bound)
}

fn cannot_bind(pod: &Stored, message: &str, moment: &Moment<'_>) -> Txn {
    let mut waiting = pod.object.clone();
    let unschedulable = Condition { kind: "PodScheduled", status: "False", reason: "Unschedulable", message };
    set_condition(&mut waiting, unschedulable, moment.wall);
    update(Txn::new(), pod, &waiting)
}

#[cfg(test)]
mod tests;
