//! Carries requests out: reads the state, lets the pure pipeline decide, proposes, and decides anew if the state was stale.
//!
//! A retry by the client carries the request id of its first try. Each of our own tries gets an id of its own, derived from it, so that
//! the store recognises both; a created object's uid is derived from it too, so that a retry recognises what its first try made.
//!
//! Invariant: one answer that is no stream's end is given for every request, and a refusal is the last.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use quorate_proto::{
    ids::RequestId,
    key::Key,
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, ChangeKind, Fact, Logs, Read, Reference, Request},
    snapshot::Snapshot,
    txn::{Outcome, Revision},
    world::{Clock, Random},
};

use crate::{
    access, delete, leave, list, logs,
    message::Verb,
    pipeline::{self, Moment, Plan},
    report::{self, Reporter},
    seam::{Caller, Cluster, Desired, KeyValue, Settings},
    store, watch,
};

/// How often a request is decided anew because the state it was decided on had changed meanwhile.
const TRIES: u128 = 16;

/// The API of one node: any node answers any request. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    desired: Arc<dyn Desired>,
    cluster: Arc<dyn Cluster>,
    store: Arc<dyn KeyValue>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
}

pub(crate) type Answers = BoxStream<'static, Answer>;

impl Api {
    /// An API over the agreed state.
    #[must_use]
    pub fn new(
        desired: Arc<dyn Desired>,
        cluster: Arc<dyn Cluster>,
        store: Arc<dyn KeyValue>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: Settings,
    ) -> Self {
        Self { shared: Arc::new(Shared { desired, cluster, store, clock, random, settings }) }
    }

    /// Answers a request. Nothing happens before the stream is polled, and a stream that is dropped stops its request, which may then
    /// have been done or not.
    #[must_use]
    pub fn handle(&self, caller: Caller, request: Request) -> Answers {
        let shared = Arc::clone(&self.shared);
        stream::once(async move {
            shared.answer(caller, request).await.unwrap_or_else(|refusal| one(Answer::Refused(refusal)))
        })
        .flatten()
        .boxed()
    }
}

pub(crate) fn one(answer: Answer) -> Answers {
    stream::once(std::future::ready(answer)).boxed()
}

impl Shared {
    fn answer(self: Arc<Self>, caller: Caller, request: Request) -> BoxFuture<'static, Result<Answers, Refusal>> {
        // Boxed arm by arm: the future of a heartbeat need not be as large as that of an apply.
        Box::pin(async move {
            // Only what a node may report depends on the state; the rest must be answered without it, too.
            let snapshot = match &request {
                Request::Report { .. } => self.desired.snapshot(Read::Linearizable).await?,
                _ => Arc::default(),
            };
            access::check(&caller, &request, &snapshot, self.settings.cluster)?;
            match request {
                Request::Get { object, read } => self.get(&object, read).await,
                Request::List(selection) => {
                    let snapshot = self.desired.snapshot(selection.read).await?;
                    Ok(list::answers(&selection, &snapshot, self.clock.wall())?.boxed())
                }
                Request::Watch(selection) => {
                    let snapshot = self.desired.snapshot(selection.read).await?;
                    let changes = self.desired.changes(snapshot.revision());
                    Ok(watch::answers(&selection, &snapshot, changes, Arc::clone(&self.clock))?.boxed())
                }
                Request::WatchFrom { selection, after: None } => {
                    let snapshot = self.desired.snapshot(selection.read).await?;
                    let changes = self.desired.changes(snapshot.revision());
                    Ok(watch::resumable(&selection, &snapshot, changes, Arc::clone(&self.clock))?.boxed())
                }
                Request::WatchFrom { selection, after: Some(after) } => {
                    let snapshot = self.desired.snapshot(Read::AtLeast(after)).await?;
                    let desired = Arc::clone(&self.desired);
                    Ok(watch::resumed(&selection, &snapshot, after, desired, Arc::clone(&self.clock))?.boxed())
                }
                Request::Apply { request, object, dry_run } => {
                    self.change(request, dry_run, move |snapshot, moment| pipeline::apply(&object, snapshot, moment))
                        .await
                }
                Request::Create { request, object, dry_run } => {
                    self.change(request, dry_run, move |snapshot, moment| pipeline::create(&object, snapshot, moment))
                        .await
                }
                Request::Replace { request, object, dry_run } => {
                    self.change(request, dry_run, move |snapshot, moment| pipeline::replace(&object, snapshot, moment))
                        .await
                }
                Request::Patch { request, object, patch, dry_run } => {
                    let decide = move |snapshot: &Snapshot, moment: &Moment<'_>| {
                        pipeline::patch(&object, &patch, snapshot, moment)
                    };
                    self.change(request, dry_run, decide).await
                }
                Request::Delete { request, object, grace_seconds } => {
                    let decide = move |snapshot: &Snapshot, moment: &Moment<'_>| {
                        delete::plan(&object, grace_seconds, snapshot, moment)
                    };
                    self.change(request, false, decide).await
                }
                Request::Scale { request, object, replicas } => {
                    let decide = move |snapshot: &Snapshot, moment: &Moment<'_>| {
                        pipeline::scale(&object, replicas, snapshot, moment)
                    };
                    self.change(request, false, decide).await
                }
                Request::Leave { request, node } => {
                    let decide = move |snapshot: &Snapshot, moment: &Moment<'_>| leave::plan(&node, snapshot, moment);
                    self.change(request, false, decide).await
                }
                Request::Logs(logs) => self.logs(&caller, logs).await,
                Request::Status => Ok(one(Answer::Status(self.cluster.status().await?))),
                Request::Endpoints => Ok(one(Answer::Endpoints(self.cluster.endpoints()))),
                Request::Overview { forwarded } => {
                    // Only a node can have passed it on.
                    let forwarded = forwarded && matches!(caller, Caller::Node { .. });
                    Ok(one(Answer::Overview(self.cluster.overview(forwarded).await?)))
                }
                Request::CreateToken { request, lifetime_seconds, uses } => {
                    let lifetime = std::time::Duration::from_secs(lifetime_seconds);
                    Ok(one(Answer::Token(self.cluster.create_token(request, lifetime, uses).await?)))
                }
                Request::ListTokens => Ok(one(Answer::Tokens(self.cluster.list_tokens().await?))),
                Request::RevokeToken { request, id } => {
                    self.cluster.revoke_token(request, id).await?;
                    Ok(one(Answer::Done))
                }
                Request::Heartbeat { incarnation } => {
                    if let Caller::Node { id, .. } = caller {
                        self.cluster.heartbeat(id, incarnation).await?;
                    }
                    Ok(one(Answer::Done))
                }
                Request::Report { request: _, facts } => {
                    self.report(&caller, &facts).await?;
                    Ok(one(Answer::Done))
                }
                Request::Backup { read } => Ok(logs::answers(self.cluster.backup(read).await?).boxed()),
                Request::Store(request) => store::answers(&*self.store, request).await,
            }
        })
    }

    async fn get(&self, reference: &Reference, read: Read) -> Result<Answers, Refusal> {
        let snapshot = self.desired.snapshot(read).await?;
        let (_, _, stored) = pipeline::existing(Verb::Read, reference, &snapshot)?;
        let objects = vec![stored.shown().to_document()];
        Ok(one(Answer::Objects { revision: snapshot.revision(), objects }))
    }

    /// Decides, proposes, and decides anew on the newest state as long as the proposal comes back stale.
    async fn change<F>(&self, request: RequestId, dry_run: bool, decide: F) -> Result<Answers, Refusal>
    where
        F: Fn(&Snapshot, &Moment<'_>) -> Result<Plan, Refusal> + Send,
    {
        let mut attempt = 0;
        loop {
            let snapshot = self.desired.snapshot(Read::Linearizable).await.map_err(not_changed)?;
            let plan = decide(&snapshot, &Moment { wall: self.clock.wall(), request, settings: &self.settings })?;
            if dry_run || plan.txn.writes.is_empty() {
                return Ok(one(changed(plan.change, plan.object, plan.seen, plan.warnings)));
            }
            let id = RequestId(request.0.wrapping_add(attempt));
            match self.desired.propose(id, plan.txn).await? {
                Outcome::Applied(revision) => {
                    return Ok(one(changed(plan.change, plan.object, Some(revision), plan.warnings)));
                }
                Outcome::Stale(_) if attempt < TRIES => attempt += 1,
                Outcome::Stale(key) => return Err(contended("nothing was changed", &key)),
            }
        }
    }

    async fn logs(&self, caller: &Caller, mut logs: Logs) -> Result<Answers, Refusal> {
        // Only a node can have passed a request on: a user's word for it would keep the request from ever reaching the pod's node.
        logs.forwarded &= matches!(caller, Caller::Node { .. });
        // Logs are readable on a node that is cut off; what it does not know may be known to others.
        let known = self.desired.snapshot(Read::Stale).await?;
        let place = match logs::place(&logs, &known) {
            Err(refusal) if refusal.reason == Reason::NotFound => {
                logs::place(&logs, &*self.desired.snapshot(Read::Linearizable).await?)
            }
            place => place,
        }?;
        logs.container = Some(place.container);
        Ok(logs::answers(self.cluster.logs(place.node, logs).await?).boxed())
    }

    /// Takes in what a node saw, in as few transactions as limits allow. Each gets a request id of its own: what makes a report that is
    /// sent again harmless is that it says the same, not who said it first.
    async fn report(&self, caller: &Caller, facts: &[Fact]) -> Result<(), Refusal> {
        if facts.len() > report::MAX_FACTS {
            let because = format!("it has {} facts, the limit is {}", facts.len(), report::MAX_FACTS);
            return Err(Refusal::new(Reason::TooLarge, "the report was not taken", because));
        }
        let (mut rest, mut read, mut tries) = (facts, Read::Linearizable, 0);
        while !rest.is_empty() {
            let snapshot = self.desired.snapshot(read).await?;
            let reporter =
                Reporter { caller, cluster: self.settings.cluster, wall: self.clock.wall(), random: &*self.random };
            let batch = report::plan(rest, &snapshot, reporter)?;
            if !batch.txn.writes.is_empty() {
                match self.desired.propose(self.random.request_id(), batch.txn).await? {
                    Outcome::Applied(revision) => read = Read::AtLeast(revision),
                    Outcome::Stale(_) if tries < TRIES => {
                        (read, tries) = (Read::Linearizable, tries + 1);
                        continue;
                    }
                    Outcome::Stale(key) => return Err(contended("the report was not taken", &key)),
                }
            }
            rest = &rest[batch.taken..];
        }
        Ok(())
    }
}

fn changed(change: ChangeKind, object: Object, revision: Option<Revision>, warnings: Vec<String>) -> Answer {
    let shown = match revision {
        Some(revision) => object.with_resource_version(revision),
        None => object,
    };
    Answer::Changed { change, object: shown.to_document(), warnings }
}

/// A change that could not even be decided on: whoever asked for it did not ask to read.
fn not_changed(refusal: Refusal) -> Refusal {
    let unavailable = refusal.reason == Reason::Unavailable;
    let refusal = Refusal { what: "nothing was written".to_owned(), ..refusal };
    match unavailable {
        true => refusal.hint("try again, and see `quorate status` for who can be reached"),
        false => refusal,
    }
}

fn contended(what: &str, key: &Key) -> Refusal {
    let because = format!("`{key}` was changed by others {TRIES} times while this was decided");
    Refusal::new(Reason::Conflict, what, because).hint("try again")
}

#[cfg(test)]
mod tests;
