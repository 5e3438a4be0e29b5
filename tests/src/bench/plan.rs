//! What is measured, how often and for how long. Pure.
//!
//! Invariant: both sides get the same of everything.

use std::time::Duration;

/// All parts, in the order in which they are measured.
const PARTS: [&str; 11] =
    ["idle", "puts", "large", "mixed", "gets", "watch", "memory", "kill", "stop", "start", "audit"];

/// How much is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Some parts only; all if it is empty.
    pub(crate) only: Vec<String>,
    /// Pairs of legs.
    pub(crate) pairs: u32,
    /// How long a leg lasts.
    pub(crate) leg: Duration,
    /// What of a leg's beginning does not count.
    pub(crate) warm: Duration,
    /// How long nothing is asked, to see what is written all the same.
    pub(crate) idle: Duration,
    /// Puts before the memory is looked at.
    pub(crate) puts: u64,
    /// How often a leader is killed, and stopped.
    pub(crate) kills: u32,
    /// How often a node is started.
    pub(crate) starts: u32,
}

/// What clients do in a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Puts only.
    Puts,
    /// Nine gets, one put.
    Mixed,
    /// Linearizable gets.
    Gets,
    /// Gets that may be stale.
    StaleGets,
}

/// A load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) mix: Mix,
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    /// Bytes of a value.
    pub(crate) value: usize,
}

impl Plan {
    pub(crate) const fn full() -> Self {
        Self {
            only: Vec::new(),
            pairs: 5,
            leg: Duration::from_secs(6),
            warm: Duration::from_secs(1),
            idle: Duration::from_secs(60),
            puts: 1_000_000,
            kills: 30,
            starts: 10,
        }
    }

    pub(crate) const fn quick() -> Self {
        Self {
            only: Vec::new(),
            pairs: 2,
            leg: Duration::from_secs(3),
            warm: Duration::from_millis(500),
            idle: Duration::from_secs(10),
            puts: 100_000,
            kills: 3,
            starts: 3,
        }
    }

    /// A part that was asked for and does not exist.
    pub(crate) fn unknown(&self) -> Option<&str> {
        self.only.iter().map(String::as_str).find(|name| !PARTS.contains(name))
    }

    /// What is to be measured, in order.
    pub(crate) fn parts(&self) -> Vec<&'static str> {
        let wanted = |part: &&str| self.only.is_empty() || self.only.iter().any(|name| name == part);
        PARTS.into_iter().filter(wanted).collect()
    }

    /// The loads of a part.
    pub(crate) fn loads(&self, part: &str) -> Vec<Load> {
        let load = |mix, connections, clients, value| Load { mix, connections, clients, value };
        match part {
            "puts" => [(1, 1), (8, 64), (64, 512), (100, 1000)]
                .map(|(connections, clients)| load(Mix::Puts, connections, clients, 256))
                .to_vec(),
            "large" => vec![load(Mix::Puts, 8, 64, 4096), load(Mix::Puts, 100, 1000, 4096)],
            "mixed" => vec![load(Mix::Mixed, 32, 256, 256)],
            "gets" => vec![load(Mix::Gets, 32, 256, 256), load(Mix::StaleGets, 32, 256, 256)],
            _ => Vec::new(),
        }
    }
}

impl Load {
    /// `puts, 64 clients, 256 B`.
    pub(crate) fn name(&self) -> String {
        let what = match self.mix {
            Mix::Puts => "puts",
            Mix::Mixed => "90 gets, 10 puts",
            Mix::Gets => "linearizable gets",
            Mix::StaleGets => "stale gets",
        };
        let clients = if self.clients == 1 { "client" } else { "clients" };
        format!("{what}, {} {clients}, {} B", self.clients, self.value)
    }
}
