//! openraft's own suite, on both kinds of storage.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use quorate_proto::ids::NodeId;
use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::fixture::CLUSTER;
use crate::{
    Config, Memory, Storage, Timing,
    log::Log,
    open,
    record::LogId,
    state::{State, progress},
    types::TypeConfig,
    watch::Feed,
};

struct Builder {
    disk: bool,
    /// The log writers, each of which closes its database when it ends.
    writers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl StoreBuilder<TypeConfig, Log, State, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, State), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let storage =
            if self.disk { Storage::Disk(directory.path().to_owned()) } else { Storage::Memory(Memory::new()) };
        let config = Config::new(CLUSTER, NodeId(0), Timing::CAREFUL);
        let opened = open::open(&config, storage).unwrap();
        let tasks = TaskTracker::new();
        if opened.blocking {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let writer = std::thread::spawn(move || runtime.block_on(opened.writer));
            self.writers.lock().unwrap().push(writer);
        } else {
            tasks.spawn(opened.writer);
        }
        let feed = Arc::new(Feed::new(progress(&opened.meta), [].into()));
        // The suite applies what it never appended.
        let everything = LogId { term: u64::MAX, node: NodeId(u128::MAX), index: u64::MAX };
        let (_, written) = watch::channel(Some(everything));
        let state = State::new(opened.engine, opened.vault, feed, tasks, written, opened.meta);
        Ok((directory, opened.log, state))
    }
}

#[test]
fn storage_in_memory_is_what_openraft_expects() {
    run(false);
}

#[test]
fn storage_on_disk_is_what_openraft_expects() {
    run(true);
}

fn run(disk: bool) {
    use openraft::type_config::TypeConfigExt;
    let writers = Arc::default();
    TypeConfig::run(Suite::test_all(Builder { disk, writers: Arc::clone(&writers) })).unwrap();
    // A process that ends while a database is being closed does not end well.
    for writer in std::mem::take(&mut *writers.lock().unwrap()) {
        writer.join().unwrap();
    }
}
