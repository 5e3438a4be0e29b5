//! A cluster of one node for tests: a store that takes what the agent reports, and shows it to the agent again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use quorate_proto::{
    kinds::{Kind, PODS},
    object::Object,
    request::Fact,
    snapshot::Snapshot,
    txn::{Revision, Txn},
    world::{Clock, Instant, Random, Timestamp},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Agent, Config, Parts, ReportError, Reporter, Runtime, Withdrawal};

/// Tokio's clock, beginning at the machine's own time.
pub(crate) struct TestClock {
    start: tokio::time::Instant,
    wall: Timestamp,
}

impl TestClock {
    #[expect(clippy::disallowed_methods, reason = "a real engine's times are compared with it")]
    pub(crate) fn new() -> Self {
        Self { start: tokio::time::Instant::now(), wall: Timestamp::now() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        Instant(Duration::from_secs(3600) + self.start.elapsed())
    }

    fn wall(&self) -> Timestamp {
        self.wall + self.start.elapsed()
    }
}

struct Zeros;

impl Random for Zeros {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// The store.
pub(crate) struct Store {
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) facts: Mutex<Vec<Fact>>,
    /// Reports are refused: the node is cut off.
    pub(crate) cut_off: Mutex<bool>,
    /// What was taken away by this revision, nobody sends new connections to.
    pub(crate) withdrawn: watch::Sender<Revision>,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        let (snapshots, _) = watch::channel(Arc::default());
        let store = Arc::new(Self {
            snapshots,
            facts: Mutex::default(),
            cut_off: Mutex::new(false),
            withdrawn: watch::Sender::new(Revision(u64::MAX)),
        });
        store.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
        store
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    fn change(&self, change: impl FnOnce(&Snapshot) -> Txn) {
        self.snapshots.send_modify(|current| {
            let mut next = Snapshot::clone(current);
            next.commit(&change(current)).unwrap();
            *current = Arc::new(next);
        });
    }

    pub(crate) fn put(&self, object: Value) {
        let object = Object::from_value(object).unwrap();
        let kind = Kind::of(object.api_version(), object.kind()).unwrap();
        let key = kind.key(object.namespace(), object.name()).unwrap();
        self.change(|_| Txn::new().put(key, object.to_document()));
    }

    /// A pod of namespace `shop` bound to node `n1`.
    pub(crate) fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        self.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")}, "spec": spec}));
    }

    pub(crate) fn patch(&self, name: &str, patch: &Value) {
        let key = PODS.key(Some("shop"), name).unwrap();
        self.change(|snapshot| match snapshot.get(&key) {
            Some(stored) => {
                let mut object = stored.object.clone();
                object.merge(patch);
                Txn::new().put(key.clone(), object.to_document())
            }
            None => Txn::new(),
        });
    }

    /// Asks for a deletion; the pod goes when the agent says that nothing is left of it.
    pub(crate) fn delete(&self, name: &str, grace: u32) {
        let deletion = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace});
        self.patch(name, &json!({ "metadata": deletion }));
    }

    /// Removes a pod without waiting for anybody.
    pub(crate) fn forget(&self, name: &str) {
        let key = PODS.key(Some("shop"), name).unwrap();
        self.change(|_| Txn::new().delete(key));
    }

    pub(crate) fn status(&self, name: &str) -> Option<Value> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let stored = snapshot.find(&PODS, Some("shop"), name)?;
        Some(stored.object.at(&["status"]).cloned().unwrap_or(Value::Null))
    }

    /// Waits until the store shows what is asked for.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let mut changes = self.watch();
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            while !so(self) {
                changes.changed().await.unwrap();
            }
        });
        if waited.await.is_err() {
            let snapshot = Arc::clone(&self.snapshots.borrow());
            let pods: Vec<String> = snapshot.list(&PODS).map(|pod| pod.object.to_string()).collect();
            panic!("not so within 90 s: {what}; pods: {pods:#?}; events: {:#?}", self.events());
        }
    }

    pub(crate) async fn until_ready(&self, name: &str) {
        self.until(&format!("{name} is ready"), |store| {
            store.status(name).is_some_and(|status| condition(&status, "Ready") == "True")
        })
        .await;
    }

    /// `reason message` of every event, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let facts = self.facts.lock().unwrap();
        let events = facts.iter().filter_map(|fact| match fact {
            Fact::Event { event } => serde_json::from_slice::<Value>(&event.0).ok(),
            _ => None,
        });
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        events.map(|event| format!("{} {}", text(&event, "reason"), text(&event, "message"))).collect()
    }
}

pub(crate) fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |condition| condition["status"].as_str().unwrap_or_default().to_owned())
}

#[async_trait]
impl Reporter for Arc<Store> {
    async fn report(&self, facts: Vec<Fact>) -> Result<(), ReportError> {
        if *self.cut_off.lock().unwrap() {
            return Err(ReportError("nobody is reachable".into()));
        }
        // Whoever sees a status sees what was told with it.
        self.facts.lock().unwrap().extend(facts.iter().cloned());
        for fact in &facts {
            match fact {
                Fact::Pod { name, status, .. } => {
                    let status: Value = serde_json::from_slice(&status.0).unwrap();
                    self.patch(name, &json!({ "status": status }));
                }
                Fact::Gone { name, .. } => self.forget(name),
                Fact::Event { .. } | Fact::Node { .. } => {}
            }
        }
        // Whoever waits for an event looks again.
        self.snapshots.send_modify(|_| {});
        Ok(())
    }
}

#[async_trait]
impl Withdrawal for Arc<Store> {
    async fn withdrawn(&self, revision: Revision) {
        self.withdrawn.subscribe().wait_for(|withdrawn| *withdrawn >= revision).await.unwrap();
    }
}

/// A running agent; dropped, it stops without touching what runs.
pub(crate) struct Running {
    pub(crate) agent: Agent,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Running {
    pub(crate) fn start(runtime: Arc<dyn Runtime>, store: &Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        let config = Config {
            cluster: quorate_proto::ids::ClusterId(1),
            node: "n1".to_owned(),
            host_address: [192, 0, 2, 1].into(),
            dns: [10, 213, 0, 10].into(),
            zone: "cluster.local".to_owned(),
            drain: Duration::from_secs(60),
            parallel_starts: 3,
        };
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let reporter: Arc<dyn Reporter> = Arc::new(Arc::clone(store));
        let random = Arc::new(Zeros);
        let (snapshots, withdrawal) = (store.watch(), Arc::new(Arc::clone(store)));
        let parts = Parts { config, runtime, snapshots, reporter, withdrawal, clock, random };
        let agent = Agent::start(parts, &tasks, &shutdown);
        Self { agent, tasks, shutdown }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        let stopped = tokio::time::timeout(Duration::from_secs(60), self.tasks.wait()).await;
        assert!(stopped.is_ok(), "a task did not stop with the agent");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
