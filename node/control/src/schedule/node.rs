//! A node as the scheduler sees it: what it has, what is taken, who is there.
//!
//! Invariant: the tally holds every pod that is bound and has not ended, and those chosen in this pass.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::{
    k8s::api::core::v1::Taint,
    kinds::{NODES, PODS},
    object::Object,
};
use serde_json::Value;

use super::{
    resources::Resources,
    wanted::{HostPort, Wanted, host_ports},
};
use crate::{
    decision::{Moment, Snapshot},
    ownership::controller_uid,
    pod::{is_active, is_finished, node_name},
    silence::Silence,
    taint::{PREFER_NO_SCHEDULE, taints, tolerates},
};

/// A node that might take pods.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a Object,
    pub(super) ready: bool,
    pub(super) cordoned: bool,
    pub(super) taints: Vec<Taint>,
    pub(super) allocatable: Resources,
    pub(super) taken: Resources,
    pub(super) host_ports: BTreeSet<HostPort>,
    /// How many active pods of each controller are here.
    siblings: BTreeMap<String, usize>,
}

/// All nodes with what is taken on them.
pub(super) fn candidates<'a>(snapshot: &Snapshot<'a>, moment: &Moment<'_>) -> Vec<Candidate<'a>> {
    let silence = Silence::listen(snapshot, moment);
    let mut candidates: BTreeMap<&str, Candidate<'_>> = snapshot
        .objects
        .list(&NODES)
        .map(|stored| {
            let node = &stored.object;
            let candidate = Candidate {
                name: node.name(),
                node,
                ready: node.is_true("Ready") && !silence.is_silent(node.name()) && node.deletion_timestamp().is_none(),
                cordoned: node.at(&["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true),
                taints: taints(node),
                allocatable: Resources::of_node(node),
                taken: Resources::default(),
                host_ports: BTreeSet::new(),
                siblings: BTreeMap::new(),
            };
            (node.name(), candidate)
        })
        .collect();
    for stored in snapshot.objects.list(&PODS) {
        let pod = &stored.object;
        if is_finished(pod) {
            continue;
        }
        let Some(candidate) = node_name(pod).and_then(|node| candidates.get_mut(node)) else { continue };
        // A bound pod whose requests cannot be read was bound by a newer version: it counts as one pod.
        let resources = Resources::of_pod(pod).unwrap_or_else(|_| Resources([("pods".to_owned(), 1)].into()));
        candidate.taken.add(&resources);
        candidate.host_ports.extend(host_ports(pod));
        if let Some(controller) = controller_uid(pod).filter(|_| is_active(pod)) {
            *candidate.siblings.entry(controller.to_owned()).or_default() += 1;
        }
    }
    candidates.into_values().collect()
}

impl<'a> Candidate<'a> {
    /// How little the node suits the pod: the smallest wins. By taints it would rather not tolerate, pods of the same controller, how full
    /// it then is in thousandths, and its name.
    pub(super) fn score(&self, wanted: &Wanted) -> (usize, usize, i64, &'a str) {
        let unwelcome = self.taints.iter().filter(|taint| {
            taint.effect == PREFER_NO_SCHEDULE
                && !wanted.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        });
        let siblings = wanted.controller.as_ref().and_then(|controller| self.siblings.get(controller));
        let share = |name: &str| {
            let after = self.taken.get(name).saturating_add(wanted.resources.get(name));
            let share = i128::from(after) * 1000 / i128::from(self.allocatable.get(name).max(1));
            i64::try_from(share).unwrap_or(i64::MAX).min(1000)
        };
        let fullness = share("cpu") + share("memory") + share("pods");
        (unwelcome.count(), siblings.copied().unwrap_or_default(), fullness, self.name)
    }

    /// Counts a pod that was just chosen for this node.
    pub(super) fn take(&mut self, wanted: &Wanted) {
        self.taken.add(&wanted.resources);
        self.host_ports.extend(wanted.host_ports.iter().cloned());
        if let Some(controller) = &wanted.controller {
            *self.siblings.entry(controller.clone()).or_default() += 1;
        }
    }
}
