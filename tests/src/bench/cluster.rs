//! Both clusters: three nodes each, on loopback, with their data on the same disk.
//!
//! Invariant: no process outlives the benchmark, however it ends.

use std::{
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Failure, etcd, machine, ours,
    session::{Session, key},
};

/// How long a cluster may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// So many keys are written and read.
pub(crate) const KEYS: u64 = 100_000;

/// So many of them are read: all of them exist.
pub(crate) const READ: u64 = 1_000;

/// The bucket of the loads.
pub(crate) const BUCKET: &str = "bench";

/// One of the two.
pub(crate) enum Cluster {
    Etcd(etcd::Cluster),
    Ours(ours::Cluster),
}

/// The two.
pub(crate) struct Both {
    pub(crate) ours: Cluster,
    pub(crate) etcd: Cluster,
    directory: std::path::PathBuf,
}

/// A process that is killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.stdin(std::process::Stdio::null()).spawn()?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// As a power cut does it.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Tells it to stop.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        while self.0.try_wait()?.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

impl Both {
    /// Starts both and fills in the keys that are read.
    pub(crate) async fn start(directory: &Path) -> Result<Self, Failure> {
        let ours = Cluster::Ours(ours::Cluster::start(&directory.join("ours")).await?);
        let etcd = Cluster::Etcd(etcd::Cluster::start(&directory.join("etcd"))?);
        for cluster in [&ours, &etcd] {
            cluster.ready().await?;
            let session = cluster.session(0).await?;
            for number in 0..READ {
                session.put(&key(BUCKET, number), &[b'x'; 256]).await?;
            }
        }
        Ok(Self { ours, etcd, directory: directory.to_owned() })
    }

    /// The two, ours first.
    pub(crate) const fn sides(&self) -> [&Cluster; 2] {
        [&self.ours, &self.etcd]
    }

    /// What is compared, and on what.
    pub(crate) fn describe(&self) -> Result<String, Failure> {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(format!(
            "{} against {}, {cpus} cores, Linux {}, data in {}, sync p50 {:?}, load {:.2}",
            ours::version()?,
            etcd::version()?,
            kernel.trim(),
            self.directory.display(),
            machine::sync(&self.directory)?,
            machine::load(),
        ))
    }

    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        self.ours.stop().await?;
        self.etcd.stop().await
    }
}

impl Cluster {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Ours(_) => "ours",
        }
    }

    /// A connection to a node, 0 to 2.
    pub(crate) async fn session(&self, node: usize) -> Result<Session, Failure> {
        match self {
            Self::Etcd(cluster) => cluster.session(node).await,
            Self::Ours(cluster) => cluster.session(node).await,
        }
    }

    /// So many connections, spread over the nodes.
    pub(crate) async fn sessions(&self, nodes: &[usize], count: usize) -> Result<Vec<Session>, Failure> {
        let mut sessions = Vec::with_capacity(count);
        for node in nodes.iter().cycle().take(count) {
            sessions.push(self.session(*node).await?);
        }
        Ok(sessions)
    }

    fn nodes(&self) -> &[Option<Process>; 3] {
        match self {
            Self::Etcd(cluster) => &cluster.nodes,
            Self::Ours(cluster) => &cluster.nodes,
        }
    }

    fn nodes_mut(&mut self) -> &mut [Option<Process>; 3] {
        match self {
            Self::Etcd(cluster) => &mut cluster.nodes,
            Self::Ours(cluster) => &mut cluster.nodes,
        }
    }

    /// The processes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes().iter().flatten().map(Process::id).collect()
    }

    /// Which node leads, if one that runs says that it does.
    pub(crate) async fn leader(&self) -> Option<usize> {
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
    pub(crate) async fn ready(&self) -> Result<usize, Failure> {
        let until = Instant::now() + READY;
        'again: while Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
            for (node, process) in self.nodes().iter().enumerate() {
                if process.is_none() {
                    continue;
                }
                let Ok(session) = self.session(node).await else { continue 'again };
                if session.get(&key(BUCKET, 0), false).await.is_err() {
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
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), Failure> {
        match self {
            Self::Etcd(cluster) => cluster.run(node),
            Self::Ours(cluster) => cluster.run(node, None),
        }
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes_mut()[node].take().map_or(Ok(()), Process::kill)
    }

    /// Kills all nodes, as nearly at once as can be.
    pub(crate) fn kill_all(&mut self) -> Result<(), Failure> {
        (0..3).try_for_each(|node| self.kill(node))
    }

    /// Tells a node to stop; it is gone when the process is dropped, or has ended by itself.
    pub(crate) fn terminate(&mut self, node: usize) -> Result<Option<Process>, Failure> {
        let process = self.nodes_mut()[node].take();
        process.as_ref().map_or(Ok(()), Process::terminate)?;
        Ok(process)
    }

    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        for node in 0..3 {
            if let Some(mut process) = self.terminate(node)? {
                process.ended().await?;
            }
        }
        Ok(())
    }
}
