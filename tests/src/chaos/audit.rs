//! What every node says was decided, and whether that fits what clients and watches were told.
//!
//! Invariant: a section is judged by the changes that all three nodes tell alike, from their own disks.

use std::{sync::Arc, time::Duration};

use quorate_proto::{
    key::Key,
    txn::{Change, Revision, Versioned},
};
use tokio::time::timeout;

use super::{record::Record, world::World};
use crate::{
    store_sim::{
        check::{self, Ledger},
        history::History,
    },
    stores::{Failure, session::Session},
};

/// How long a node may take to tell all of a section.
const TELL: Duration = Duration::from_secs(60);

/// Keys and what they hold.
pub(super) type Rows = Vec<(Key, Versioned)>;

/// What is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Writes that were lost, done twice, or done although they were said not to be.
    pub writes: Vec<String>,
    /// Reads older than what was known, or of a state that never was.
    pub reads: Vec<String>,
    /// Watches that missed, repeated or invented something.
    pub watches: Vec<String>,
    /// Nodes that differ.
    pub nodes: Vec<String>,
}

impl Wrong {
    /// Everything, with what it is about.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        [&self.writes, &self.reads, &self.watches, &self.nodes].into_iter().flatten()
    }

    /// Adds what else is wrong.
    pub fn extend(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.watches.extend(other.watches);
        self.nodes.extend(other.nodes);
    }
}

/// Holds a section's history against what the nodes say was decided up to a revision. Pure.
pub(super) fn judge(history: &History, ledgers: &[Ledger], end: Revision) -> Wrong {
    let mut wrong = Wrong::default();
    let Some((first, others)) = ledgers.split_first() else { return wrong };
    for (node, ledger) in others.iter().enumerate() {
        let differ = |revision: &&Revision| first.get(revision) != ledger.get(revision);
        if let Some(revision) = first.keys().chain(ledger.keys()).filter(differ).min() {
            let shown = [first, ledger].map(|ledger| format!("{:?}", ledger.get(revision)));
            wrong.nodes.push(format!("revision {revision} is {} on n0, {} on n{}", shown[0], shown[1], node + 1));
        }
    }
    let verdict = check::told(&history.operations, first);
    wrong.writes = verdict.writes;
    wrong.reads = verdict.reads;
    wrong.watches = check::watches(&history.watches, first, end);
    wrong
}

/// What each node says was decided about a section's keys, and what they hold then.
pub(super) async fn told(world: &World, record: &Record, end: Revision) -> Result<(Vec<Ledger>, Vec<Rows>), Failure> {
    let (mut ledgers, mut states) = (Vec::new(), Vec::new());
    for node in 0..3 {
        let link = world.link(node).await?;
        let ledger = ledger(&link.session, &record.prefix, record.from, end);
        ledgers.push(timeout(TELL, ledger).await.map_err(|_| format!("n{node} did not tell all up to {end}"))??);
        states.push(link.session.rows(&record.prefix, true, Some(end)).await?.rows);
    }
    Ok((ledgers, states))
}

async fn ledger(session: &Session, prefix: &str, from: Revision, end: Revision) -> Result<Ledger, Failure> {
    let (mut events, mut ledger) = (session.follow(prefix, from).await?, Ledger::new());
    loop {
        let changes: Arc<[Change]> = events.changes().await?;
        let revision = changes.first().map_or(Revision(0), |change| change.revision);
        ledger.insert(revision, changes);
        if revision >= end {
            return Ok(ledger);
        }
    }
}

/// What a ledger leaves of the keys.
pub(super) fn left(ledger: &Ledger) -> Rows {
    let mut rows = std::collections::BTreeMap::new();
    for change in ledger.values().flat_map(|changes| changes.iter()) {
        match &change.now {
            Some(now) => drop(rows.insert(change.key.clone(), now.clone())),
            None => drop(rows.remove(&change.key)),
        }
    }
    rows.into_iter().collect()
}

/// What is wrong with what a node has of keys that should be so.
pub(super) fn differs(node: usize, prefix: &str, has: &Rows, should: &Rows) -> Option<String> {
    if has == should {
        return None;
    }
    let missing = should.iter().filter(|row| !has.contains(row)).count();
    let first = should.iter().find(|row| !has.contains(row)).or_else(|| has.iter().find(|row| !should.contains(row)));
    Some(format!(
        "n{node} has not what {prefix} should be: {missing} of {} rows are missing, first {first:?}",
        should.len()
    ))
}

#[cfg(test)]
mod tests;
