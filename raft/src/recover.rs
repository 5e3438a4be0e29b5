//! Back from a quorum that is lost for good: a survivor goes on alone, with what it has.
//!
//! Only a person can know that the others will not return, so nothing here is ever done by itself. The store is not running meanwhile.
//!
//! Invariant: whatever happens on the way, the directory holds either the group as it was or the group of one; never less of the state
//! than the chosen cut.

use std::{collections::BTreeSet, io, path::Path};

use quorate_proto::{
    ids::{ClusterId, NodeId},
    key::Key,
    txn::{Revision, Versioned},
};

use crate::{
    alone,
    config::{Config, Timing},
    engine::{Batch, look},
    log::mark::Mark,
    machine::{self, Applying, Cache, Meta},
    open::{self, OpenError, Opened, Storage},
    record::{self, LogId, Vote},
    state,
};

/// A place in the log. Of two, the greater is the newer; survivors are compared by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The term it was written in.
    pub term: u64,
    /// Its number.
    pub index: u64,
}

/// What a store of a group without a quorum has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The term of its vote.
    pub term: u64,
    /// Whom it voted for in that term; `None` if it never voted.
    pub voted_for: Option<NodeId>,
    /// Where its log ends; `None` if it never had an entry.
    pub last: Option<Position>,
    /// How far it knows entries to be committed: up to here nothing can be lost.
    pub committed: Option<Position>,
    /// How far entries are in its state.
    pub applied: Option<Position>,
    /// The revision of that state.
    pub revision: Revision,
    /// The hash over all changes up to that revision.
    pub hash: u32,
    /// Who votes, as of the state.
    pub voters: BTreeSet<NodeId>,
    /// All members, voters included.
    pub members: BTreeSet<NodeId>,
}

/// Where a survivor's log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// Keeps every entry: nothing that was acknowledged is lost, and what was written but never acknowledged may come to be done.
    #[default]
    Last,
    /// Keeps only what is in the state: what was acknowledged shortly before the quorum was lost may be missing.
    Applied,
}

/// Shows what the store in a directory has. It must not be running.
///
/// # Errors
/// If it is damaged, or not this node's: see [`OpenError`].
pub fn survey(directory: &Path, cluster: ClusterId, node: NodeId) -> Result<Survivor, OpenError> {
    let opened = existing(directory, cluster, node)?;
    opened.engine.close();
    Ok(shown(&opened))
}

/// As [`survey`], and all keys of the state that begin with `prefix`.
///
/// # Errors
/// As [`survey`].
pub fn survey_with(
    directory: &Path,
    cluster: ClusterId,
    node: NodeId,
    prefix: &str,
) -> Result<(Survivor, Vec<(Key, Versioned)>), OpenError> {
    let opened = existing(directory, cluster, node)?;
    let survivor = shown(&opened);
    let rows = look(&*opened.engine, |view| machine::rows(view, prefix));
    opened.engine.close();
    Ok((survivor, rows.map_err(open::at(directory))?.1))
}

/// Makes the store in a directory a group of its own: its node is the only member from now on. It must not be running. Doing it again
/// does no harm.
///
/// # Errors
/// If the store is damaged or cannot be written; it is then as it was, or done, and the same call finishes it.
pub fn recover(directory: &Path, cluster: ClusterId, node: NodeId, cut: Cut) -> Result<Survivor, OpenError> {
    let opened = existing(directory, cluster, node)?;
    let result = rewrite(directory, &opened, node, cut);
    opened.engine.close();
    drop(opened);
    result.map_err(open::at(directory))?;
    survey(directory, cluster, node)
}

/// Opens a store that is there.
fn existing(directory: &Path, cluster: ClusterId, node: NodeId) -> Result<Opened, OpenError> {
    let mark = directory.join("mark");
    // Opening would make it.
    if !mark.exists() {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no store");
        return Err(OpenError::Io { path: directory.to_owned(), source });
    }
    // The timing is of no importance: nothing runs.
    open::open(&Config::new(cluster, node, Timing::CAREFUL), Storage::Disk(directory.to_owned()))
}

fn shown(opened: &Opened) -> Survivor {
    let Opened { log, meta, .. } = opened;
    let found = log.found();
    let position = |id: LogId| Position { term: id.term, index: id.index };
    let membership = &meta.membership.membership;
    Survivor {
        term: found.vote.map_or(0, |vote| vote.term),
        voted_for: found.vote.map(|vote| vote.node),
        last: found.last.max(meta.applied).map(position),
        committed: found.committed.max(meta.applied).map(position),
        applied: meta.applied.map(position),
        revision: meta.revision,
        hash: meta.hash,
        voters: membership.voters.iter().flatten().copied().collect(),
        members: membership.members.clone(),
    }
}

fn rewrite(directory: &Path, opened: &Opened, node: NodeId, cut: Cut) -> io::Result<()> {
    let Opened { engine, vault, log, meta, .. } = opened;
    let found = log.found();
    let (mut batch, mut state) = (Batch::default(), meta.clone());
    if cut == Cut::Last && found.last > meta.applied {
        (batch, state) = apply(opened, meta)?;
    }
    let last = state.applied.ok_or_else(|| io::Error::other("the store is empty: there is nothing to go on with"))?;
    let term = found.vote.map_or(0, |vote| vote.term).max(last.term) + 1;
    let vote = Vote { term, node, committed: false };
    alone::rows(&mut batch, node, last, vote)?;

    // The mark may say more than the cut keeps. Lower than the store it does no harm.
    let path = directory.join("mark");
    let mut mark = Mark::open(&path)?;
    if mark.level().last > Some(last) {
        mark.set_last(Some(last))?;
        mark.sync()?;
    }
    // A Raft snapshot of before would not reach up to the log's new beginning. Without one, the next start makes it.
    vault.discard()?;
    engine.write(batch)?;
    engine.sync()?;
    mark.set_last(Some(last))?;
    mark.set_vote(vote)?;
    state::build(&**engine, vault).map(drop)
}

/// Applies all that the log holds beyond the state.
fn apply(opened: &Opened, meta: &Meta) -> io::Result<(Batch, Meta)> {
    let from = meta.applied.map_or(0, |id| id.index + 1);
    let entries = opened.log.rest(from)?;
    look(&*opened.engine, |view| {
        let cache = Cache::load(view, meta)?;
        let mut applying = Applying::new(view, meta.clone()).with(&cache);
        for entry in &entries {
            applying.apply(&record::Entry::from(entry))?;
        }
        let applied = applying.finish()?;
        Ok((applied.batch, applied.meta))
    })
}
