//! Keeps one pod of each daemon set on every node it is meant for, also on nodes that join later.
//!
//! A pod is made for its node and pinned to it by affinity; the scheduler binds it as it binds all pods, so that room is counted once. A
//! node that is no longer meant loses its pod; one that is merely not ready, cordoned or lost keeps it. A pod that failed is replaced
//! after a while that doubles each time.
//!
//! Invariant: one transaction per set and decision, which compares the set whenever it makes or ends a pod: two decisions on one snapshot
//! never lead to two pods on a node. While a pod of the set is on a node and has not ended, no other is made for it.

use std::collections::BTreeMap;

use quorate_proto::{
    kinds::{DAEMONSETS, NODES, PODS},
    snapshot::Stored,
    txn::{MAX_OPERATIONS, Txn},
};

use self::wanted::Wanted;
use crate::{
    claim::{Orphans, selector},
    decision::{Decision, Moment, Snapshot},
    edit::update,
    ownership::{by_controller, may_create_beside},
    pod::{end, is_terminating},
    template,
};

mod backoff;
mod new_pod;
mod place;
mod rollout;
mod site;
mod status;
mod wanted;

/// The most nodes on which one decision makes or ends pods of one set: a mistake shows before it is large, and the transaction stays
/// small.
const STEP: usize = 25;

/// The most operations before another node is dealt with: what is done on one, and the set itself, still fit.
const ROOM: usize = MAX_OPERATIONS - 8;

/// What is done on one node.
#[derive(Debug, Clone, Copy, Default)]
struct Act<'a> {
    /// Pods to end.
    end: [Option<&'a Stored>; 2],
    /// A pod to make; how many failed before it, one after the other.
    make: Option<u32>,
}

/// Makes and ends pods, and says in each set's status how it stands.
pub(crate) fn keep_daemons(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let owned = by_controller(snapshot.objects, &PODS);
    let mut orphans = Orphans::of(snapshot);
    for set in snapshot.objects.list(&DAEMONSETS).filter(|set| !is_terminating(&set.object)) {
        let owned = owned.get(set.object.uid()).map_or(&[][..], Vec::as_slice);
        let read = selector(&set.object).and_then(|selector| Ok((selector, Wanted::of(&set.object)?)));
        match read {
            Ok((selector, wanted)) => {
                let pods = orphans.claim(set, owned, &selector, &mut decision);
                keep(snapshot, moment, set, &wanted, &pods, &mut decision);
            }
            Err(reason) => decision.explain(&set.key, reason),
        }
    }
    decision
}

fn keep(
    snapshot: &Snapshot<'_>,
    moment: &Moment<'_>,
    set: &Stored,
    wanted: &Wanted,
    pods: &[&Stored],
    decision: &mut Decision,
) {
    let nodes = snapshot.objects.list(&NODES).map(|node| &node.object);
    let (mut sites, strays) = site::all(nodes, wanted, pods);
    let may_make = may_create_beside(snapshot.objects, &set.object);
    let mut acts: BTreeMap<&str, Act<'_>> = BTreeMap::new();
    for site in &sites {
        let act = site.keep(wanted, may_make, moment, decision);
        if act.make.is_some() || act.end.iter().any(Option::is_some) {
            acts.insert(site.node, act);
        }
    }
    for (node, old) in rollout::replaced(&sites, &acts, wanted, moment, decision) {
        acts.insert(node, Act { end: [Some(old), None], make: None });
    }

    let mut txn = strays.into_iter().take(STEP).fold(Txn::new(), |txn, pod| end(txn, pod, moment.wall));
    let mut full = false;
    for site in sites.iter_mut().filter(|site| acts.contains_key(site.node)).take(STEP) {
        if txn.operations() > ROOM {
            break;
        }
        let act = acts.get(site.node).copied().unwrap_or_default();
        if let Some(failures) = act.make {
            let made = new_pod::of(&set.object, wanted, site.node, failures, moment);
            match made.and_then(|pod| template::make(&txn, &pod, &set.object)) {
                Some(next) => txn = next,
                None => {
                    full = true;
                    break;
                }
            }
            site.made = true;
        }
        for pod in act.end.into_iter().flatten() {
            txn = end(txn, pod, moment.wall);
            site.ended.push(pod.object.uid());
        }
    }
    let counts = status::Counts::of(&sites, wanted, moment, decision);
    if full && txn.writes.is_empty() {
        decision.explain(&set.key, template::too_large());
    } else if let Some(reason) = counts.lacking() {
        decision.explain(&set.key, reason);
    }
    let changed = status::with(&set.object, &counts);
    // When pods are made or ended the set is written even if it stays as it is: the compare on it is the lock.
    decision.propose(if txn.writes.is_empty() {
        update(txn, set, &changed)
    } else {
        txn.update(set.key.clone(), set.modified, changed.to_document())
    });
}

#[cfg(test)]
mod tests;
