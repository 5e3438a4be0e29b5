//! Both clusters: three nodes each, on loopback, with their data on the same disk.
//!
//! Invariant: no process outlives the benchmark, however it ends.

use std::path::Path;

use quorate_tests::stores::{Failure, cluster::Cluster, etcd, ours, session::key};

use crate::machine;

/// So many keys are written and read.
pub(crate) const KEYS: u64 = 100_000;

/// So many of them are read: all of them exist.
pub(crate) const READ: u64 = 1_000;

/// The bucket of the loads.
pub(crate) const BUCKET: &str = "bench";

/// The two.
pub(crate) struct Both {
    pub(crate) ours: Cluster,
    pub(crate) etcd: Cluster,
    directory: std::path::PathBuf,
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
