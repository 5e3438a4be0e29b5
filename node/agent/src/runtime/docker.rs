//! The Docker Engine as a runtime, over its socket.
//!
//! API 1.41 is spoken (Engine 20.10), or 1.44 where the engine has dropped 1.41 (Engine 29). Docker's own restart policy and health
//! checks are off: the agent owns both.
//!
//! Invariant: every call has a deadline; only containers with our cluster's label are listed, and only listed ones are touched.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    ClientVersion, Docker as Client,
    container::LogOutput,
    errors::Error as ClientError,
    models::{ContainerInspectResponse, ContainerSummary},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
        LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use ipnet::Ipv4Net;
use quorate_proto::ids::ClusterId;

use super::{
    Container, ContainerSpec, Credentials, HolderSpec, Info, LogLines, PodRef, Role, Runtime, RuntimeError, State,
    Volume, name,
};
use crate::probe::Check;

mod check;
mod describe;
mod ended;
mod oom;
mod prepare;
mod volume;

#[cfg(test)]
pub(crate) mod tests;

/// How long the engine may take to answer what it only looks up.
const LOOK_UP: Duration = Duration::from_secs(15);
/// How long it may take to make, start or remove a container.
const MAKE: Duration = Duration::from_secs(120);
/// How long a pull may go without any progress.
const STALL: Duration = Duration::from_secs(120);
/// What a stop may take beyond the grace period.
const KILL: Duration = Duration::from_secs(15);

/// Which engine, and what of the machine it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The engine's socket: `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// The cluster whose containers these are.
    pub cluster: ClusterId,
    /// The name of this node.
    pub node: String,
    /// Where the pods' volumes are kept.
    pub dir: PathBuf,
    /// The name of the pods' network: `quorate`.
    pub network: String,
    /// Its bridge: `quorate0`; at most 15 bytes, as the kernel has it.
    pub bridge: String,
    /// Where pods get their addresses from; the first one is the gateway's.
    pub pod_range: Ipv4Net,
}

/// What inspection told of a container, and what the container left as its last words.
type Inspected = (ContainerInspectResponse, String);

/// A Docker Engine.
pub struct Docker {
    config: Config,
    /// The lowest OOM score that a container may have here.
    oom_floor: i64,
    client: tokio::sync::Mutex<Option<Client>>,
    /// What inspection told of containers in a state they keep: by id.
    inspected: std::sync::Arc<Mutex<BTreeMap<String, Inspected>>>,
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Docker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Docker {
    /// An engine that is talked to when it is needed: it need not be there yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (client, inspected) = (tokio::sync::Mutex::default(), std::sync::Arc::default());
        Self { config, oom_floor: oom::floor(), client, inspected }
    }

    /// A client that speaks a version the engine understands.
    async fn client(&self) -> Result<Client, RuntimeError> {
        let mut known = self.client.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let socket = self.config.socket.to_string_lossy();
        let mut refused = None;
        for minor_version in [41, 44] {
            let version = ClientVersion { major_version: 1, minor_version };
            let client = Client::connect_with_unix(&socket, MAKE.as_secs(), &version)
                .map_err(|error| self.error(&error, "connecting"))?;
            match tokio::time::timeout(LOOK_UP, client.version()).await {
                Ok(Ok(_)) => {
                    *known = Some(client.clone());
                    return Ok(client);
                }
                Ok(Err(error @ ClientError::DockerResponseServerError { status_code: 400, .. })) => {
                    refused = Some(error);
                }
                Ok(Err(error)) => return Err(self.error(&error, "asking for its version")),
                Err(_) => return Err(timeout("asking the Docker Engine for its version", LOOK_UP)),
            }
        }
        Err(refused
            .map_or_else(|| timeout("connecting", LOOK_UP), |error| self.error(&error, "asking for its version")))
    }

    /// One call, within its deadline.
    async fn call<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, RuntimeError> {
        let client = self.client().await?.with_timeout(deadline + LOOK_UP);
        match tokio::time::timeout(deadline, call(&client)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let error = self.error(&error, what);
                if matches!(error, RuntimeError::Absent { .. }) {
                    // Another engine may come back, and speak another version.
                    *self.client.lock().await = None;
                }
                Err(error)
            }
            Err(_) => Err(timeout(what, deadline)),
        }
    }

    fn error(&self, error: &ClientError, what: &str) -> RuntimeError {
        match error {
            ClientError::DockerResponseServerError { status_code: 404, message } => {
                RuntimeError::NotFound(message.clone())
            }
            ClientError::DockerResponseServerError { message, .. } => RuntimeError::Refused(message.clone()),
            ClientError::DockerStreamError { error } => RuntimeError::Refused(error.clone()),
            ClientError::RequestTimeoutError => timeout(what, MAKE),
            error => RuntimeError::Absent {
                runtime: format!("the Docker Engine at {}", self.config.socket.display()),
                because: chain(error),
                hint:
                    "install Docker, or start it with `systemctl start docker`; Quorate must be able to use its socket"
                        .to_owned(),
            },
        }
    }

    fn filters(&self) -> HashMap<&'static str, Vec<String>> {
        HashMap::from([("label", vec![format!("{}={}", describe::CLUSTER, self.config.cluster)])])
    }

    /// Makes a container; one of the same name that does not run is replaced.
    async fn make(&self, name: &str, body: bollard::models::ContainerCreateBody) -> Result<String, RuntimeError> {
        let options = || Some(CreateContainerOptionsBuilder::new().name(name).build());
        let first = self
            .call("making a container", MAKE, async |client| {
                match client.create_container(options(), body.clone()).await {
                    Err(ClientError::DockerResponseServerError { status_code: 409, .. }) => Ok(None),
                    answer => answer.map(Some),
                }
            })
            .await?;
        if let Some(made) = first {
            return Ok(made.id);
        }
        let present = self.inspect(name).await?;
        let labels = present.config.as_ref().and_then(|config| config.labels.as_ref());
        let cluster = self.config.cluster.to_string();
        if labels.and_then(|labels| labels.get(describe::CLUSTER)) != Some(&cluster) {
            return Err(RuntimeError::Refused(format!("{name} exists and is not of this cluster")));
        }
        if present.state.and_then(|state| state.running) == Some(true) {
            return Err(RuntimeError::Refused(format!("{name} is running already")));
        }
        self.remove(name).await?;
        let made = self
            .call("making a container", MAKE, async |client| client.create_container(options(), body.clone()).await)
            .await?;
        Ok(made.id)
    }

    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, RuntimeError> {
        self.call("inspecting a container", LOOK_UP, async |client| client.inspect_container(id, None).await).await
    }

    /// A listed container, with what only inspection tells.
    async fn complete(&self, summary: &ContainerSummary) -> Result<Option<Container>, RuntimeError> {
        let Some(id) = &summary.id else { return Ok(None) };
        let status = |inspected: &ContainerInspectResponse| {
            inspected.state.as_ref().and_then(|state| state.status).map(|status| status.to_string())
        };
        let now = summary.state.map(|state| state.to_string());
        let known = lock(&self.inspected).get(id).filter(|(known, _)| status(known) == now).cloned();
        let (inspected, words) = match known {
            Some(known) => known,
            None => match self.inspect(id).await {
                Ok(inspected) => {
                    let words = self.last_words(&inspected).await?;
                    lock(&self.inspected).insert(id.clone(), (inspected.clone(), words.clone()));
                    (inspected, words)
                }
                // It was removed since it was listed.
                Err(RuntimeError::NotFound(_)) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut shown = describe::container(&inspected, &self.config.network);
        if let Some(Container { state: State::Exited { words: shown, .. }, .. }) = &mut shown {
            *shown = words;
        }
        Ok(shown)
    }

    /// What a container that ended wrote about it; empty if it runs, or wrote nothing.
    async fn last_words(&self, inspected: &ContainerInspectResponse) -> Result<String, RuntimeError> {
        let Some(from_log) = describe::message_from_log(inspected) else { return Ok(String::new()) };
        let Some(Container {
            id,
            pod,
            role: Role::Container { name, .. },
            attempt,
            state: State::Exited { code, .. },
            ..
        }) = describe::container(inspected, &self.config.network)
        else {
            return Ok(String::new());
        };
        let dir = self.config.dir.clone();
        let words = blocking(move || Ok(ended::read(&dir, &pod.uid, &name, attempt))).await?;
        if !words.is_empty() || code == 0 || !from_log {
            return Ok(words);
        }
        let read = async {
            let mut log = Vec::new();
            let mut parts = self.logs(&id, &ended::log_lines()).await?;
            while let Some(part) = parts.next().await {
                ended::keep(&mut log, &part?);
            }
            Ok(ended::end_of(&log))
        };
        match tokio::time::timeout(LOOK_UP, read).await {
            Ok(Ok(words)) => Ok(words),
            // It was removed, or its log cannot be read: there is nothing to tell, and the pod must go on.
            Ok(Err(error @ (RuntimeError::NotFound(_) | RuntimeError::Refused(_)))) => {
                tracing::debug!(%error, "the end of a log was not read");
                Ok(String::new())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(timeout("reading the end of a log", LOOK_UP)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A cache: nothing in it is half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timeout(what: &str, deadline: Duration) -> RuntimeError {
    RuntimeError::Timeout { what: what.to_owned(), seconds: deadline.as_secs() }
}

/// An error with all it was caused by.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

#[async_trait]
impl Runtime for Docker {
    async fn info(&self) -> Result<Info, RuntimeError> {
        let info =
            self.call("asking the Docker Engine for its state", LOOK_UP, async |client| client.info().await).await?;
        Ok(describe::info(info))
    }

    async fn prepare(&self) -> Result<(), RuntimeError> {
        self.prepare_network().await?;
        self.prepare_holder().await
    }

    async fn list(&self) -> Result<Vec<Container>, RuntimeError> {
        let options = || ListContainersOptionsBuilder::new().all(true).filters(&self.filters()).build();
        let listed = self
            .call("listing containers", LOOK_UP, async |client| client.list_containers(Some(options())).await)
            .await?;
        let ids: std::collections::BTreeSet<&String> =
            listed.iter().filter_map(|summary| summary.id.as_ref()).collect();
        lock(&self.inspected).retain(|id, _| ids.contains(id));
        let mut containers = Vec::with_capacity(listed.len());
        for summary in &listed {
            containers.extend(self.complete(summary).await?);
        }
        Ok(containers)
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<(), RuntimeError>>, RuntimeError> {
        let mut filters = self.filters();
        filters.insert("type", vec!["container".to_owned()]);
        // Not `exec_*`: an exec probe would wake us for nothing.
        let events = ["create", "start", "restart", "die", "oom", "destroy", "pause", "unpause", "rename"];
        filters.insert("event", events.map(str::to_owned).to_vec());
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        lock(&self.inspected).clear();
        let stream = self.client().await?.events(Some(options));
        let inspected = std::sync::Arc::clone(&self.inspected);
        let runtime = format!("the Docker Engine at {}", self.config.socket.display());
        Ok(stream
            .map(move |event| match event {
                Ok(event) => {
                    if let Some(id) = event.actor.and_then(|actor| actor.id) {
                        lock(&inspected).remove(&id);
                    }
                    Ok(())
                }
                Err(error) => Err(RuntimeError::Absent {
                    runtime: runtime.clone(),
                    because: chain(&error),
                    hint: "see `journalctl -u docker`".to_owned(),
                }),
            })
            .boxed())
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, RuntimeError> {
        match self.call("looking for an image", LOOK_UP, async |client| client.inspect_image(reference).await).await {
            Ok(image) => Ok(Some(image.id.unwrap_or_default())),
            Err(RuntimeError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<String, RuntimeError> {
        let fitting = credentials.iter().filter(|credentials| describe::registry(reference) == credentials.registry);
        let mut refused = None;
        for credentials in fitting.map(Some).chain([None]) {
            let options = CreateImageOptionsBuilder::new().from_image(&describe::tagged(reference)).build();
            let mut progress =
                self.client().await?.create_image(Some(options), None, credentials.map(describe::login)).boxed();
            let outcome = loop {
                match tokio::time::timeout(STALL, progress.next()).await {
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(error))) => break Err(self.error(&error, "fetching an image")),
                    Ok(None) => break Ok(()),
                    Err(_) => break Err(timeout(&format!("fetching the next part of {reference}"), STALL)),
                }
            };
            match outcome {
                Ok(()) => {
                    let id = self.image(reference).await?;
                    return id
                        .ok_or_else(|| RuntimeError::NotFound(format!("{reference} was fetched and is not there")));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| RuntimeError::NotFound(reference.to_owned())))
    }

    async fn mount(&self, pod: &PodRef, volumes: &[Volume]) -> Result<BTreeMap<String, String>, RuntimeError> {
        let (dir, uid, volumes) = (self.config.dir.clone(), pod.uid.clone(), volumes.to_vec());
        blocking(move || volume::mount(&dir, &uid, &volumes)).await
    }

    async fn unmount(&self, uid: &str) -> Result<(), RuntimeError> {
        let (dir, uid) = (self.config.dir.clone(), uid.to_owned());
        blocking(move || volume::unmount(&dir, &uid)).await
    }

    async fn mounted(&self) -> Result<Vec<String>, RuntimeError> {
        let dir = self.config.dir.clone();
        blocking(move || volume::mounted(&dir)).await
    }

    async fn start_holder(&self, holder: &HolderSpec) -> Result<(), RuntimeError> {
        let body = describe::holder(holder, &self.config, self.oom_floor);
        let id = self.make(&name("POD", &holder.pod, holder.attempt), body).await?;
        self.start(&id).await
    }

    async fn create(&self, container: &ContainerSpec) -> Result<String, RuntimeError> {
        let name = name(&container.name, &container.pod_ref(), container.attempt);
        // Where the container mounts something else, it has that instead.
        let taken = container.mounts.iter().any(|mount| mount.target == container.message_path);
        let message = if container.message_path.is_empty() || taken {
            None
        } else {
            let (dir, container) = (self.config.dir.clone(), container.clone());
            let path = blocking(move || ended::make(&dir, &container)).await?;
            Some(path.to_string_lossy().into_owned())
        };
        self.make(&name, describe::creation(container, &self.config, self.oom_floor, message)).await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.call("starting a container", MAKE, async |client| client.start_container(id, None).await).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = || Some(StopContainerOptionsBuilder::new().t(seconds).build());
        let stopped = self
            .call("stopping a container", grace + KILL, async |client| client.stop_container(id, options()).await)
            .await;
        unless_gone(stopped)
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = || Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build());
        let removed = self
            .call("removing a container", MAKE, async |client| {
                match client.remove_container(id, options()).await {
                    // Someone else is removing it already.
                    Err(ClientError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
                    answer => answer,
                }
            })
            .await;
        unless_gone(removed)
    }

    async fn check(
        &self,
        id: &str,
        address: Ipv4Addr,
        check: &Check,
        timeout: Duration,
    ) -> Result<Result<(), String>, RuntimeError> {
        match check {
            Check::Exec { command } => self.exec(id, command, timeout).await,
            check => Ok(check::ask(address, check, timeout).await),
        }
    }

    async fn logs(
        &self,
        id: &str,
        lines: &LogLines,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        // The answer to a container that is gone comes with the first line; here the caller still learns it as a refusal.
        self.inspect(id).await?;
        let since = lines.since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(i32::MAX));
        let tail = lines.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::new()
            .follow(lines.follow)
            .stdout(true)
            .stderr(true)
            .since(since)
            .timestamps(lines.timestamps)
            .tail(&tail)
            .build();
        let stream = self.client().await?.logs(id, Some(options));
        Ok(stream
            .map(|item| item.map(LogOutput::into_bytes).map_err(|error| RuntimeError::Refused(chain(&error))))
            .boxed())
    }
}

/// What is gone already is as good as done.
fn unless_gone(done: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match done {
        Err(RuntimeError::NotFound(_)) => Ok(()),
        done => done,
    }
}

/// Files are read and written on a thread where that may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            Err(RuntimeError::Machine { what: "working with volumes".to_owned(), because: error.to_string() })
        }
    }
}
