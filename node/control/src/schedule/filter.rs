//! Why a node cannot take a pod.
//!
//! Invariant: every node that does not fit has exactly one reason, the first in the order below, so that the counts add up to all nodes.

use std::{collections::BTreeMap, fmt};

use quorate_proto::k8s::api::core::v1::Taint;

use super::{node::Candidate, wanted::Wanted};
use crate::taint::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE, tolerates};

/// Why a node does not fit, in the order in which it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    NotReady,
    Cordoned,
    Tainted(String),
    NotSelected,
    NotInAffinity,
    HostPort(u64),
    Short(String),
}

/// The first reason why a node does not fit, if there is one.
pub(super) fn misfit(wanted: &Wanted, node: &Candidate<'_>) -> Option<Misfit> {
    let tolerated = |taint: &Taint| wanted.tolerations.iter().any(|toleration| tolerates(toleration, taint));
    if !node.ready {
        return Some(Misfit::NotReady);
    }
    let cordon = || Taint { key: UNSCHEDULABLE.to_owned(), effect: NO_SCHEDULE.to_owned(), ..Taint::default() };
    if node.cordoned && !tolerated(&cordon()) {
        return Some(Misfit::Cordoned);
    }
    let taint = node.taints.iter().find(|taint| {
        let forbids = taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE;
        forbids && taint.key != UNSCHEDULABLE && !tolerated(taint)
    });
    if let Some(taint) = taint {
        if [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) {
            return Some(Misfit::NotReady); // the node has just become ready, its taint is about to go
        }
        let value = taint.value.as_deref().filter(|value| !value.is_empty());
        return Some(Misfit::Tainted(
            value.map_or_else(|| taint.key.clone(), |value| format!("{}={value}", taint.key)),
        ));
    }
    if !wanted.affinity.selects(node.node) {
        return Some(Misfit::NotSelected);
    }
    if !wanted.affinity.allows(node.node) {
        return Some(Misfit::NotInAffinity);
    }
    if let Some((_, port)) = wanted.host_ports.intersection(&node.host_ports).next() {
        return Some(Misfit::HostPort(*port));
    }
    let short = wanted.resources.0.iter().find(|(name, amount)| {
        **amount > 0 && node.taken.get(name).saturating_add(**amount) > node.allocatable.get(name)
    });
    short.map(|(name, _)| Misfit::Short(name.clone()))
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => formatter.write_str("not ready"),
            Self::Cordoned => formatter.write_str("cordoned"),
            Self::Tainted(taint) => write!(formatter, "tainted {taint}"),
            Self::NotSelected => formatter.write_str("not matching nodeSelector"),
            Self::NotInAffinity => formatter.write_str("not matching node affinity"),
            Self::HostPort(port) => write!(formatter, "with host port {port} taken"),
            Self::Short(resource) => write!(formatter, "short of {resource}"),
        }
    }
}

/// All nodes that do not fit, counted by reason: `0 of 3 nodes fit: 1 cordoned, 2 short of memory`.
#[derive(Debug, Default)]
pub(super) struct Misfits(BTreeMap<Misfit, usize>);

impl Misfits {
    /// Counts one more node.
    pub(super) fn add(&mut self, misfit: Misfit) {
        *self.0.entry(misfit).or_default() += 1;
    }
}

impl fmt::Display for Misfits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.0.values().sum();
        if all == 0 {
            return formatter.write_str("there are no nodes");
        }
        write!(formatter, "0 of {all} nodes fit: ")?;
        for (index, (misfit, count)) in self.0.iter().enumerate() {
            write!(formatter, "{}{count} {misfit}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
