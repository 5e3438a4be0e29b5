//! Tells the cluster what the agent saw: only what the store does not know yet, the newest of it, in batches.
//!
//! Invariant: telling never holds up running; what could not be told is told later as it is then. What the store acknowledged is not
//! told again until someone else wrote the pod and it still differs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use quorate_proto::{
    request::Fact,
    txn::{Document, Revision},
};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{pod::BoundPod, runtime::PodRef};

/// The most facts in one report.
pub const MAX_FACTS: usize = 64;
/// The most bytes of documents in one report; one fact alone is far below it.
pub const MAX_REPORT: usize = 512 << 10;
/// Events that wait to be told; the oldest are forgotten beyond that.
const MAX_EVENTS: usize = 1024;
/// How long to wait after a failure, doubling to [`SLOWEST`].
const RETRY: Duration = Duration::from_millis(500);
const SLOWEST: Duration = Duration::from_secs(10);
/// How long a report may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Carries what a node saw to the cluster. Implemented by whoever owns the agent.
#[async_trait]
pub trait Reporter: Send + Sync + 'static {
    /// Reports facts; returns once they are stored.
    ///
    /// # Errors
    /// If they were not, or if that is not known. The agent tries again with what is then true.
    async fn report(&self, facts: Vec<Fact>) -> Result<(), ReportError>;
}

/// Facts were not reported.
#[derive(Debug, Error)]
#[error("the cluster was not told what this node runs")]
pub struct ReportError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What is to be told.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By uid.
    pods: BTreeMap<String, Entry>,
    events: VecDeque<Fact>,
}

#[derive(Debug)]
struct Entry {
    pod: PodRef,
    /// What the store has, as the newest snapshot shows it.
    stored: (Revision, Value),
    wanted: Option<Telling>,
    /// What was acknowledged, and the pod's revision when it was sent.
    told: Option<(Telling, Revision)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Telling {
    Status(Value),
    Gone,
}

impl Entry {
    fn open(&self) -> Option<&Telling> {
        let wanted = self.wanted.as_ref()?;
        let known = match wanted {
            Telling::Status(patch) => merges_to_itself(&self.stored.1, patch),
            Telling::Gone => false,
        };
        let told = self.told.as_ref().is_some_and(|(told, at)| told == wanted && *at == self.stored.0);
        (!known && !told).then_some(wanted)
    }
}

/// Whether a merge patch would change nothing.
fn merges_to_itself(status: &Value, patch: &Value) -> bool {
    match (status, patch) {
        (Value::Object(status), Value::Object(patch)) => patch.iter().all(|(field, value)| match status.get(field) {
            Some(known) => merges_to_itself(known, value),
            None => value.is_null(),
        }),
        (status, patch) => status == patch,
    }
}

impl Outbox {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is the pod's status now.
    pub(crate) fn status(&self, bound: &BoundPod, status: Value) {
        self.want(bound, Some(Telling::Status(status)));
    }

    /// Nothing is left of the pod here.
    pub(crate) fn gone(&self, bound: &BoundPod) {
        self.want(bound, Some(Telling::Gone));
    }

    fn want(&self, bound: &BoundPod, wanted: Option<Telling>) {
        let mut state = self.state();
        let entry = state.pods.entry(bound.reference.uid.clone()).or_insert_with(|| Entry {
            pod: bound.reference.clone(),
            stored: (bound.modified, bound.status.clone()),
            wanted: None,
            told: None,
        });
        if entry.stored.0 != bound.modified {
            entry.stored = (bound.modified, bound.status.clone());
        }
        if wanted.is_some() {
            entry.wanted = wanted;
        }
        if entry.open().is_some() {
            self.changed.notify_one();
        }
    }

    /// Something happened.
    pub(crate) fn event(&self, event: Fact) {
        let mut state = self.state();
        if state.events.len() == MAX_EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        self.changed.notify_one();
    }

    /// Forgets pods that the cluster does not know any more.
    pub(crate) fn keep(&self, known: impl Fn(&str) -> bool) {
        self.state().pods.retain(|uid, _| known(uid));
    }

    /// The next report: open facts, oldest events first, within the limits.
    fn batch(&self) -> Batch {
        let mut state = self.state();
        let mut batch = Batch::default();
        let mut bytes = 0;
        for (uid, entry) in &state.pods {
            let Some(telling) = entry.open() else { continue };
            let fact = entry.fact(telling);
            bytes += size(&fact);
            if !batch.facts.is_empty() && bytes > MAX_REPORT || batch.facts.len() == MAX_FACTS {
                return batch;
            }
            batch.facts.push(fact);
            batch.tellings.push((uid.clone(), telling.clone(), entry.stored.0));
        }
        while let Some(event) = state.events.front() {
            bytes += size(event);
            if !batch.facts.is_empty() && bytes > MAX_REPORT || batch.facts.len() == MAX_FACTS {
                break;
            }
            if let Some(event) = state.events.pop_front() {
                batch.facts.push(event.clone());
                batch.events.push(event);
            }
        }
        batch
    }

    fn acknowledged(&self, batch: Batch) {
        let mut state = self.state();
        for (uid, telling, revision) in batch.tellings {
            if let Some(entry) = state.pods.get_mut(&uid) {
                entry.told = Some((telling, revision));
            }
        }
    }

    fn failed(&self, batch: Batch) {
        let mut state = self.state();
        for event in batch.events.into_iter().rev() {
            if state.events.len() < MAX_EVENTS {
                state.events.push_front(event);
            }
        }
    }

    /// Tells what is to be told, until shutdown.
    pub(crate) async fn run(self: Arc<Self>, reporter: Arc<dyn Reporter>, shutdown: CancellationToken) {
        let mut wait = RETRY;
        loop {
            let batch = self.batch();
            if batch.facts.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.changed.notified() => continue,
                }
            }
            let answer = tokio::select! {
                () = shutdown.cancelled() => return,
                answer = tokio::time::timeout(DEADLINE, reporter.report(batch.facts.clone())) => answer,
            };
            let because: Box<dyn std::error::Error + Send + Sync> = match answer {
                Ok(Ok(())) => {
                    self.acknowledged(batch);
                    wait = RETRY;
                    continue;
                }
                Ok(Err(ReportError(because))) => because,
                Err(elapsed) => elapsed.into(),
            };
            tracing::debug!(%because, facts = batch.facts.len(), "not reported; trying again");
            self.failed(batch);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(SLOWEST);
        }
    }
}

#[derive(Debug, Default)]
struct Batch {
    facts: Vec<Fact>,
    tellings: Vec<(String, Telling, Revision)>,
    events: Vec<Fact>,
}

impl Entry {
    fn fact(&self, telling: &Telling) -> Fact {
        let PodRef { namespace, name, uid } = self.pod.clone();
        match telling {
            Telling::Gone => Fact::Gone { namespace, name, uid },
            Telling::Status(patch) => {
                let status = Document(Bytes::from(patch.to_string()));
                Fact::Pod { namespace, name, uid, status }
            }
        }
    }
}

fn size(fact: &Fact) -> usize {
    match fact {
        Fact::Pod { status: document, .. } | Fact::Event { event: document } | Fact::Node { status: document } => {
            document.0.len()
        }
        Fact::Gone { .. } => 0,
    }
}
