//! Runs the pods bound to this node.
//!
//! The newest snapshot says what is wanted, the runtime shows what is there; the plan is a pure function of both, of what is remembered
//! and of now. Everything the agent does to its machine goes through [`Runtime`]; everything it tells the cluster goes through
//! [`Reporter`]; what it must know of other nodes' routes it asks [`Withdrawal`].
//!
//! Invariant: restarting the agent restarts no container; containers of other clusters, and foreign ones, are never touched.

mod act;
mod agent;
mod backoff;
mod config;
mod environment;
mod event;
mod hook;
mod keeper;
mod kept;
mod memory;
mod plan;
mod pod;
mod probe;
mod report;
mod resources;
pub mod runtime;
mod status;
#[cfg(test)]
mod testing;
mod withdrawal;
mod workload;

pub use agent::{Agent, Parts};
pub use config::Config;
pub use probe::Check;
pub use report::{MAX_FACTS, MAX_REPORT, ReportError, Reporter};
pub use resources::Limits;
pub use runtime::{Info, Runtime, RuntimeError};
pub use withdrawal::Withdrawal;
