//! The part that carries connections: what the daemon holds.
//!
//! Invariant: a connection that is accepted after [`Traffic::publish`] returns goes to an endpoint of what was published.

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_proto::{endpoints::ServiceEndpoints, world::Random};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    carrier::{Carrier, Receiver, Sender},
    config::Config,
    deliver::{DeliverError, deliver},
    dial::Dialler,
    listeners,
    loads::Loads,
    table::{Listen, Table},
};

/// What is listened on, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How many listeners are open.
    pub listening: usize,
    /// What cannot be listened on, and why.
    pub unbound: BTreeMap<Listen, String>,
}

/// Carries connections to ready pods. Cheap to clone.
#[derive(Clone)]
pub struct Traffic {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    sources: Mutex<Sources>,
    table: watch::Sender<Arc<Table>>,
    /// Dials that began by tables before the present one, while there are any.
    earlier: Mutex<Vec<TaskTracker>>,
    health: watch::Receiver<Health>,
    streams: Loads<String>,
    shutdown: CancellationToken,
}

/// What the table is made from.
#[derive(Default)]
struct Sources {
    services: Arc<[ServiceEndpoints]>,
    addresses: Vec<Ipv4Addr>,
}

impl Traffic {
    /// Begins, with nothing to listen on.
    #[must_use]
    pub fn start(
        config: Config,
        carrier: Arc<dyn Carrier>,
        random: Arc<dyn Random>,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let config = Arc::new(config);
        let (table, newest) = watch::channel(Arc::new(Table::default()));
        let (report, health) = watch::channel(Health::default());
        let dialler =
            Arc::new(Dialler { config: Arc::clone(&config), carrier, random, table: newest, open: Loads::new() });
        tasks.spawn(listeners::keep(dialler, report, tasks.clone(), shutdown.clone()));
        let inner = Inner {
            config,
            sources: Mutex::default(),
            table,
            earlier: Mutex::default(),
            health,
            streams: Loads::new(),
            shutdown: shutdown.clone(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Replaces the services: their listeners appear and disappear soon after, their endpoints change at once.
    pub fn publish(&self, services: Arc<[ServiceEndpoints]>) {
        self.update(|sources| sources.services = services);
    }

    /// Replaces this node's own addresses, on which node ports are listened on.
    pub fn publish_addresses(&self, addresses: Vec<Ipv4Addr>) {
        self.update(|sources| sources.addresses = addresses);
    }

    /// Carries a stream that another node opened, to its end or to shutdown. `caller` is the node's authenticated name.
    ///
    /// # Errors
    /// If it was refused or broke; nothing is left to do about it but to log it.
    pub async fn accept(&self, caller: &str, send: Sender, receive: Receiver) -> Result<(), DeliverError> {
        let Inner { config, table, streams, shutdown, .. } = &*self.inner;
        let delivered = deliver(&config.limits, table, streams, caller, send, receive);
        shutdown.run_until_cancelled(delivered).await.unwrap_or(Ok(()))
    }

    /// Waits until every dial that began before what was published last has come to its end: from then on, no pod that is not in it
    /// gets a connection from this node.
    pub async fn settled(&self) {
        let earlier = self.earlier().clone();
        for dials in &earlier {
            dials.wait().await;
        }
        self.earlier().retain(|dials| !dials.is_empty());
    }

    fn earlier(&self) -> MutexGuard<'_, Vec<TaskTracker>> {
        // A list of trackers is whole whoever panicked beside it.
        self.inner.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is listened on, and what cannot be: changes as it does.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.clone()
    }

    fn update(&self, change: impl FnOnce(&mut Sources)) {
        let Inner { config, sources, table, .. } = &*self.inner;
        // Held until the table is replaced, so that an older one never follows a newer.
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let before = table.send_replace(Arc::new(Table::build(config, &sources.addresses, &sources.services)));
        before.dials.close();
        let mut earlier = self.earlier();
        earlier.retain(|dials| !dials.is_empty());
        earlier.push(before.dials.clone());
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Traffic").field("node", &self.inner.config.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
