//! What must hold at every revision on every node, and what a run left behind as one number.
//!
//! Every node's snapshots are looked at as that node gets them, so that a node that is behind, or was cut off, is checked too.
//!
//! Invariant: checking changes nothing: no message, no write, no number drawn.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_proto::{
    kinds::{DEPLOYMENTS, NODES, PODS, REPLICASETS},
    object::Object,
    quantity::Quantity,
    snapshot::{Snapshot, Stored},
    txn::Revision,
    world::{Clock, Instant},
};
use serde_json::Value;
use tokio::sync::watch;

use super::world::SimClock;

/// For how many revisions pods may still be made for a size that was taken back: whoever makes them had not seen it yet.
const LATE: usize = 20;

/// Looks at everything, remembers what was wrong.
pub(super) struct Checker {
    clock: Arc<SimClock>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    wrong: Vec<String>,
    /// What every node must have at a revision.
    digests: BTreeMap<Revision, (u64, String)>,
    /// The node each pod was bound to, by uid.
    bound: BTreeMap<String, String>,
    /// How many pods of a deployment must be ready.
    floors: BTreeMap<String, usize>,
    trace: DefaultHasher,
}

impl Checker {
    pub(super) fn new(clock: &Arc<SimClock>) -> Self {
        Self { clock: Arc::clone(clock), seen: Mutex::default() }
    }

    /// Looks at every snapshot a node gets, until it stops.
    pub(super) async fn watch(self: Arc<Self>, node: String, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut last = Revision::default();
        let mut sizes = BTreeMap::new();
        snapshots.mark_changed();
        while snapshots.changed().await.is_ok() {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let now = self.clock.now();
            let mut seen = self.seen();
            if snapshot.revision() < last {
                seen.note(now, &node, &format!("went back from revision {last} to {}", snapshot.revision()));
            }
            last = snapshot.revision();
            seen.look(now, &node, &snapshot, &mut sizes);
        }
    }

    /// From now on so many pods of a deployment must be ready at every revision.
    pub(super) fn never_below(&self, deployment: &str, ready: usize) {
        self.seen().floors.insert(deployment.to_owned(), ready);
    }

    /// Something happened that two runs of one seed must have in common.
    pub(super) fn trace(&self, what: &str) {
        let now = self.clock.now();
        (now, what).hash(&mut self.seen().trace);
    }

    /// All that happened so far, as a number.
    pub(super) fn digest(&self) -> u64 {
        self.seen().trace.finish()
    }

    /// What was wrong so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.seen().wrong.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, now: Instant, node: &str, what: &str) {
        self.wrong.push(format!("after {:?}, on {node}: {what}", now.0));
    }

    fn look(
        &mut self,
        now: Instant,
        node: &str,
        snapshot: &Snapshot,
        sizes: &mut BTreeMap<String, VecDeque<(Revision, u64)>>,
    ) {
        let revision = snapshot.revision();
        let digest = digest(snapshot);
        (now, node, revision, digest).hash(&mut self.trace);
        let (agreed, by) = self.digests.entry(revision).or_insert_with(|| (digest, node.to_owned())).clone();
        if agreed != digest {
            self.note(now, node, &format!("revision {revision} is not what {by} has"));
        }
        let wrong: Vec<String> = self
            .moved(snapshot)
            .chain(overcommitted(snapshot))
            .chain(too_many(snapshot, sizes))
            .chain(self.too_few(snapshot))
            .map(|what| format!("revision {revision}: {what}"))
            .collect();
        wrong.iter().for_each(|what| self.note(now, node, what));
    }

    /// Pods that are bound to another node than before.
    fn moved(&mut self, snapshot: &Snapshot) -> std::vec::IntoIter<String> {
        let mut moved = Vec::new();
        for pod in snapshot.list(&PODS) {
            let Some(node) = pod.object.text(&["spec", "nodeName"]) else { continue };
            let before = self.bound.entry(pod.object.uid().to_owned()).or_insert_with(|| node.to_owned());
            if before != node {
                moved.push(format!("pod {} was bound to {before} and then to {node}", pod.object.name()));
            }
        }
        moved.into_iter()
    }

    /// Deployments with fewer ready pods than was promised.
    fn too_few(&self, snapshot: &Snapshot) -> std::vec::IntoIter<String> {
        let mut few = Vec::new();
        for (deployment, floor) in &self.floors {
            let Some(stored) = snapshot.find(&DEPLOYMENTS, Some("default"), deployment) else { continue };
            let ready =
                pods_of(snapshot, &stored.object).filter(|pod| is_active(pod) && pod.object.is_true("Ready")).count();
            if ready < *floor {
                few.push(format!("{ready} pods of {deployment} are ready, never below {floor} was promised"));
            }
        }
        few.into_iter()
    }
}

/// Everything in a snapshot: what changed last by its contents, the rest by when it changed.
fn digest(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    for stored in snapshot.all() {
        (stored.key.as_str(), stored.created, stored.modified).hash(&mut hasher);
        if stored.modified == snapshot.revision() {
            stored.object.to_string().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Nodes that were promised to more pods than they have room for.
fn overcommitted(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let mut taken: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for pod in snapshot.list(&PODS) {
        let ended = matches!(pod.object.text(&["status", "phase"]), Some("Succeeded" | "Failed"));
        let Some(node) = pod.object.text(&["spec", "nodeName"]).filter(|_| !ended) else { continue };
        for resource in ["cpu", "memory"] {
            let containers = pod.object.at(&["spec", "containers"]).and_then(Value::as_array).into_iter().flatten();
            let requests =
                containers.filter_map(|container| container.pointer(&format!("/resources/requests/{resource}")));
            *taken.entry((node, resource)).or_default() += requests.filter_map(Value::as_str).map(millis).sum::<i64>();
        }
    }
    let over = taken.into_iter().filter_map(|((node, resource), taken)| {
        let stored = snapshot.find(&NODES, None, node)?;
        let room = millis(stored.object.text(&["status", "allocatable", resource])?);
        (taken > room).then(|| format!("{node} has {resource} for {room} and promised {taken} (thousandths)"))
    });
    over.collect::<Vec<_>>().into_iter()
}

fn millis(quantity: &str) -> i64 {
    quantity.parse::<Quantity>().expect("a quantity that was validated").millis()
}

/// Deployments for which a pod was just made beyond what they want and may have more while they roll out.
fn too_many(
    snapshot: &Snapshot,
    sizes: &mut BTreeMap<String, VecDeque<(Revision, u64)>>,
) -> impl Iterator<Item = String> {
    let mut many = Vec::new();
    for stored in snapshot.list(&DEPLOYMENTS) {
        let recent = sizes.entry(stored.object.uid().to_owned()).or_default();
        recent.push_back((snapshot.revision(), most(&stored.object)));
        if recent.len() > LATE {
            recent.pop_front();
        }
        let most = recent.iter().map(|(_, most)| *most).max().unwrap_or_default();
        let active: Vec<_> = pods_of(snapshot, &stored.object).filter(|pod| is_active(pod)).collect();
        let grew = active.iter().any(|pod| pod.created == snapshot.revision());
        if grew && active.len() as u64 > most {
            many.push(format!("{} has {} pods and may have {most}", stored.object.name(), active.len()));
        }
    }
    many.into_iter()
}

/// `replicas` and `maxSurge`, which is a quarter, rounded up, unless the deployment says a number.
fn most(deployment: &Object) -> u64 {
    let replicas = deployment.at(&["spec", "replicas"]).and_then(Value::as_u64).unwrap_or(1);
    let surge = deployment.at(&["spec", "strategy", "rollingUpdate", "maxSurge"]).and_then(Value::as_u64);
    replicas + surge.unwrap_or_else(|| replicas.div_ceil(4))
}

fn is_active(pod: &Stored) -> bool {
    let ended = matches!(pod.object.text(&["status", "phase"]), Some("Succeeded" | "Failed"));
    pod.object.deletion_timestamp().is_none() && !ended
}

fn pods_of<'a>(snapshot: &'a Snapshot, deployment: &Object) -> impl Iterator<Item = &'a Arc<Stored>> {
    let sets: Vec<_> = snapshot.list(&REPLICASETS).filter(|set| set.object.is_controlled_by(deployment)).collect();
    let owned = move |pod: &&Arc<Stored>| sets.iter().any(|set| pod.object.is_controlled_by(&set.object));
    snapshot.list(&PODS).filter(owned)
}
