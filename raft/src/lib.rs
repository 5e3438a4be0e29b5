//! Agreement: an etcd-like store (revisions, transactions, watches) on openraft and RocksDB.
//!
//! ```text
//! Store ─ propose, read, watch ─► openraft ─► log (one writer thread, group commit) ─┐
//!   ▲                                 │                                              ├─► engine: RocksDB, or memory
//!   └── answer, accept ◄── Network    └─► state ─► machine (pure) ─► feed ─► watches ┘
//! ```
//!
//! Invariant: this is the only crate that names openraft and RocksDB. A write that was acknowledged is on a majority's disks; reads never
//! go back in time; an idle store writes nothing.

#[cfg(not(tokio_unstable))]
compile_error!(
    "simulated runs repeat only with `--cfg tokio_unstable`: a RUSTFLAGS variable overrides .cargo/config.toml"
);

mod alone;
pub mod backup;
mod beats;
mod columns;
mod config;
mod delay;
mod engine;
mod fault;
mod format;
mod hashes;
mod heard;
mod inbound;
mod log;
mod machine;
pub mod mutant;
mod network;
mod open;
mod pace;
mod peer;
mod record;
pub mod recover;
mod rpc;
mod runtime;
mod scrub;
mod serve;
mod snapshot;
mod space;
mod state;
mod status;
mod store;
mod types;
pub mod voters;
mod watch;

pub use config::{Config, LogLimits, Timing};
pub use engine::{Memory, Trouble};
pub use fault::Fault;
pub use network::{FrameSink, FrameStream, Network, NetworkError, Pipe, Urgency};
pub use open::{OpenError, Storage, is_store};
pub use pace::{Measured, Pace};
pub use space::{FLOOR, RESERVE, Room};
pub use status::{Member, Status};
pub use store::{CommandError, ProposeError, ReadError, Retention, StepError, Store};
pub use watch::{Delivered, Gathered, RangeWatch, SharedUpdate, Watch, WatchError};

#[cfg(test)]
mod tests;
