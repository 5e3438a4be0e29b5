//! A cluster in memory for tests: it commits decisions as the store does, and its agents run every pod at once and well.
//!
//! Invariant: whatever is committed, no node has more than it can take.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use quorate_proto::{
    job::identify,
    key::Key,
    kinds::{DEPLOYMENTS, JOBS, Kind, NODES, PODS},
    object::Object,
    snapshot::{self, Stored},
    txn::{MAX_OPERATIONS, Revision, Txn},
    world::{Instant, Random, Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::{
    decision::{Controller, Decision, Moment, Settings, Snapshot, decide},
    edit::{Condition, set_condition},
    pod::{is_active, is_finished, is_ready, is_terminating, node_name},
};

/// Numbers that differ, and are the same in every run.
struct Counter(AtomicU64);

impl Random for Counter {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let mut number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (number >> 40) as u8;
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) objects: snapshot::Snapshot,
    pub(crate) heard: BTreeMap<String, Instant>,
    pub(crate) leading_since: Instant,
    pub(crate) settings: Settings,
    pub(crate) now: Instant,
    /// Nodes whose agents and heartbeats are cut off.
    pub(crate) cut: Vec<String>,
    random: Counter,
}

impl Cluster {
    /// Ready nodes `n1`, `n2` … of 4 CPU, 4 GiB and 20 pods each.
    pub(crate) fn of_nodes(count: usize) -> Self {
        let mut cluster = Self {
            objects: snapshot::Snapshot::default(),
            heard: BTreeMap::new(),
            leading_since: Instant::default(),
            settings: Settings::default(),
            now: Instant(Duration::from_secs(1000)),
            cut: Vec::new(),
            random: Counter(AtomicU64::new(1)),
        };
        for number in 1..=count {
            cluster.apply(node(&format!("n{number}")));
        }
        cluster.hear();
        cluster
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + self.now.0
    }

    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment { now: self.now, wall: self.wall(), random: &self.random }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            objects: &self.objects,
            heard: &self.heard,
            leading_since: self.leading_since,
            settings: &self.settings,
        }
    }

    pub(crate) fn decide(&self) -> Decision {
        decide(&self.snapshot(), &self.moment())
    }

    pub(crate) fn decide_by(&self, controller: Controller) -> Decision {
        controller(&self.snapshot(), &self.moment())
    }

    /// Creates or replaces an object, as the API would.
    pub(crate) fn apply(&mut self, value: Value) -> Key {
        let mut object = Object::from_value(value).unwrap();
        let kind = Kind::of(object.api_version(), object.kind()).unwrap();
        if kind.namespaced && object.namespace().is_none() {
            object.set(&["metadata", "namespace"], "default");
        }
        let key = kind.key(object.namespace(), object.name()).unwrap();
        match self.objects.get(&key).map(|stored| stored.object.clone()) {
            Some(before) => {
                object.set(&["metadata", "uid"], before.uid());
                object.set(&["metadata", "generation"], before.generation() + 1);
                if let Some(status) = before.at(&["status"]).filter(|_| object.at(&["status"]).is_none()) {
                    object.set(&["status"], status.clone());
                }
            }
            None => {
                if object.uid().is_empty() {
                    object.set(&["metadata", "uid"], self.random.uid());
                }
                if *kind == JOBS {
                    identify(&mut object);
                }
                object.set(&["metadata", "generation"], 1);
                object.set(&["metadata", "creationTimestamp"], rfc3339(self.wall()));
            }
        }
        self.commit(&Txn::new().put(key.clone(), object.to_document()));
        key
    }

    /// Patches an object, as the API would.
    pub(crate) fn patch(&mut self, key: &Key, patch: &Value) {
        let mut object = self.get(key).object.clone();
        object.merge(patch);
        if patch.get("spec").is_some() {
            object.set(&["metadata", "generation"], object.generation() + 1);
        }
        self.commit(&Txn::new().put(key.clone(), object.to_document()));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.commit(&Txn::new().delete(key.clone()));
    }

    pub(crate) fn get(&self, key: &Key) -> &Stored {
        self.objects.get(key).unwrap_or_else(|| panic!("there is no {key}"))
    }

    pub(crate) fn commit(&mut self, txn: &Txn) -> Option<Revision> {
        let revision = self.objects.commit(txn).ok();
        self.assert_no_overcommit();
        revision
    }

    /// Commits a decision: how many of its transactions were stale.
    pub(crate) fn carry_out(&mut self, decision: &Decision) -> usize {
        assert!(decision.operations.iter().all(|txn| txn.operations() <= MAX_OPERATIONS && !txn.compares.is_empty()));
        decision.operations.iter().filter(|txn| self.commit(txn).is_none()).count()
    }

    /// Decides and commits until nothing is left to do, and looks twice.
    pub(crate) fn settle(&mut self) -> Decision {
        for _ in 0..500 {
            let decision = self.decide();
            if decision.operations.is_empty() {
                return decision;
            }
            assert_eq!(self.carry_out(&decision), 0, "nobody else writes");
        }
        panic!("it never rests: {:?}", self.decide().operations);
    }

    /// Decides and lets agents act until nothing moves.
    pub(crate) fn run(&mut self) -> Decision {
        for _ in 0..500 {
            let decision = self.settle();
            if !self.agents_act() {
                return decision;
            }
        }
        panic!("it never rests: {:?}", self.show());
    }

    /// Lets time pass second by second, with heartbeats, decisions and agents.
    pub(crate) fn pass(&mut self, seconds: u64) -> Decision {
        let mut decision = Decision::default();
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            self.hear();
            decision = self.run();
        }
        decision
    }

    fn hear(&mut self) {
        for node in self.objects.list(&NODES) {
            if !self.cut.iter().any(|cut| cut == node.object.name()) {
                self.heard.insert(node.object.name().to_owned(), self.now);
            }
        }
    }

    /// What every agent that is not cut off would do now: starts what is bound, ends what should end, says that it is ready itself.
    pub(crate) fn agents_act(&mut self) -> bool {
        let mut acted = false;
        let pods: Vec<_> = self.objects.list(&PODS).cloned().collect();
        for pod in pods {
            let Some(node) = node_name(&pod.object).filter(|node| !self.cut.iter().any(|cut| cut == node)) else {
                continue;
            };
            if self.objects.find(&NODES, None, node).is_none() {
                continue;
            }
            let broken = pod.object.annotation("test/broken").is_some();
            if is_terminating(&pod.object) {
                acted |= self.say_gone(&pod);
            } else if !is_finished(&pod.object) && (!is_ready(&pod.object) || says_lost(&pod)) && !broken {
                self.make_ready(&pod);
                acted = true;
            }
        }
        let nodes: Vec<_> = self.objects.list(&NODES).cloned().collect();
        for node in nodes {
            let unknown = node.object.condition("Ready").is_some_and(|ready| ready["status"] == "Unknown");
            if unknown && !self.cut.iter().any(|cut| cut == node.object.name()) {
                self.say_ready(node.object.name(), "True");
                acted = true;
            }
        }
        acted
    }

    /// A pod whose agent has ended it goes, or waits for its finalizers alone.
    fn say_gone(&mut self, pod: &Stored) -> bool {
        if pod.object.finalizers().is_empty() {
            self.remove(&pod.key);
            return true;
        }
        let ended = json!({"metadata": {"deletionGracePeriodSeconds": 0}});
        let said = pod.object.at(&["metadata", "deletionGracePeriodSeconds"]) == Some(&0.into());
        if !said {
            self.patch(&pod.key, &ended);
        }
        !said
    }

    fn make_ready(&mut self, pod: &Stored) {
        let mut running = pod.object.clone();
        running.merge(&json!({"status": {"phase": "Running", "reason": null, "message": null}}));
        let ready = Condition { kind: "Ready", status: "True", reason: "", message: "" };
        set_condition(&mut running, ready, self.wall());
        self.commit(&Txn::new().put(pod.key.clone(), running.to_document()));
    }

    pub(crate) fn say_ready(&mut self, node: &str, status: &str) {
        let key = NODES.key(None, node).unwrap();
        let mut changed = self.get(&key).object.clone();
        set_condition(&mut changed, Condition { kind: "Ready", status, reason: "Said", message: "" }, self.wall());
        self.commit(&Txn::new().put(key, changed.to_document()));
    }

    /// The pods in order of age: `web n1 Ready`, by what their names begin with.
    pub(crate) fn show(&self) -> Vec<String> {
        let mut pods: Vec<_> = self.objects.list(&PODS).collect();
        pods.sort_by_key(|pod| (pod.created, pod.key.clone()));
        let line = |pod: &Stored| {
            let object = &pod.object;
            let name = object.name().split('-').next().unwrap_or_default();
            let state = match object.text(&["status", "phase"]) {
                _ if is_terminating(object) => "Terminating",
                Some("Running") if is_ready(object) => "Ready",
                phase => phase.unwrap_or("Pending"),
            };
            format!("{name} {} {state}", node_name(object).unwrap_or("-"))
        };
        pods.into_iter().map(|pod| line(pod)).collect()
    }

    pub(crate) fn active(&self, owner: &str) -> Vec<&Stored> {
        let pods = self.objects.list(&PODS).map(AsRef::as_ref);
        pods.filter(|pod: &&Stored| pod.object.name().starts_with(owner) && is_active(&pod.object)).collect()
    }

    pub(crate) fn deployment(&self, name: &str) -> &Object {
        &self.objects.find(&DEPLOYMENTS, Some("default"), name).unwrap().object
    }

    fn assert_no_overcommit(&self) {
        let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
        for pod in self.objects.list(&PODS).filter(|pod| !is_finished(&pod.object)) {
            let Some(node) = node_name(&pod.object) else { continue };
            let memory = pod.object.at(&["spec", "containers"]).and_then(|containers| {
                containers[0]["resources"]["requests"]["memory"].as_str()?.strip_suffix("Gi")?.parse::<u64>().ok()
            });
            *taken.entry(node).or_default() += memory.unwrap_or_default();
        }
        assert!(taken.values().all(|memory| *memory <= 4), "more than 4 GiB on a node: {taken:?}");
    }
}

/// Whether a pod says that its node is lost: its agent knows better.
fn says_lost(pod: &Stored) -> bool {
    pod.object.text(&["status", "reason"]) == Some("NodeLost")
}

pub(crate) fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "20"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "NodeReady"}],
        },
    })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "main"}]}})
}

/// A pod that asks for so many GiB.
pub(crate) fn large_pod(name: &str, gib: u64) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": format!("{gib}Gi")}});
    pod
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}})
}

pub(crate) fn replicaset(name: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("web:1")},
    })
}

pub(crate) fn daemonset(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
    })
}

pub(crate) fn job(name: &str, spec: &Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "work:1"}]}}},
    });
    if let (Value::Object(job), Value::Object(spec)) = (&mut job["spec"], spec.clone()) {
        job.extend(spec);
    }
    job
}

pub(crate) fn cronjob(name: &str, schedule: &str, spec: &Value) -> Value {
    let mut cron = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job(name, &json!({}))["spec"]}},
    });
    if let (Value::Object(cron), Value::Object(spec)) = (&mut cron["spec"], spec.clone()) {
        cron.extend(spec);
    }
    cron
}

pub(crate) fn deployment(name: &str, replicas: u64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
    })
}
