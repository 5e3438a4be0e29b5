//! What came of a run, as a table: ours and, where it was asked for, etcd's beside it.
//!
//! Invariant: whatever is wrong is counted and told; nothing is wrong only if every count is zero.

use std::{fmt::Write as _, time::Duration};

use super::audit::Wrong;
use crate::store_sim::history::{History, What, Written};

/// How much of what is wrong is told in full.
const TOLD: usize = 12;

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    side: &'static str,
    /// Rounds.
    pub rounds: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Keys that were looked at on every node at the very end.
    pub audited: u64,
    /// Writes whose outcome their client does not know.
    pub unknown: u64,
    /// Linearizable reads, and others, that were answered.
    pub reads: u64,
    /// Revisions that watches delivered.
    pub delivered: u64,
    /// The longest time without an acknowledged write.
    pub longest: Duration,
    /// What must not be.
    pub wrong: Wrong,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(side: &'static str) -> Self {
        Self { side, ..Self::default() }
    }

    /// Whether all was as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.all().next().is_none()
    }

    /// Adds what a section did.
    pub(super) fn note(&mut self, history: &History) {
        for operation in &history.operations {
            match &operation.what {
                What::Write { answer: Written::Unknown, .. } => self.unknown += 1,
                What::Read { page: Some(_), .. } => self.reads += 1,
                _ => {}
            }
        }
        self.delivered += history.watches.iter().map(|watch| watch.delivered.len() as u64).sum::<u64>();
    }

    /// What is wrong, as far as anybody would read it.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut text = String::new();
        for line in self.wrong.all().take(TOLD) {
            let _ = writeln!(text, "{}: {line}", self.side);
        }
        match self.wrong.all().count().saturating_sub(TOLD) {
            0 => {}
            more => {
                let _ = writeln!(text, "{}: and {more} more", self.side);
            }
        }
        text
    }
}

/// The runs beside each other.
#[must_use]
pub fn table(tallies: &[Tally]) -> String {
    type Cell = fn(&Tally) -> String;
    let lines: [(&str, Cell); 12] = [
        ("", |tally| tally.side.to_owned()),
        ("rounds", |tally| tally.rounds.to_string()),
        ("processes killed", |tally| tally.kills.to_string()),
        ("acknowledged writes", |tally| tally.acknowledged.to_string()),
        ("  lost, or not as acknowledged", |tally| tally.wrong.writes.len().to_string()),
        ("  of unknown outcome besides", |tally| tally.unknown.to_string()),
        ("reads", |tally| tally.reads.to_string()),
        ("  gone back in time, or of what never was", |tally| tally.wrong.reads.len().to_string()),
        ("revisions delivered to watches", |tally| tally.delivered.to_string()),
        ("  missed, repeated or invented", |tally| tally.wrong.watches.len().to_string()),
        ("nodes that differ, panicked or stayed away", |tally| tally.wrong.nodes.len().to_string()),
        ("longest time without a write", |tally| format!("{:.1} s", tally.longest.as_secs_f64())),
    ];
    let mut text = String::new();
    for (name, cell) in lines {
        let _ = write!(text, "{name:<44}");
        for tally in tallies {
            let _ = write!(text, "{:>12}", cell(tally));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wrong_is_in_the_table_and_told() {
        let mut tally = Tally::new("ours");
        assert!(tally.is_good());
        tally.wrong.reads = (0..20).map(|read| format!("read {read}")).collect();
        assert!(!tally.is_good());
        let table = table(&[tally.clone(), Tally::new("etcd")]);
        let line = table.lines().find(|line| line.contains("gone back")).unwrap();
        assert_eq!(line.split_whitespace().rev().take(2).collect::<Vec<_>>(), ["0", "20"]);
        assert!(tally.complaint().contains("ours: read 11\nours: and 8 more"), "{}", tally.complaint());
    }
}
