//! Faults of real processes on real disks, and whether the store keeps its promises under them.
//!
//! ```text
//! clients, watchers ──► three nodes (processes, RocksDB, fsync) ◄── a fault a round, chosen by a seed
//!         └── what each was told ──► the checkers of the simulated store ◄── what every node says was decided
//! ```
//!
//! Rounds are gathered to sections. A section has keys of its own; at its end everything is mended, every node tells all that was decided
//! about those keys, and the checkers hold what clients and watches were told against it. At the very end every node must still have
//! what all sections left.
//!
//! Invariant: which faults strike, in which order, on whom by role, when and for how long, is chosen by the seed alone.

mod audit;
mod client;
pub mod fault;
mod faults;
mod nodes;
mod pulse;
mod record;
pub mod report;
mod run;
mod watcher;
mod world;

pub use run::{Settings, run};
