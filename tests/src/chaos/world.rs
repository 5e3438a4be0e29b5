//! A cluster that faults strike: what may be done to its nodes, and how long until it serves again.
//!
//! Invariant: clients learn of the end of a node's life before it ends.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::{
    nodes::{Link, Nodes},
    pulse::Pulse,
    record::micros,
};
use crate::stores::{Failure, cluster::Cluster, ours::Launch, session::key};

/// How long a cluster that is mended may take until it serves on every node, on the busiest machine.
const SERVE: Duration = Duration::from_secs(90);

/// How long one question may take.
const ASK: Duration = Duration::from_secs(2);

/// How often to look again.
const LOOK: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) nodes: Arc<Nodes>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) begun: Instant,
    pub(super) kills: u64,
}

impl World {
    pub(super) fn new(cluster: Cluster) -> Self {
        let nodes = Nodes::new(&cluster);
        Self { cluster, nodes, pulse: Arc::new(Pulse::new()), begun: Instant::now(), kills: 0 }
    }

    pub(super) fn now(&self) -> u64 {
        micros(self.begun)
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes.down(node);
        self.kills += 1;
        self.cluster.kill(node)
    }

    /// Stops a node in order.
    pub(super) async fn stop(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes.down(node);
        if let Some(mut process) = self.cluster.terminate(node)? {
            process.ended().await?;
        }
        Ok(())
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), Failure> {
        self.start_as(node, &Launch::default())
    }

    pub(super) fn start_as(&mut self, node: usize, launch: &Launch) -> Result<(), Failure> {
        self.cluster.restart_as(node, launch)?;
        self.nodes.up(node);
        Ok(())
    }

    pub(super) fn signal(&mut self, node: usize, signal: Signal) -> Result<(), Failure> {
        self.cluster.process(node).map_or(Ok(()), |process| process.signal(signal))
    }

    /// A connection to a node, as soon as there is one.
    pub(super) async fn link(&self, node: usize) -> Result<Link, Failure> {
        let until = Instant::now() + SERVE;
        loop {
            if let Some(link) = self.nodes.link(node).await {
                return Ok(link);
            }
            if Instant::now() > until {
                return Err(format!("n{node} let nobody connect for {} s", SERVE.as_secs()).into());
            }
            sleep(LOOK).await;
        }
    }

    /// Which node leads, as soon as one does.
    pub(super) async fn leader(&self) -> Result<usize, Failure> {
        let until = Instant::now() + SERVE;
        while Instant::now() < until {
            for node in 0..3 {
                if let Some(link) = self.nodes.link(node).await {
                    match timeout(ASK, link.session.leads()).await {
                        Ok(Ok(true)) => return Ok(node),
                        Ok(Ok(false)) | Err(_) => {}
                        Ok(Err(_)) => self.nodes.forget(node, &link).await,
                    }
                }
            }
            sleep(LOOK).await;
        }
        Err(format!("no node led for {} s", SERVE.as_secs()).into())
    }

    /// Waits until a node answers a linearizable read.
    pub(super) async fn serves(&mut self, node: usize) -> Result<(), Failure> {
        let until = Instant::now() + SERVE;
        let mut said = String::new();
        while Instant::now() < until {
            if let Some(process) = self.cluster.process(node)
                && let Some(status) = process.end()?
            {
                return Err(format!("n{node} has ended by itself: {status}").into());
            }
            if let Some(link) = self.nodes.link(node).await {
                match timeout(ASK, link.session.get(&key("ready", 0), false)).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(failure)) => {
                        said = failure.to_string();
                        if !failure.is::<quorate_proto::refusal::Refusal>() {
                            self.nodes.forget(node, &link).await;
                        }
                    }
                    Err(_) => said = "no answer".to_owned(),
                }
            }
            sleep(LOOK).await;
        }
        Err(format!("n{node} did not serve within {} s: {said}", SERVE.as_secs()).into())
    }

    /// Waits until every node serves.
    pub(super) async fn all_serve(&mut self) -> Result<(), Failure> {
        for node in 0..3 {
            self.serves(node).await?;
        }
        Ok(())
    }

    /// Waits until every node votes; etcd's always do.
    pub(super) async fn all_vote(&self) -> Result<(), Failure> {
        let Cluster::Ours(cluster) = &self.cluster else { return Ok(()) };
        let until = Instant::now() + SERVE * 2;
        while !cluster.all_vote().await {
            if Instant::now() > until {
                return Err(format!("not all of three nodes voted within {} s", SERVE.as_secs() * 2).into());
            }
            sleep(LOOK * 10).await;
        }
        Ok(())
    }

    /// What nodes said that a program never should: that it panicked.
    pub(super) fn panics(&self) -> Result<Vec<String>, Failure> {
        let Cluster::Ours(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for node in 0..3 {
            let log = std::fs::read_to_string(cluster.directory().join(format!("n{node}.log")))?;
            let mut lines = log.lines();
            while let Some(line) = lines.find(|line| line.contains(" panicked at ")) {
                found.push(format!("n{node}: {line} {}", lines.next().unwrap_or_default()));
            }
        }
        Ok(found)
    }

    /// From now on, the next write that is asked for and acknowledged is waited for.
    pub(super) fn mark(&self) {
        self.pulse.mark(self.now());
    }

    /// How long after the mark a write that was asked for afterwards was acknowledged, as soon as one is.
    pub(super) async fn back(&self) -> Result<Duration, Failure> {
        let back = self.pulse.back(SERVE).await;
        back.ok_or_else(|| format!("no write was acknowledged for {} s", SERVE.as_secs()).into())
    }
}
