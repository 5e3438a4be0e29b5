//! One node as a set sees it: what it is to the set, and which of the set's pods are there.
//!
//! Invariant: a pod is made for a node only if none of the set's pods is there, or all that are have failed.

use std::collections::BTreeMap;

use quorate_proto::{object::Object, snapshot::Stored};

use super::{
    Act, backoff,
    new_pod::REVISION,
    place::{self, Place},
    wanted::Wanted,
};
use crate::{
    affinity::pinned_to,
    decision::{Decision, Moment},
    pod::{is_active, is_finished, is_terminating, node_name},
};

/// A node, and the set's pods on it.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) node: &'a str,
    pub(super) place: Place,
    /// Oldest first.
    pods: Vec<&'a Stored>,
    /// Whether a pod is made here by this decision.
    pub(super) made: bool,
    /// Uids of the pods that are ended here by this decision.
    pub(super) ended: Vec<&'a str>,
}

/// All nodes that are meant or have pods of the set, by name; and the pods whose node is not there and that nobody can end but us: those
/// that were pinned to it and not yet bound.
pub(super) fn all<'a>(
    nodes: impl Iterator<Item = &'a Object>,
    wanted: &Wanted,
    pods: &[&'a Stored],
) -> (Vec<Site<'a>>, Vec<&'a Stored>) {
    let mut sites: BTreeMap<&str, Site<'a>> = nodes
        .map(|node| {
            let place = place::of(node, wanted);
            (node.name(), Site { node: node.name(), place, pods: Vec::new(), made: false, ended: Vec::new() })
        })
        .collect();
    let mut strays = Vec::new();
    for pod in pods {
        let bound = node_name(&pod.object);
        let Some(node) = bound.or_else(|| pinned_to(&pod.object)) else { continue };
        match sites.get_mut(node) {
            Some(site) => site.pods.push(pod),
            None if bound.is_none() && !is_terminating(&pod.object) => strays.push(*pod),
            None => {}
        }
    }
    let mut sites: Vec<_> = sites.into_values().collect();
    sites.retain(|site| site.place == Place::Runs || !site.pods.is_empty());
    for site in &mut sites {
        site.pods.sort_by_key(|pod| (pod.created, pod.key.clone()));
    }
    (sites, strays)
}

/// Whether a pod is of the present template.
pub(super) fn is_updated(pod: &Object, wanted: &Wanted) -> bool {
    pod.label(REVISION) == Some(&wanted.revision)
}

impl<'a> Site<'a> {
    /// The pod that counts here: the oldest that neither ended nor is asked to, also by this decision.
    pub(super) fn active(&self) -> Option<&'a Stored> {
        self.pods.iter().copied().find(|pod| is_active(&pod.object) && !self.is_ended(pod))
    }

    /// Whether the set has any pod here after this decision, even one that ends.
    pub(super) fn is_taken(&self) -> bool {
        self.made || self.pods.iter().any(|pod| node_name(&pod.object).is_some() || !self.is_ended(pod))
    }

    fn is_ended(&self, pod: &Stored) -> bool {
        self.ended.contains(&pod.object.uid())
    }

    /// Makes the pod that is missing here, and ends one that is too many.
    pub(super) fn keep(
        &self,
        wanted: &Wanted,
        may_make: bool,
        moment: &Moment<'_>,
        decision: &mut Decision,
    ) -> Act<'a> {
        let waiting = || self.pods.iter().copied().filter(|pod| !is_terminating(&pod.object));
        if self.place == Place::Never {
            let mut pods = waiting();
            return Act { end: [pods.next(), pods.next()], make: None };
        }
        let active = self.active();
        // The newest knows how many failed before it.
        let mut failed = waiting().filter(|pod| is_finished(&pod.object)).rev();
        let extra = waiting().filter(|pod| is_active(&pod.object)).nth(1);
        if active.is_some() || self.place == Place::Stays {
            return Act { end: [failed.next(), extra], make: None };
        }
        let Some(last) = failed.next() else {
            return Act { end: [None; 2], make: (self.pods.is_empty() && may_make).then_some(0) };
        };
        let (failures, wait) = backoff::after(last, wanted, moment.wall);
        let ending = self.pods.iter().any(|pod| is_terminating(&pod.object));
        if !wait.is_zero() {
            decision.wake_at(moment.now + wait);
        }
        let due = wait.is_zero() && !ending && may_make;
        Act { end: [due.then_some(last), failed.next()], make: due.then_some(failures) }
    }
}
