//! One pod as the agent's loop keeps it: what is remembered, what is under way, and what actions and probes come to (pure).
//!
//! Invariant: a slot is either busy, resting after a failure, or free; never two of these. Only the same is worth a pause: what failed
//! rests no longer than what the pod is made from stays as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_proto::{snapshot::Snapshot, world::Instant};

use crate::{
    act::Outcome,
    backoff::Backoff,
    config::Config,
    event::{Budget, Event},
    memory::{PodMemory, Waiting},
    plan::{self, POD},
    pod::BoundPod,
    probe::{Purpose, Verdict},
    runtime::{PodRef, RuntimeError},
    workload,
};

/// How long what failed because the runtime was away is left alone.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// One pod as the loop keeps it.
pub(crate) struct Kept {
    pub(crate) reference: PodRef,
    /// `None`: its containers are here, and it is not bound here.
    pub(crate) bound: Option<Arc<BoundPod>>,
    pub(crate) memory: PodMemory,
    /// Slots in which something is under way.
    pub(crate) busy: BTreeSet<String>,
    /// Slots in which something failed, and until when they are left alone.
    pub(crate) resting: BTreeMap<String, Instant>,
    pub(crate) budget: Budget,
    /// What the pod was made from when it was last decided on: see [`workload::sources`].
    sources: u64,
    /// Slots in which something is under way that was begun from other sources.
    outdated: BTreeSet<String>,
    /// It was asked whether anybody still sends connections to the pod, which is to be deleted.
    asked: bool,
}

impl Kept {
    pub(crate) fn new(reference: PodRef, now: Instant) -> Self {
        Self {
            reference,
            bound: None,
            memory: PodMemory::default(),
            busy: BTreeSet::new(),
            resting: BTreeMap::new(),
            budget: Budget::new(now),
            sources: 0,
            outdated: BTreeSet::new(),
            asked: false,
        }
    }

    /// Whether the pod is to be deleted and got connections: true once, for whoever is to make sure that it gets no more.
    pub(crate) fn leaves(&mut self) -> bool {
        let leaves = self.bound.as_ref().is_some_and(|bound| bound.deleting() && bound.was_ready());
        leaves && !std::mem::replace(&mut self.asked, true)
    }

    /// Compares what the pod is made from with what it was. If a config map came, a key was added or an image was corrected, what failed
    /// without it is tried again at once.
    pub(crate) fn renew(&mut self, snapshot: &Snapshot) {
        let Some(bound) = &self.bound else { return };
        let sources = workload::sources(bound, snapshot);
        if self.sources == sources {
            return;
        }
        self.sources = sources;
        self.resting.clear();
        self.outdated.clone_from(&self.busy);
        self.memory.failures = Backoff::default();
        for container in self.memory.containers.values_mut() {
            container.failures = Backoff::default();
        }
    }

    /// What a plan for this pod is made from.
    pub(crate) const fn context<'a>(
        &'a self,
        config: &'a Config,
        snapshot: &'a Snapshot,
        now: Instant,
        node_memory: u64,
    ) -> plan::Context<'a> {
        plan::Context { config, snapshot, now, node_memory, busy: &self.busy, resting: &self.resting }
    }

    /// Remembers what became of an action. `jitter` is any number.
    pub(crate) fn acted(&mut self, slot: &str, outcome: Outcome, now: Instant, jitter: u64) {
        self.busy.remove(slot);
        self.resting.remove(slot);
        let outdated = self.outdated.remove(slot);
        let memory = &mut self.memory;
        match outcome {
            Outcome::Done => {}
            Outcome::HolderStarted => memory.well(),
            Outcome::Mounted(mounted) => {
                memory.mounted = Some(mounted);
                memory.unmounted = false;
                memory.well();
            }
            Outcome::Unmounted => {
                memory.mounted = None;
                memory.unmounted = true;
            }
            Outcome::Started { name, attempt } => {
                let container = memory.containers.entry(name).or_default();
                container.trouble = None;
                container.failures = Backoff::default();
                if attempt > 0 {
                    container.restarts.failed(now);
                }
            }
            Outcome::Begun { name, id, failed } => {
                let container = memory.containers.entry(name).or_default();
                if failed.is_some() {
                    container.condemned = Some((id.clone(), "FailedPostStartHook".to_owned()));
                }
                container.begun = Some(id);
            }
            Outcome::Unavailable(error) => {
                tracing::warn!(pod = %self.reference.name, %error, "not done; trying again");
                self.resting.insert(slot.to_owned(), now + RETRY);
                self.trouble(slot, Waiting::new("ContainerCreating", error.to_string()));
            }
            // It failed with what is no longer so.
            Outcome::Failed(waiting) if outdated => self.trouble(slot, waiting),
            Outcome::Failed(mut waiting) => {
                let failures = match memory.containers.get_mut(slot) {
                    Some(container) => &mut container.failures,
                    None => &mut memory.failures,
                };
                if waiting.reason == "ErrImagePull" && !failures.wait().is_zero() {
                    waiting.reason = "ImagePullBackOff";
                    waiting.message = format!("Back-off pulling image: ErrImagePull: {}", waiting.message);
                }
                failures.failed(now);
                // Up to a tenth more, so that a whole rack does not ask a registry in one breath.
                let tenth = u64::try_from(failures.wait().as_millis() / 10).unwrap_or(0).max(1);
                let until = failures.until(now) + Duration::from_millis(jitter % tenth);
                self.resting.insert(slot.to_owned(), until);
                self.trouble(slot, waiting);
            }
        }
    }

    fn trouble(&mut self, slot: &str, waiting: Waiting) {
        if slot == POD {
            self.memory.trouble = Some(waiting);
        } else if let Some(container) = self.memory.containers.get_mut(slot) {
            container.trouble = Some(waiting);
        }
    }

    /// Takes a probe's answer; returns what is to be told about it.
    pub(crate) fn checked(
        &mut self,
        name: &str,
        id: &str,
        purpose: Purpose,
        answer: Result<Result<(), String>, RuntimeError>,
        now: Instant,
    ) -> Option<Event> {
        let memory = self.memory.containers.get_mut(name)?;
        let (_, health) = memory.health.as_mut().filter(|(of, _)| of == id)?;
        let probe = health.probe(purpose)?;
        let why = match answer {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(error) => {
                tracing::debug!(container = name, %error, "a probe could not be made");
                probe.undecided(now);
                return None;
            }
        };
        let verdict = probe.answer(why.is_none(), now);
        if verdict == Verdict::Fails && purpose != Purpose::Readiness {
            let probe = purpose.name().to_ascii_lowercase();
            let why = format!("Container {name} failed {probe} probe, will be restarted");
            memory.condemned = Some((id.to_owned(), why));
        }
        let message = format!("{} probe failed: {}", purpose.name(), why?);
        Some(Event::warning("Unhealthy", message).of(&format!("spec.containers{{{name}}}")))
    }
}
