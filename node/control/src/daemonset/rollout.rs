//! Which old pods a rolling update ends next (`rollingUpdate` without surge in Kubernetes).
//!
//! Invariant: because of a step, at most `maxUnavailable` of the nodes that should run a pod are without an available one. A pod that is
//! not available anyway is replaced at once.

use std::collections::BTreeMap;

use quorate_proto::snapshot::Stored;

use super::{
    Act,
    place::Place,
    site::{Site, is_updated},
    wanted::Wanted,
};
use crate::{
    decision::{Decision, Moment},
    pod::available_in,
};

/// The old pods to end now, by node; `acts` is what is done on nodes anyway. The pods that take their place are made once they are gone.
pub(super) fn replaced<'a>(
    sites: &[Site<'a>],
    acts: &BTreeMap<&'a str, Act<'a>>,
    wanted: &Wanted,
    moment: &Moment<'_>,
    decision: &mut Decision,
) -> Vec<(&'a str, &'a Stored)> {
    let meant: Vec<&Site<'a>> = sites.iter().filter(|site| site.place == Place::Runs).collect();
    let Some(most) = wanted.most_unavailable(meant.len()) else { return Vec::new() };
    let (mut unavailable, mut useless, mut useful) = (0, Vec::new(), Vec::new());
    for site in meant {
        let Some(pod) = site.active().filter(|_| !acts.contains_key(site.node)) else {
            unavailable += 1;
            continue;
        };
        let wait = available_in(&pod.object, wanted.min_ready, moment.wall);
        let available = wait.is_some_and(|wait| wait.is_zero());
        unavailable += usize::from(!available);
        if !is_updated(&pod.object, wanted) {
            if available { &mut useful } else { &mut useless }.push((site.node, pod));
        } else if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            decision.wake_at(moment.now + wait);
        }
    }
    useful.truncate(most.saturating_sub(unavailable));
    useless.extend(useful);
    useless
}
