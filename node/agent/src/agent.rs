//! The agent's handle: starts its tasks, tells how it is, reads logs.
//!
//! Invariant: the handle only reads; what runs is changed by the loop alone.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use quorate_proto::{
    kinds::PODS,
    refusal::{Reason, Refusal},
    request,
    snapshot::Snapshot,
    world::{Clock, Random, Timestamp},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    act::Hands,
    config::Config,
    keeper::{self, Keeper},
    memory,
    pod::BoundPod,
    report::{Outbox, Reporter},
    runtime::{Container, Info, LogLines, Runtime},
    withdrawal::Withdrawal,
};

/// Messages of actions and probes that wait for the loop.
const MESSAGES: usize = 1024;

/// A handle to the running agent. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    node: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Arc<dyn Clock>,
    health: watch::Receiver<Option<String>>,
    info: watch::Receiver<Option<Info>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

/// Everything the agent has of the world.
pub struct Parts {
    /// Which node this is.
    pub config: Config,
    /// What runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// The agreed state, as it is replaced.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where to tell what is seen.
    pub reporter: Arc<dyn Reporter>,
    /// Who knows whether a pod still gets connections.
    pub withdrawal: Arc<dyn Withdrawal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

impl Agent {
    /// Starts the agent's tasks in `tasks`; they end when `shutdown` is cancelled. Containers go on running.
    #[must_use]
    pub fn start(parts: Parts, tasks: &TaskTracker, shutdown: &CancellationToken) -> Self {
        let Parts { config, runtime, snapshots, reporter, withdrawal, clock, random } = parts;
        let (health, health_seen) = watch::channel(None);
        let (info, info_seen) = watch::channel(None);
        let (messages, inbox) = mpsc::channel(MESSAGES);
        let outbox = Arc::new(Outbox::default());
        let changed = Arc::new(Notify::new());
        let shared = Shared {
            runtime: Arc::clone(&runtime),
            node: config.node.clone(),
            snapshots: snapshots.clone(),
            clock: Arc::clone(&clock),
            health: health_seen,
            info: info_seen,
        };
        tasks.spawn(Arc::clone(&outbox).run(reporter, shutdown.clone()));
        tasks.spawn(keeper::follow(Arc::clone(&runtime), Arc::clone(&changed), shutdown.clone()));
        let hands = Hands::new(runtime, withdrawal, messages, config.parallel_starts);
        let keeper = Keeper {
            config,
            hands,
            clock,
            random,
            outbox,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            health,
            info,
            pods: BTreeMap::new(),
            seen: None,
            stale: true,
        };
        tasks.spawn(keeper.run(snapshots, inbox, changed));
        Self { shared: Arc::new(shared) }
    }

    /// What is wrong with the runtime, in a sentence; `None` while all is well.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.shared.health.clone()
    }

    /// What the runtime is and what the machine has; `None` until it answered once.
    #[must_use]
    pub fn info(&self) -> watch::Receiver<Option<Info>> {
        self.shared.info.clone()
    }

    /// What a pod of this node wrote.
    ///
    /// # Errors
    /// If the pod is not on this node, the container is not one of its, or the runtime does not answer.
    pub async fn logs(&self, logs: &request::Logs) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        let what = format!("logs of pod {} were not read", logs.pod);
        let refuse = |reason, because: String| Refusal::new(reason, what.clone(), because);
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        let stored = snapshot.find(&PODS, Some(&logs.namespace), &logs.pod);
        let bound = stored
            .and_then(|stored| BoundPod::read(stored, &self.shared.node))
            .ok_or_else(|| refuse(Reason::NotFound, format!("pod {} is not on node {}", logs.pod, self.shared.node)))?;
        let names: Vec<&str> = bound.containers().map(|(container, _)| container.name.as_str()).collect();
        let name = match (&logs.container, bound.spec.containers.as_slice()) {
            (Some(name), _) => name.as_str(),
            (None, [only]) => only.name.as_str(),
            (None, _) => {
                return Err(refuse(Reason::BadRequest, "the pod has several containers".to_owned())
                    .hint(format!("name one of: {}", names.join(", "))));
            }
        };
        if !names.contains(&name) {
            return Err(refuse(Reason::NotFound, format!("the pod has no container `{name}`"))
                .hint(format!("name one of: {}", names.join(", "))));
        }
        let listed = self.shared.runtime.list().await.map_err(|error| error.refusal(what.clone()))?;
        let seen: Vec<&Container> =
            listed.iter().filter(|container| container.pod.uid == bound.reference.uid).collect();
        let found = if logs.previous { memory::previous(&seen, name) } else { memory::current(&seen, name) };
        let container = found.ok_or_else(|| {
            let which = if logs.previous { "no earlier container" } else { "no container yet" };
            refuse(Reason::BadRequest, format!("there is {which} of `{name}` in pod {}", logs.pod))
        })?;
        let since = logs.since_seconds.map(|seconds| {
            let wall = self.shared.clock.wall();
            Timestamp::from_second(wall.as_second().saturating_sub(i64::from(seconds))).unwrap_or(wall)
        });
        let lines = LogLines { follow: logs.follow, tail: logs.tail, since, timestamps: logs.timestamps };
        let stream =
            self.shared.runtime.logs(&container.id, &lines).await.map_err(|error| error.refusal(what.clone()))?;
        Ok(stream.map(move |item| item.map_err(|error| error.refusal(what.clone()))).boxed())
    }
}

#[cfg(test)]
mod tests;
