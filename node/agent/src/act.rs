//! Does what was planned: one action, start to end, and what became of it.
//!
//! Invariant: every action can be done again after it was cut off anywhere; what it finds half done it replaces or finishes.

use std::{sync::Arc, time::Duration};

use quorate_proto::txn::Revision;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};

use crate::{
    event::Event,
    hook::{Call, Hook},
    memory::{Mounted, Waiting},
    plan::Action,
    runtime::{ContainerSpec, Credentials, PodRef, Runtime, RuntimeError},
    withdrawal::Withdrawal,
    workload::PullPolicy,
};

/// Images that are fetched at the same time: more only share the same line.
const PARALLEL_PULLS: usize = 3;

/// No hook is waited for any longer when a container was started: Kubernetes knows no limit, but an hour is a mistake.
const POST_START: Duration = Duration::from_secs(3600);

/// What a container gets to stop although its hook has used up its grace, as in the kubelet.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// What became of an action.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod's volumes are there.
    Mounted(Mounted),
    /// The pod's holder runs.
    HolderStarted,
    /// A container of this name runs, for the so-manieth time.
    Started { name: String, attempt: u32 },
    /// The hook of a container that was started is done; why it failed, if it did.
    Begun { name: String, id: String, failed: Option<String> },
    /// Nothing is left of the pod's volumes.
    Unmounted,
    /// Done; the next listing shows it.
    Done,
    /// Not done; it is the pod's own matter, and tried again later.
    Failed(Waiting),
    /// Not done, because the runtime does not answer.
    Unavailable(RuntimeError),
}

/// What the agent's loop is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// An action came to its end.
    Acted { uid: String, slot: String, outcome: Outcome },
    /// Something happened on the way.
    Happened { pod: PodRef, event: Event },
    /// A probe was answered.
    Checked {
        uid: String,
        name: String,
        id: String,
        purpose: crate::probe::Purpose,
        answer: Result<Result<(), String>, RuntimeError>,
    },
    /// Nobody sends new connections to a pod that is to be deleted.
    Withdrawn { uid: String },
}

/// What all actions share.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) messages: mpsc::Sender<Message>,
    withdrawal: Arc<dyn Withdrawal>,
    starts: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
}

impl Hands {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        withdrawal: Arc<dyn Withdrawal>,
        messages: mpsc::Sender<Message>,
        parallel_starts: usize,
    ) -> Self {
        Self {
            runtime,
            withdrawal,
            messages,
            starts: Arc::new(Semaphore::new(parallel_starts.max(1))),
            pulls: Arc::new(Semaphore::new(PARALLEL_PULLS)),
        }
    }

    /// Waits until nobody sends new connections to what a revision took away, and tells the loop.
    pub(crate) async fn withdraw(self, uid: String, revision: Revision) {
        self.withdrawal.withdrawn(revision).await;
        // A closed channel is the shutdown: whoever starts next asks again.
        let _ = self.messages.send(Message::Withdrawn { uid }).await;
    }

    /// Does one action and tells the loop.
    pub(crate) async fn act(self, pod: PodRef, action: Action) {
        let slot = action.slot().to_owned();
        let outcome = match self.perform(&pod, action).await {
            Ok(outcome) => outcome,
            Err(error) => self.failure(&pod, error).await,
        };
        // A closed channel is the shutdown: whoever starts next finds the containers as they are.
        let _ = self.messages.send(Message::Acted { uid: pod.uid, slot, outcome }).await;
    }

    async fn perform(&self, pod: &PodRef, action: Action) -> Result<Outcome, Failure> {
        match action {
            Action::Mount { volumes, version } => {
                let paths = self.runtime.mount(pod, &volumes).await.map_err(|error| {
                    let event = Event::warning("FailedMount", error.to_string());
                    Failure::new("CreateContainerConfigError", error, event)
                })?;
                Ok(Outcome::Mounted(Mounted { version, paths }))
            }
            Action::StartHolder(holder) => {
                let _permit = self.starts.acquire().await;
                let mut started = self.runtime.start_holder(&holder).await;
                if matches!(started, Err(RuntimeError::NotFound(_))) {
                    // Someone removed the network or the holder's image: make them again.
                    self.runtime.prepare().await.map_err(Failure::sandbox)?;
                    started = self.runtime.start_holder(&holder).await;
                }
                started.map_err(Failure::sandbox)?;
                Ok(Outcome::HolderStarted)
            }
            Action::Start { container, policy, credentials, field } => {
                self.start(pod, &container, policy, &credentials, &field).await
            }
            Action::Begin { name, id, call, .. } => {
                let failed = self.call(&id, &call, POST_START).await.map_err(Failure::quiet)?.err();
                if let Some(why) = &failed {
                    let event = Event::warning("FailedPostStartHook", format!("PostStartHook failed: {why}"));
                    self.tell(pod, event.of(&format!("spec.containers{{{name}}}"))).await;
                }
                Ok(Outcome::Begun { name, id, failed })
            }
            Action::Stop { name, id, grace, why, call } => {
                let field = format!("spec.containers{{{name}}}");
                let why = if why == "Stopping container" { format!("{why} {name}") } else { why };
                self.tell(pod, Event::normal("Killing", why).of(&field)).await;
                let left = self.prepare_stop(pod, &id, call, grace, &field).await?;
                self.runtime.stop(&id, left).await.map_err(Failure::quiet)?;
                Ok(Outcome::Done)
            }
            Action::Remove { id } => {
                self.runtime.remove(&id).await.map_err(Failure::quiet)?;
                Ok(Outcome::Done)
            }
            Action::Unmount => {
                self.runtime.unmount(&pod.uid).await.map_err(Failure::quiet)?;
                Ok(Outcome::Unmounted)
            }
        }
    }

    /// Calls the hook of a container that is to stop; what is left of its grace then.
    async fn prepare_stop(
        &self,
        pod: &PodRef,
        id: &str,
        call: Option<Call>,
        grace: Duration,
        field: &str,
    ) -> Result<Duration, Failure> {
        let Some(call) = call.filter(|_| !grace.is_zero()) else { return Ok(grace) };
        let until = Instant::now() + grace;
        if let Err(why) = self.call(id, &call, grace).await.map_err(Failure::quiet)? {
            let event = Event::warning("FailedPreStopHook", format!("PreStopHook failed: {why}"));
            self.tell(pod, event.of(field)).await;
        }
        Ok(until.saturating_duration_since(Instant::now()).max(AFTER_HOOK))
    }

    /// Does what a hook says, no longer than a while; why it failed, if it did.
    async fn call(&self, id: &str, call: &Call, within: Duration) -> Result<Result<(), String>, RuntimeError> {
        match &call.hook {
            Hook::Ask(check) => self.runtime.check(id, call.address, check, within).await,
            Hook::Sleep(time) => {
                sleep((*time).min(within)).await;
                let late = || format!("it was to sleep longer than the {} s there were", within.as_secs());
                Ok(if *time > within { Err(late()) } else { Ok(()) })
            }
        }
    }

    async fn start(
        &self,
        pod: &PodRef,
        container: &ContainerSpec,
        policy: PullPolicy,
        credentials: &[Credentials],
        field: &str,
    ) -> Result<Outcome, Failure> {
        self.fetch(pod, &container.image, policy, credentials, field).await?;
        let _permit = self.starts.acquire().await;
        let name = &container.name;
        let failed = |reason, error: RuntimeError| {
            let event = Event::warning("Failed", format!("Error: {error}")).of(field);
            Failure::new(reason, error, event)
        };
        let id = self.runtime.create(container).await.map_err(|error| failed("CreateContainerError", error))?;
        self.tell(pod, Event::normal("Created", format!("Created container: {name}")).of(field)).await;
        self.runtime.start(&id).await.map_err(|error| failed("RunContainerError", error))?;
        self.tell(pod, Event::normal("Started", format!("Started container {name}")).of(field)).await;
        Ok(Outcome::Started { name: name.clone(), attempt: container.attempt })
    }

    async fn fetch(
        &self,
        pod: &PodRef,
        image: &str,
        policy: PullPolicy,
        credentials: &[Credentials],
        field: &str,
    ) -> Result<(), Failure> {
        if image.is_empty() {
            let error = RuntimeError::Refused("the container names no image".to_owned());
            let event = Event::warning("Failed", error.to_string()).of(field);
            return Err(Failure::new("InvalidImageName", error, event));
        }
        if policy != PullPolicy::Always {
            if self.runtime.image(image).await.map_err(Failure::quiet)?.is_some() {
                let message = format!("Container image {image:?} already present on machine");
                self.tell(pod, Event::normal("Pulled", message).of(field)).await;
                return Ok(());
            }
            if policy == PullPolicy::Never {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                let event = Event::warning("ErrImageNeverPull", message.clone()).of(field);
                return Err(Failure::new("ErrImageNeverPull", RuntimeError::Refused(message), event));
            }
        }
        let _permit = self.pulls.acquire().await;
        self.tell(pod, Event::normal("Pulling", format!("Pulling image {image:?}")).of(field)).await;
        match self.runtime.pull(image, credentials).await {
            Ok(_) => {
                self.tell(pod, Event::normal("Pulled", format!("Successfully pulled image {image:?}")).of(field)).await;
                Ok(())
            }
            Err(error) => {
                let event = Event::warning("Failed", format!("Failed to pull image {image:?}: {error}")).of(field);
                Err(Failure::new("ErrImagePull", error, event))
            }
        }
    }

    async fn failure(&self, pod: &PodRef, failure: Failure) -> Outcome {
        let Failure { reason, error, event } = failure;
        if matches!(error, RuntimeError::Absent { .. } | RuntimeError::Timeout { .. }) && reason != "ErrImagePull" {
            return Outcome::Unavailable(error);
        }
        if let Some(event) = event {
            self.tell(pod, event).await;
        }
        Outcome::Failed(Waiting::new(reason, error.to_string()))
    }

    async fn tell(&self, pod: &PodRef, event: Event) {
        let _ = self.messages.send(Message::Happened { pod: pod.clone(), event }).await;
    }

    /// Asks a container once how it is, and tells the loop.
    pub(crate) async fn check(
        self,
        uid: String,
        container: (String, String),
        address: std::net::Ipv4Addr,
        purpose: crate::probe::Purpose,
        (check, timeout): (crate::probe::Check, Duration),
    ) {
        let (name, id) = container;
        let answer = self.runtime.check(&id, address, &check, timeout).await;
        let _ = self.messages.send(Message::Checked { uid, name, id, purpose, answer }).await;
    }
}

/// Why an action was not done.
struct Failure {
    reason: &'static str,
    error: RuntimeError,
    event: Option<Event>,
}

impl Failure {
    const fn new(reason: &'static str, error: RuntimeError, event: Event) -> Self {
        Self { reason, error, event: Some(event) }
    }

    fn sandbox(error: RuntimeError) -> Self {
        let event = Event::warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
        Self::new("CreatePodSandboxError", error, event)
    }

    /// Nobody needs to be told: it is tried again.
    const fn quiet(error: RuntimeError) -> Self {
        Self { reason: "CreateContainerError", error, event: None }
    }
}
