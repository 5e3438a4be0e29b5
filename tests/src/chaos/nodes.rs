//! The nodes as clients see them: which are up, in which life, and one connection to each.
//!
//! Invariant: a connection is one to a single life of a node; what was asked of a node that is killed ends at that moment, without an
//! answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::stores::{
    cluster::{Cluster, Door},
    session::Session,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// After a node that did not answer, this long nobody asks it.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection to one life of a node.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) session: Session,
    /// Counts the node's starts.
    pub(super) life: u64,
    /// Cancelled when that life ends.
    pub(super) gone: CancellationToken,
    number: u64,
}

struct Node {
    door: Door,
    /// The present life, if it is up.
    life: Mutex<(u64, Option<CancellationToken>)>,
    link: tokio::sync::Mutex<(Option<Link>, Option<Instant>)>,
}

/// All three.
pub(super) struct Nodes {
    nodes: [Node; 3],
    links: AtomicU64,
}

impl Nodes {
    pub(super) fn new(cluster: &Cluster) -> Arc<Self> {
        let node = |node| Node {
            door: cluster.door(node),
            life: Mutex::new((1, Some(CancellationToken::new()))),
            link: tokio::sync::Mutex::default(),
        };
        Arc::new(Self { nodes: [0, 1, 2].map(node), links: AtomicU64::new(0) })
    }

    /// A node was started.
    pub(super) fn up(&self, node: usize) {
        let mut life = self.nodes[node].life.lock().unwrap_or_else(PoisonError::into_inner);
        *life = (life.0 + 1, Some(CancellationToken::new()));
    }

    /// A node has ended.
    pub(super) fn down(&self, node: usize) {
        let gone = self.nodes[node].life.lock().unwrap_or_else(PoisonError::into_inner).1.take();
        if let Some(gone) = gone {
            gone.cancel();
        }
    }

    fn life(&self, node: usize) -> Option<(u64, CancellationToken)> {
        let life = self.nodes[node].life.lock().unwrap_or_else(PoisonError::into_inner);
        Some((life.0, life.1.clone()?))
    }

    /// A connection to a node, if it is up and answers.
    pub(super) async fn link(&self, node: usize) -> Option<Link> {
        let (life, gone) = self.life(node)?;
        let mut held = self.nodes[node].link.lock().await;
        if let Some(link) = held.0.as_ref().filter(|link| link.life == life) {
            return Some(link.clone());
        }
        if held.1.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return None;
        }
        let opened = gone.run_until_cancelled(timeout(CONNECT, self.nodes[node].door.open())).await?;
        let Ok(Ok(session)) = opened else {
            held.1 = Some(Instant::now());
            return None;
        };
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let link = Link { session, life, gone, number };
        // It may have been opened to a later life.
        if self.life(node).is_none_or(|(now, _)| now != life) {
            return None;
        }
        *held = (Some(link.clone()), None);
        Some(link)
    }

    /// Lets go of a connection that is broken.
    pub(super) async fn forget(&self, node: usize, link: &Link) {
        let mut held = self.nodes[node].link.lock().await;
        held.0.take_if(|held| held.number == link.number);
    }
}
