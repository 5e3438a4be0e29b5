//! The agreed state in memory, and a user of the pipeline, for tests.
//!
//! Invariant: it behaves as the store does: transactions compare, a request id is answered once, changes are ordered and complete.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    key::Key,
    kinds::Kind,
    lease::{Lease, LeaseId},
    object::Object,
    query::{Page, Query},
    refusal::{Reason, Refusal},
    request::{ClusterStatus, Logs, Read, Reference, TokenInfo},
    snapshot::Snapshot,
    txn::{Change, Command, CommandOutcome, Document, Outcome, Revision, Txn, Versioned, Write},
    watch::WatchSpec,
    world::{Clock, Instant, Random, Timestamp},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    pipeline::{Moment, Plan},
    seam::{Caller, Changes, Cluster, Deliveries, Desired, Ended, KeyValue, Settings, Unread},
};

pub(crate) const CLUSTER: ClusterId = ClusterId(7);

pub(crate) fn settings() -> Settings {
    Settings { cluster: CLUSTER, service_range: (Ipv4Addr::new(10, 213, 0, 0), 16) }
}

/// 2027-01-15T08:00:00Z.
pub(crate) fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn document(value: &Value) -> Document {
    Document(Bytes::from(value.to_string()))
}

pub(crate) fn reference(kind: &str, name: &str) -> Reference {
    Reference { kind: kind.to_owned(), namespace: None, name: name.to_owned() }
}

/// Numbers that never repeat, as bytes.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Random for Counter {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            // Spread over all bits, as a real source's are (Fibonacci hashing).
            let number = (self.0.fetch_add(1, Ordering::Relaxed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::default()
    }

    fn wall(&self) -> Timestamp {
        wall()
    }
}

/// One user and one state, without anything async: decide, commit, look.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) wall: Timestamp,
    random: Counter,
    settings: Settings,
}

impl World {
    /// A cluster with the namespace `default` and one node, `n1`, that is ready.
    pub(crate) fn new() -> Self {
        let mut world =
            Self { snapshot: Snapshot::default(), wall: wall(), random: Counter::default(), settings: settings() };
        world.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "uid": "ns"}}));
        world.put(node("n1", NodeId(1), "True"));
        world
    }

    pub(crate) fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Writes an object past the API, as controllers do.
    pub(crate) fn put(&mut self, value: Value) {
        let object = Object::from_value(value).unwrap();
        let kind = Kind::of(object.api_version(), object.kind()).unwrap();
        let key = kind.key(object.namespace(), object.name()).unwrap();
        self.snapshot.commit(&Txn::new().put(key, object.to_document())).unwrap();
    }

    /// Decides without writing.
    pub(crate) fn try_out(
        &self,
        decide: impl FnOnce(&Snapshot, &Moment<'_>) -> Result<Plan, Refusal>,
    ) -> Result<Plan, Refusal> {
        let moment = Moment { wall: self.wall, request: self.random.request_id(), settings: &self.settings };
        decide(&self.snapshot, &moment)
    }

    /// Decides and writes.
    pub(crate) fn run(
        &mut self,
        decide: impl FnOnce(&Snapshot, &Moment<'_>) -> Result<Plan, Refusal>,
    ) -> Result<Plan, Refusal> {
        let plan = self.try_out(decide)?;
        self.snapshot.commit(&plan.txn).unwrap();
        Ok(plan)
    }

    pub(crate) fn apply(&mut self, value: &Value) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::pipeline::apply(&document(value), snapshot, moment))
    }

    pub(crate) fn create(&mut self, value: &Value) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::pipeline::create(&document(value), snapshot, moment))
    }

    pub(crate) fn replace(&mut self, value: &Value) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::pipeline::replace(&document(value), snapshot, moment))
    }

    pub(crate) fn patch(&mut self, kind: &str, name: &str, patch: &Value) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::pipeline::patch(&reference(kind, name), &document(patch), snapshot, moment))
    }

    pub(crate) fn scale(&mut self, kind: &str, name: &str, replicas: u32) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::pipeline::scale(&reference(kind, name), replicas, snapshot, moment))
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str, grace: Option<u32>) -> Result<Plan, Refusal> {
        self.run(|snapshot, moment| crate::delete::plan(&reference(kind, name), grace, snapshot, moment))
    }

    /// The stored object, in `default` or cluster-scoped.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Object> {
        self.snapshot.find(Kind::named(kind).unwrap(), None, name).map(|stored| stored.object.clone())
    }
}

pub(crate) fn node(name: &str, id: NodeId, ready: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("node-{name}"), "generation": 1},
        "spec": {"providerID": format!("quorate://{CLUSTER}/{id}")},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

pub(crate) fn daemonset(name: &str) -> Value {
    let mut set = deployment(name);
    set["kind"] = json!("DaemonSet");
    set["spec"].as_object_mut().unwrap().remove("replicas");
    set
}

pub(crate) fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "work:1"}]}}},
    })
}

pub(crate) fn cronjob(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "30 2 * * *", "jobTemplate": {"spec": job(name)["spec"]}},
    })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    log: Vec<Change>,
    answers: BTreeMap<RequestId, Outcome>,
    /// Committed by someone else just before the next proposal.
    meanwhile: Vec<Txn>,
}

impl State {
    fn commit(&mut self, txn: &Txn) -> Outcome {
        match self.snapshot.commit(txn) {
            Err(key) => Outcome::Stale(key),
            Ok(revision) => {
                for write in &txn.writes {
                    let key = write.key().clone();
                    let now = match write {
                        Write::Put(_, document) => self.snapshot.get(&key).map(|stored| Versioned {
                            document: document.clone(),
                            created: stored.created,
                            modified: revision,
                        }),
                        Write::Delete(_) => None,
                    };
                    self.log.push(Change { revision, key, now });
                }
                Outcome::Applied(revision)
            }
        }
    }
}

/// The store, in memory.
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    length: watch::Sender<usize>,
}

impl Memory {
    pub(crate) fn new(snapshot: Snapshot) -> Arc<Self> {
        let state = State { snapshot, ..State::default() };
        Arc::new(Self { state: Arc::new(Mutex::new(state)), length: watch::Sender::new(0) })
    }

    pub(crate) fn now(&self) -> Snapshot {
        self.state.lock().unwrap().snapshot.clone()
    }

    /// Writes past the API.
    pub(crate) fn commit(&self, txn: &Txn) -> Outcome {
        let mut state = self.state.lock().unwrap();
        let outcome = state.commit(txn);
        self.length.send_replace(state.log.len());
        outcome
    }

    /// Someone else's transaction, which wins the race against the next proposal.
    pub(crate) fn meanwhile(&self, txn: Txn) {
        self.state.lock().unwrap().meanwhile.push(txn);
    }
}

#[async_trait]
impl Desired for Memory {
    async fn snapshot(&self, _read: Read) -> Result<Arc<Snapshot>, Refusal> {
        Ok(Arc::new(self.now()))
    }

    async fn propose(&self, request: RequestId, txn: Txn) -> Result<Outcome, Refusal> {
        tokio::task::yield_now().await; // others may come between a decision and its proposal
        let mut state = self.state.lock().unwrap();
        if let Some(answer) = state.answers.get(&request) {
            return Ok(answer.clone());
        }
        if let Some(other) = state.meanwhile.pop() {
            state.commit(&other);
        }
        let outcome = state.commit(&txn);
        state.answers.insert(request, outcome.clone());
        self.length.send_replace(state.log.len());
        Ok(outcome)
    }

    fn changes(&self, after: Revision) -> Changes {
        let (state, length) = (Arc::clone(&self.state), self.length.subscribe());
        stream::unfold((state, length, after), move |(state, mut length, after)| async move {
            loop {
                let next: Arc<[Change]> = {
                    let state = state.lock().unwrap();
                    let mut later = state.log.iter().filter(|change| change.revision > after).peekable();
                    let revision = later.peek().map(|change| change.revision);
                    later.take_while(|change| Some(change.revision) == revision).cloned().collect()
                };
                match next.first().map(|change| change.revision) {
                    Some(revision) => return Some((Ok(next), (state, length, revision))),
                    None => length.changed().await.ok()?,
                }
            }
        })
        .boxed()
    }

    fn at(&self, key: &Key, revision: Revision) -> Result<Option<Versioned>, Refusal> {
        let state = self.state.lock().unwrap();
        let last = state.log.iter().rev().find(|change| change.key == *key && change.revision <= revision);
        Ok(last.and_then(|change| change.now.clone()))
    }
}

/// A node that knows nothing but logs.
pub(crate) struct Alone;

#[async_trait]
impl KeyValue for Alone {
    async fn query(&self, _read: Read, _query: &Query) -> Result<Page, Unread> {
        Ok(Page::default())
    }

    async fn execute(&self, _command: &Command) -> Result<CommandOutcome, Refusal> {
        Ok(CommandOutcome::Granted)
    }

    fn watch(&self, _spec: WatchSpec) -> Result<(Revision, Deliveries), Ended> {
        Ok((Revision(0), stream::pending().boxed()))
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<Option<Duration>, Refusal> {
        Ok(None)
    }

    async fn lease(&self, _lease: LeaseId) -> Result<Option<Lease>, Refusal> {
        Ok(None)
    }
}

#[async_trait]
impl Cluster for Alone {
    async fn status(&self) -> Result<ClusterStatus, Refusal> {
        Err(Refusal::new(Reason::Unavailable, "no status", "nobody is here"))
    }

    fn endpoints(&self) -> Vec<String> {
        vec!["10.99.0.1:7443".to_owned(), "10.99.0.2:7443".to_owned()]
    }

    async fn overview(&self, _forwarded: bool) -> Result<Document, Refusal> {
        Err(Refusal::new(Reason::Unavailable, "no overview", "nobody is here"))
    }

    async fn logs(&self, node: String, logs: Logs) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        let line = format!("{node} {} {}\n", logs.container.unwrap_or_default(), logs.forwarded);
        let lines = vec![Ok(Bytes::from(line)), Ok(Bytes::from(vec![b'x'; 100_000]))];
        let broken = Refusal::new(Reason::Unavailable, "the log ended early", "the node went away");
        Ok(stream::iter(lines.into_iter().chain(logs.follow.then_some(Err(broken)))).boxed())
    }

    async fn backup(&self, _read: Read) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        Ok(stream::iter([Ok(Bytes::from_static(b"all of it"))]).boxed())
    }

    async fn heartbeat(&self, _node: NodeId, _incarnation: u64) -> Result<(), Refusal> {
        Ok(())
    }

    async fn create_token(&self, _request: RequestId, _lifetime: Duration, _uses: u32) -> Result<String, Refusal> {
        Ok("token".to_owned())
    }

    async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Refusal> {
        Ok(Vec::new())
    }

    async fn revoke_token(&self, _request: RequestId, _id: String) -> Result<(), Refusal> {
        Ok(())
    }
}

pub(crate) fn user() -> Caller {
    Caller::User("anna".to_owned())
}

pub(crate) fn caller(id: u128) -> Caller {
    Caller::Node { id: NodeId(id), name: Some(format!("n{id}")) }
}
