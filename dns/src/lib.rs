//! Answers names: those of the cluster from memory, all others by asking the host's resolvers.
//!
//! What is in the zone and what a question gets are plain functions ([`zone`], [`answer`]); [`Names`] holds the newest zone and answers
//! one message, whichever way it came: UDP, TCP, or a stream of DNS over QUIC that the daemon hands in ([`doq`]).
//!
//! Invariant: a name of the cluster is answered without waiting for anything, and never denied before the zone is known.

pub mod answer;
pub mod doq;
pub mod settings;
pub mod zone;

mod forward;
mod message;
mod names;
mod server;
mod shuffle;
mod start;
mod stream;
mod tcp;

pub use names::{Config, Limits, Names, Transport};
pub use server::BindError;
pub use settings::{Settings, SettingsError};
pub use start::StartError;
pub use zone::{Sources, Zone};
