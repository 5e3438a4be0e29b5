//! A runtime that runs nothing: containers are rows in memory, time is the clock it is given.
//!
//! It is for tests, the simulator and for trying a cluster out without an engine. What containers do is told by [`Behaviour`]s.
//!
//! Invariant: the same calls at the same times have the same results; no thread, no task, no disk, no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use ipnet::Ipv4Net;
use quorate_proto::world::{Clock, Instant, Timestamp};
use tokio::sync::watch;

use super::{
    Container, ContainerSpec, Credentials, HolderSpec, Info, LogLines, PodRef, Role, Runtime, RuntimeError, State,
    Volume,
};
use crate::probe::Check;

/// The machine that is simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name of the node.
    pub node: String,
    /// Where pods get their addresses from; the first two are the network's and the gateway's.
    pub pod_range: Ipv4Net,
    /// Cores.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
}

/// What containers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// How long a start takes.
    pub start: Duration,
    /// After running so long it ends with this code; `None`: it runs until it is stopped.
    pub exits: Option<(Duration, i32)>,
    /// Every probe fails, and says why.
    pub unwell: Option<String>,
    /// How long it takes to end when it is asked to; if that is longer than its grace period, it is killed.
    pub stop: Duration,
    /// What it writes when it starts.
    pub writes: String,
    /// What it leaves as its last words.
    pub says: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(300),
            exits: None,
            unwell: None,
            stop: Duration::from_millis(100),
            writes: String::new(),
            says: String::new(),
        }
    }
}

/// A simulated runtime. Images are always present unless told otherwise.
pub struct Simulated {
    config: Config,
    clock: Arc<dyn Clock>,
    state: Mutex<Rows>,
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Rows {
    containers: BTreeMap<String, Row>,
    mounts: BTreeMap<String, Vec<String>>,
    behaviours: BTreeMap<String, Behaviour>,
    /// Images that are not here, and whether a registry has them.
    missing: BTreeMap<String, bool>,
    absent: bool,
    made: u64,
}

struct Row {
    name: String,
    shown: Container,
    behaviour: Behaviour,
    begun: Option<(Instant, Timestamp)>,
    /// When it ends by itself, and with which code.
    ends: Option<(Instant, i32)>,
}

impl Row {
    /// The container as it is now.
    fn at(&self, now: Instant) -> Container {
        let mut shown = self.shown.clone();
        if let (Some((begun, started)), Some((ends, code))) = (self.begun, self.ends)
            && ends <= now
        {
            let ran = i64::try_from(ends.since(begun).as_millis()).unwrap_or(i64::MAX);
            let finished = Timestamp::from_millisecond(started.as_millisecond().saturating_add(ran)).unwrap_or(started);
            let (message, words) = (String::new(), self.behaviour.says.clone());
            shown.state = State::Exited { started, finished, code, out_of_memory: false, message, words };
            shown.address = None;
        }
        shown
    }

    fn runs(&self, now: Instant) -> bool {
        matches!(self.at(now).state, State::Running { .. })
    }
}

impl Simulated {
    /// A machine on which nothing runs yet.
    #[must_use]
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, state: Mutex::default(), changes: Arc::new(watch::Sender::new(0)) }
    }

    /// Sets what containers of an image do from their next start on, and whether those that run are well.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        let mut rows = self.rows();
        for row in rows.containers.values_mut().filter(|row| row.shown.image == image) {
            row.behaviour.unwell.clone_from(&behaviour.unwell);
        }
        rows.behaviours.insert(image.to_owned(), behaviour);
    }

    /// Removes an image from the machine; a registry has it or not.
    pub fn lack(&self, image: &str, in_registry: bool) {
        self.rows().missing.insert(image.to_owned(), in_registry);
    }

    /// Makes the runtime answer nothing, or answer again; containers go on meanwhile.
    pub fn set_absent(&self, absent: bool) {
        self.rows().absent = absent;
        self.changed();
    }

    /// The containers as they are, whether the runtime answers or not.
    #[must_use]
    pub fn everything(&self) -> Vec<Container> {
        let now = self.clock.now();
        self.rows().containers.values().map(|row| row.at(now)).collect()
    }

    /// Ends a running container, as a crash would.
    pub fn crash(&self, id: &str, code: i32) {
        let now = self.clock.now();
        if let Some(row) = self.rows().containers.get_mut(id).filter(|row| row.runs(now)) {
            row.ends = Some((now, code));
        }
        self.changed();
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // No row is left half written by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self) -> Result<MutexGuard<'_, Rows>, RuntimeError> {
        let rows = self.rows();
        if rows.absent {
            return Err(RuntimeError::Absent {
                runtime: "the simulated runtime".to_owned(),
                because: "it was told not to answer".to_owned(),
                hint: "tell it to answer again".to_owned(),
            });
        }
        Ok(rows)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn free_address(&self, rows: &Rows, now: Instant) -> Result<Ipv4Addr, RuntimeError> {
        let taken: BTreeSet<Ipv4Addr> = rows.containers.values().filter_map(|row| row.at(now).address).collect();
        let mut hosts = self.config.pod_range.hosts().skip(1);
        hosts.find(|address| !taken.contains(address)).ok_or_else(|| {
            RuntimeError::Refused(format!("no address is left in the pod range {}", self.config.pod_range))
        })
    }

    /// Adds a row; one of the same name that does not run is replaced.
    fn add(&self, rows: &mut Rows, name: String, mut shown: Container) -> Result<String, RuntimeError> {
        let now = self.clock.now();
        let same =
            rows.containers.iter().find(|(_, row)| row.name == name).map(|(id, row)| (id.clone(), row.runs(now)));
        match same {
            Some((_, true)) => return Err(RuntimeError::Refused(format!("{name} is running already"))),
            Some((id, false)) => _ = rows.containers.remove(&id),
            None => {}
        }
        rows.made += 1;
        let id = format!("{:064x}", rows.made);
        shown.id.clone_from(&id);
        let behaviour = rows.behaviours.get(&shown.image).cloned().unwrap_or_default();
        rows.containers.insert(id.clone(), Row { name, shown, behaviour, begun: None, ends: None });
        Ok(id)
    }

    fn run(&self, id: &str, address: Option<Ipv4Addr>) -> Result<(), RuntimeError> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut rows = self.answering()?;
        let row = rows.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(format!("no container {id}")))?;
        row.begun = Some((now, wall));
        row.ends = row.behaviour.exits.map(|(after, code)| (now + after, code));
        row.shown.state = State::Running { started: wall };
        row.shown.address = address;
        drop(rows);
        self.changed();
        Ok(())
    }

    /// The next time a container ends by itself.
    fn next_end(&self, now: Instant) -> Option<Instant> {
        self.rows().containers.values().filter_map(|row| row.ends).map(|(at, _)| at).filter(|at| *at > now).min()
    }
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Simulated").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shared, so that whoever drives a test can hold it beside the agent.
#[async_trait]
impl Runtime for Arc<Simulated> {
    async fn info(&self) -> Result<Info, RuntimeError> {
        drop(self.answering()?);
        Ok(Info {
            version: format!("simulated://{}", env!("CARGO_PKG_VERSION")),
            kernel: "simulated".to_owned(),
            os_image: "simulated".to_owned(),
            architecture: "amd64".to_owned(),
            cpus: self.config.cpus,
            memory: self.config.memory,
        })
    }

    async fn prepare(&self) -> Result<(), RuntimeError> {
        self.answering().map(drop)
    }

    async fn list(&self) -> Result<Vec<Container>, RuntimeError> {
        let now = self.clock.now();
        Ok(self.answering()?.containers.values().map(|row| row.at(now)).collect())
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<(), RuntimeError>>, RuntimeError> {
        drop(self.answering()?);
        let changes = self.changes.subscribe();
        let runtime = Self::clone(self);
        Ok(stream::unfold((runtime, changes), |(runtime, mut changes)| async {
            let now = runtime.clock.now();
            match runtime.next_end(now) {
                Some(end) => tokio::select! {
                    changed = changes.changed() => changed.ok()?,
                    () = tokio::time::sleep(end.since(now)) => {}
                },
                None => changes.changed().await.ok()?,
            }
            let answering = runtime.answering().map(drop);
            Some((answering, (runtime, changes)))
        })
        .boxed())
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, RuntimeError> {
        let here = !self.answering()?.missing.contains_key(reference);
        Ok(here.then(|| format!("simulated:{reference}")))
    }

    async fn pull(&self, reference: &str, _credentials: &[Credentials]) -> Result<String, RuntimeError> {
        let mut rows = self.answering()?;
        if rows.missing.get(reference) == Some(&false) {
            return Err(RuntimeError::Refused(format!("manifest for {reference} not found: manifest unknown")));
        }
        rows.missing.remove(reference);
        Ok(format!("simulated:{reference}"))
    }

    async fn mount(&self, pod: &PodRef, volumes: &[Volume]) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut rows = self.answering()?;
        let names: Vec<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
        let paths = names.iter().map(|name| (name.clone(), format!("/simulated/{}/{name}", pod.uid))).collect();
        if !names.is_empty() {
            rows.mounts.insert(pod.uid.clone(), names);
        }
        Ok(paths)
    }

    async fn unmount(&self, uid: &str) -> Result<(), RuntimeError> {
        self.answering()?.mounts.remove(uid);
        Ok(())
    }

    async fn mounted(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(self.answering()?.mounts.keys().cloned().collect())
    }

    async fn start_holder(&self, holder: &HolderSpec) -> Result<(), RuntimeError> {
        let name = super::name("POD", &holder.pod, holder.attempt);
        let (id, address) = {
            let mut rows = self.answering()?;
            let address = if holder.host_network { None } else { Some(self.free_address(&rows, self.clock.now())?) };
            let shown = shown(&self.config.node, holder.pod.clone(), Role::Holder, holder.attempt, holder.grace, "");
            (self.add(&mut rows, name, shown)?, address)
        };
        self.run(&id, address)
    }

    async fn create(&self, container: &ContainerSpec) -> Result<String, RuntimeError> {
        let role = Role::Container {
            name: container.name.clone(),
            hash: container.hash.clone(),
            holder: container.holder.clone(),
        };
        let (attempt, grace) = (container.attempt, container.grace);
        let shown = shown(&self.config.node, container.pod_ref(), role, attempt, grace, &container.image);
        let mut rows = self.answering()?;
        let now = self.clock.now();
        if !rows.containers.get(&container.holder).is_some_and(|holder| holder.runs(now)) {
            return Err(RuntimeError::NotFound(format!(
                "cannot join the network of {}: it does not run",
                container.holder
            )));
        }
        self.add(&mut rows, super::name(&container.name, &container.pod_ref(), attempt), shown)
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let takes = self.answering()?.containers.get(id).map(|row| row.behaviour.start).unwrap_or_default();
        tokio::time::sleep(takes).await;
        self.run(id, None)
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let takes = {
            let rows = self.answering()?;
            let Some(row) = rows.containers.get(id).filter(|row| row.runs(self.clock.now())) else { return Ok(()) };
            row.behaviour.stop
        };
        tokio::time::sleep(takes.min(grace)).await;
        let now = self.clock.now();
        if let Some(row) = self.answering()?.containers.get_mut(id).filter(|row| row.runs(now)) {
            row.ends = Some((now, if takes > grace { 137 } else { 143 }));
        }
        self.changed();
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.answering()?.containers.remove(id);
        self.changed();
        Ok(())
    }

    async fn check(
        &self,
        id: &str,
        _address: Ipv4Addr,
        check: &Check,
        _timeout: Duration,
    ) -> Result<Result<(), String>, RuntimeError> {
        let rows = self.answering()?;
        let Some(row) = rows.containers.get(id).filter(|row| row.runs(self.clock.now())) else {
            return Ok(Err("the container does not run".to_owned()));
        };
        match (check, &row.behaviour.unwell) {
            (Check::Unsupported(why), _) | (_, Some(why)) => Ok(Err(why.clone())),
            _ => Ok(Ok(())),
        }
    }

    async fn logs(
        &self,
        id: &str,
        lines: &LogLines,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        let rows = self.answering()?;
        let row = rows.containers.get(id).ok_or_else(|| RuntimeError::NotFound(format!("no container {id}")))?;
        let written: Vec<&str> = row.behaviour.writes.split_inclusive('\n').collect();
        let skip = lines.tail.map_or(0, |tail| written.len().saturating_sub(tail as usize));
        let lines: Vec<_> = written[skip..].iter().map(|line| Ok(Bytes::copy_from_slice(line.as_bytes()))).collect();
        Ok(stream::iter(lines).boxed())
    }
}

fn shown(node: &str, pod: PodRef, role: Role, attempt: u32, grace: Duration, image: &str) -> Container {
    Container {
        id: String::new(),
        node: node.to_owned(),
        pod,
        role,
        attempt,
        grace,
        image: image.to_owned(),
        image_id: format!("simulated:{image}"),
        address: None,
        state: State::Created,
    }
}
