//! Whether a node is meant for a set's pods (`NodeShouldRunDaemonPod` in Kubernetes).
//!
//! Invariant: what would make the scheduler or eviction send the pod away is decided by the same taints and tolerations here, so that a
//! pod is never made only to be ended.

use quorate_proto::{k8s::api::core::v1::Taint, object::Object};

use super::wanted::Wanted;
use crate::taint::{NO_EXECUTE, NO_SCHEDULE, taints, tolerates};

/// What a node is to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It should run a pod.
    Runs,
    /// It gets none; one that is there stays, for example while the node is lost.
    Stays,
    /// It runs none.
    Never,
}

/// What a node is to a set.
pub(super) fn of(node: &Object, wanted: &Wanted) -> Place {
    let named = wanted.node.as_ref().is_none_or(|name| name == node.name());
    if !named || !wanted.affinity.selects(node) || !wanted.affinity.allows(node) {
        return Place::Never;
    }
    let tolerated = |taint: &Taint| wanted.tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let forbids = |effect: &str| taints(node).iter().any(|taint| taint.effect == effect && !tolerated(taint));
    if forbids(NO_EXECUTE) {
        Place::Never
    } else if forbids(NO_SCHEDULE) {
        Place::Stays
    } else {
        Place::Runs
    }
}
