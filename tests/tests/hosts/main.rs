//! What is promised about a cluster, held on three real hosts with real Docker Engines. Needs root; `tools/install` brings the rest.
//!
//! Each story makes its own cluster and removes it; they wait for each other. What they measure they print: `--nocapture` shows it.
//!
//! Invariant: nothing is skipped. What a machine lacks is said, and the story fails.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what was measured is for people")]

mod idle;
mod kinds;
mod loss;
mod peers;
mod refusals;
mod removal;
mod renumbered;
mod restart;
mod rollout;
mod services;
