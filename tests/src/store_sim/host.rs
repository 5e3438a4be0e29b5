//! A simulated host that runs a store: a runtime, a clock and a disk of its own.
//!
//! Switching it off drops its runtime, so that every task ends where it stands. Freezing it means not running it; when it goes on, its
//! clock jumps, as it does for a process that was stopped.
//!
//! Invariant: a host acts only while the world lets it, and sees only its own clock.

use std::{sync::Arc, time::Duration};

use quorate_proto::ids::{ClusterId, NodeId};
use quorate_raft::{Config, LogLimits, Memory, Storage, Store, Timing, Trouble};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::wire::{Body, Message, Port, Wire};
use crate::sim::world::SimRandom;

/// The cluster that is simulated.
const CLUSTER: ClusterId = ClusterId(7);

/// A host, on or off.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) disk: Memory,
    /// Milliseconds its clock gains or loses in a thousand.
    pub(super) drift: i64,
    pub(super) limits: LogLimits,
    /// Thousandths of milliseconds that its clock is behind what drift makes of it.
    owed: i64,
    /// For how long it has been frozen, in milliseconds.
    frozen: Option<u64>,
    pub(super) running: Option<Running>,
    /// Its disk may have made its store fail.
    pub(super) excused: bool,
    /// Its process was asked to end.
    pub(super) stopping: bool,
    /// Counts its starts.
    pub(super) incarnation: u64,
}

/// The process on a host.
pub(super) struct Running {
    pub(super) store: Store,
    pub(super) tasks: TaskTracker,
    port: Arc<Port>,
    wire: Arc<Wire>,
    // Dropped last: the others are of it.
    pub(super) runtime: Runtime,
}

impl Host {
    pub(super) fn new(id: NodeId, drift: i64, limits: LogLimits) -> Self {
        let disk = Memory::new();
        Self {
            id,
            disk,
            drift,
            limits,
            owed: 0,
            frozen: None,
            running: None,
            excused: false,
            stopping: false,
            incarnation: 0,
        }
    }

    /// Starts its process on what its disk has.
    ///
    /// # Errors
    /// If the store does not open.
    pub(super) fn start(&mut self, wire: &Arc<Wire>, seed: u64) -> Result<(), String> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .map_err(|error| error.to_string())?;
        let (tasks, port) = (TaskTracker::new(), Arc::new(Port::new(self.id, wire)));
        let mut config = Config::new(CLUSTER, self.id, Timing::SIMULATED);
        config.log = self.limits;
        let store = runtime.block_on(Store::open(
            config,
            Storage::Memory(self.disk.clone()),
            Arc::clone(&port) as _,
            Arc::new(SimRandom::new(seed)),
            tasks.clone(),
            CancellationToken::new(),
        ));
        let store = store.map_err(|error| quorate_proto::refusal::chain(&error))?;
        self.incarnation += 1;
        self.excused = false;
        self.frozen = None;
        self.running = Some(Running { store, tasks, port, wire: Arc::clone(wire), runtime });
        Ok(())
    }

    /// Cuts its power. Of the batches its disk had not synced, so many are there afterwards.
    pub(super) fn kill(&mut self, kept: usize) {
        let survives = self.disk.crash_keeping(kept);
        if let Some(running) = self.running.take() {
            running.wire.forget(self.id);
            drop(running);
        }
        self.disk = survives;
        self.frozen = None;
        self.stopping = false;
    }

    /// From now on its disk is like this.
    pub(super) fn set_trouble(&mut self, trouble: Trouble) {
        self.excused |= trouble.sync_fails || trouble.full || trouble.unreadable;
        self.disk.set_trouble(trouble);
    }

    pub(super) const fn freeze(&mut self) {
        self.frozen = Some(0);
    }

    pub(super) const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// It goes on, and finds that time has passed.
    pub(super) fn thaw(&mut self) {
        if let (Some(frozen), Some(running)) = (self.frozen.take(), &self.running) {
            running.runtime.block_on(async { tokio::time::advance(Duration::from_millis(frozen)).await });
        }
    }

    /// Lets it run for so many milliseconds.
    pub(super) fn run(&mut self, millis: u64) {
        if let Some(frozen) = &mut self.frozen {
            *frozen += millis;
            return;
        }
        let Some(running) = &self.running else { return };
        let whole = millis.cast_signed() * 1000 + self.owed + millis.cast_signed() * self.drift;
        let step = (whole / 1000).max(0);
        self.owed = whole - step * 1000;
        let step = Duration::from_millis(step.cast_unsigned());
        running.runtime.block_on(async { tokio::time::sleep(step).await });
    }

    /// Whether it is on and not frozen.
    pub(super) const fn acts(&self) -> bool {
        self.running.is_some() && !self.is_frozen()
    }
}

impl Running {
    /// Something arrives.
    pub(super) fn deliver(&self, message: Message) {
        let Message { from, to, body } = message;
        let store = self.store.clone();
        match body {
            Body::Request { call, bytes, .. } => {
                let wire = Arc::clone(&self.wire);
                let answered = async move {
                    let bytes = store.answer(from, bytes).await;
                    wire.send(&Message { from: to, to: from, body: Body::Answer { call, bytes } });
                };
                self.tasks.spawn_on(answered, self.runtime.handle());
            }
            Body::Open { pipe } => {
                let pipe = self.port.pipe(pipe, from);
                self.tasks.spawn_on(async move { store.accept(from, pipe).await }, self.runtime.handle());
            }
            body => self.port.take(from, body),
        }
    }
}
