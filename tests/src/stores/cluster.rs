//! A cluster of three nodes on loopback, ours or etcd's, and what may be done to its processes.
//!
//! Invariant: no process outlives it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Failure, etcd, ours,
    process::Process,
    session::{Session, key},
};

/// How long a cluster may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// One of the two.
#[derive(Debug)]
pub enum Cluster {
    /// Debian's.
    Etcd(etcd::Cluster),
    /// Our daemons.
    Ours(ours::Cluster),
}

/// What is needed to connect to a node.
#[derive(Debug, Clone)]
pub enum Door {
    /// Of etcd's.
    Etcd(etcd::Door),
    /// Of ours.
    Ours(ours::Door),
}

impl Door {
    /// Connects.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn open(&self) -> Result<Session, Failure> {
        match self {
            Self::Etcd(door) => door.open().await,
            Self::Ours(door) => door.open().await,
        }
    }
}

impl Cluster {
    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Ours(_) => "ours",
        }
    }

    /// A connection to a node, 0 to 2.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn session(&self, node: usize) -> Result<Session, Failure> {
        self.door(node).open().await
    }

    /// What is needed to connect to a node.
    #[must_use]
    pub fn door(&self, node: usize) -> Door {
        match self {
            Self::Etcd(cluster) => Door::Etcd(cluster.door(node)),
            Self::Ours(cluster) => Door::Ours(cluster.door(node)),
        }
    }

    /// So many connections, spread over the nodes.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub async fn sessions(&self, nodes: &[usize], count: usize) -> Result<Vec<Session>, Failure> {
        let mut sessions = Vec::with_capacity(count);
        for node in nodes.iter().cycle().take(count) {
            sessions.push(self.session(*node).await?);
        }
        Ok(sessions)
    }

    const fn nodes(&self) -> &[Option<Process>; 3] {
        match self {
            Self::Etcd(cluster) => &cluster.nodes,
            Self::Ours(cluster) => &cluster.nodes,
        }
    }

    const fn nodes_mut(&mut self) -> &mut [Option<Process>; 3] {
        match self {
            Self::Etcd(cluster) => &mut cluster.nodes,
            Self::Ours(cluster) => &mut cluster.nodes,
        }
    }

    /// The processes that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes().iter().flatten().map(Process::id).collect()
    }

    /// The process of a node, if it was started and not ended by us.
    pub const fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes_mut()[node].as_mut()
    }

    /// Which node leads, if one that runs says that it does.
    pub async fn leader(&self) -> Option<usize> {
        for (node, process) in self.nodes().iter().enumerate() {
            if process.is_some()
                && let Ok(session) = self.session(node).await
                && matches!(session.leads().await, Ok(true))
            {
                return Some(node);
            }
        }
        None
    }

    /// Waits until every node that runs answers a linearizable read, and one leads.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self) -> Result<usize, Failure> {
        let until = Instant::now() + READY;
        'again: while Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
            for (node, process) in self.nodes().iter().enumerate() {
                if process.is_none() {
                    continue;
                }
                let Ok(session) = self.session(node).await else { continue 'again };
                if session.get(&key("ready", 0), false).await.is_err() {
                    continue 'again;
                }
            }
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
        }
        Err(format!("{} was not ready within {} s", self.name(), READY.as_secs()).into())
    }

    /// Starts a node again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self, node: usize) -> Result<(), Failure> {
        self.restart_as(node, &ours::Launch::default())
    }

    /// Starts a node again in another way; etcd's members have one only.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart_as(&mut self, node: usize, launch: &ours::Launch) -> Result<(), Failure> {
        match self {
            Self::Etcd(cluster) => cluster.run(node),
            Self::Ours(cluster) => cluster.run(node, None, launch),
        }
    }

    /// Kills a node.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes_mut()[node].take().map_or(Ok(()), Process::kill)
    }

    /// Kills all nodes, as nearly at once as can be.
    ///
    /// # Errors
    /// If one cannot be killed.
    pub fn kill_all(&mut self) -> Result<(), Failure> {
        (0..3).try_for_each(|node| self.kill(node))
    }

    /// Tells a node to stop; it is gone when the process is dropped, or has ended by itself.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn terminate(&mut self, node: usize) -> Result<Option<Process>, Failure> {
        let process = self.nodes_mut()[node].take();
        process.as_ref().map_or(Ok(()), Process::terminate)?;
        Ok(process)
    }

    /// Stops all of it in order.
    ///
    /// # Errors
    /// If a node is gone already.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        for node in 0..3 {
            if let Some(mut process) = self.terminate(node)? {
                process.ended().await?;
            }
        }
        Ok(())
    }
}
