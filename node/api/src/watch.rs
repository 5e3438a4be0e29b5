//! Answers watches: the objects that exist, then every change, complete and in the store's order.
//!
//! A watch that can be resumed tells bookmarks too: at the revision of one, all it has told adds up to what is selected, so that another
//! node can go on from there. What was selected at that revision and has changed since is looked up in the store's history.
//!
//! Invariant: what a watch has told adds up to what is selected at each revision: an object that begins to be selected is added, one that
//! no longer is is deleted, whatever happened to it. It ends with a refusal, never in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{
    StreamExt,
    stream::{self, Stream},
};
use quorate_proto::{
    key::Key,
    kinds::Kind,
    refusal::{Reason, Refusal},
    request::{Answer, EventKind, Selection, Shape, Table},
    snapshot::{Snapshot, Stored},
    txn::{Change, Revision, Versioned},
    world::Clock,
};

use crate::{
    seam::{Changes, Desired},
    select::Selected,
    table,
};

/// After so many revisions that are none of a watch's business it is told a bookmark, so that it can be resumed without reading them again.
const BOOKMARK_EVERY: u64 = 100;

/// Follows a selection, without bookmarks. `changes` must begin right after the snapshot.
pub(crate) fn answers(
    selection: &Selection,
    snapshot: &Snapshot,
    changes: Changes,
    clock: Arc<dyn Clock>,
) -> Result<impl Stream<Item = Answer> + Send + use<>, Refusal> {
    let told = resumable(selection, snapshot, changes, clock)?;
    Ok(told.filter(|answer| std::future::ready(!matches!(answer, Answer::Bookmark(_)))))
}

/// Follows a selection. `changes` must begin right after the snapshot.
pub(crate) fn resumable(
    selection: &Selection,
    snapshot: &Snapshot,
    changes: Changes,
    clock: Arc<dyn Clock>,
) -> Result<impl Stream<Item = Answer> + Send + use<>, Refusal> {
    let watch = Watch::new(selection, clock)?;
    let present: BTreeMap<Key, Arc<Stored>> = watch.present(snapshot, |_| true);
    let first: Vec<Arc<Stored>> = present.values().cloned().collect();
    let headings = watch.headings();
    let existing = {
        let watch = watch.clone();
        stream::iter(first).map(move |stored| watch.show(EventKind::Added, &stored))
    };
    let here = stream::iter([Answer::Bookmark(snapshot.revision())]);
    let state = State { present, told: snapshot.revision(), since: None };
    Ok(stream::iter(headings).chain(existing).chain(here).chain(later(watch, state, changes)))
}

/// Goes on with a selection that was followed up to `after`, here or on another node. The snapshot must not be older than that.
pub(crate) fn resumed(
    selection: &Selection,
    snapshot: &Snapshot,
    after: Revision,
    desired: Arc<dyn Desired>,
    clock: Arc<dyn Clock>,
) -> Result<impl Stream<Item = Answer> + Send + use<>, Refusal> {
    let watch = Watch::new(selection, clock)?;
    let changes = desired.changes(after);
    let since = Since { after, known: snapshot.revision(), seen: BTreeSet::new(), desired };
    let present = watch.present(snapshot, |stored| stored.modified <= after);
    let state = State { present, told: after, since: Some(since) };
    // Said at once: whoever asks learns that it is heard, also if nothing happens for long.
    let here = stream::iter([Answer::Bookmark(after)]);
    Ok(stream::iter(watch.headings()).chain(here).chain(later(watch, state, changes)))
}

/// What is selected as far as it was told.
struct State {
    present: BTreeMap<Key, Arc<Stored>>,
    /// The last bookmark.
    told: Revision,
    since: Option<Since>,
}

/// What is not known of a watch that is resumed: how those objects were that have changed since.
struct Since {
    after: Revision,
    /// Up to here they have changed; whatever changes later was known when the watch was resumed.
    known: Revision,
    seen: BTreeSet<Key>,
    desired: Arc<dyn Desired>,
}

impl Since {
    /// How an object was when the watch broke off, when its first change since then is told.
    fn before(&mut self, change: &Change) -> Result<Option<Versioned>, Refusal> {
        if change.revision > self.known || !self.seen.insert(change.key.clone()) {
            return Ok(None);
        }
        self.desired.at(&change.key, self.after)
    }
}

/// The answers to all that changes, up to the refusal that ends them.
fn later(watch: Watch, state: State, changes: Changes) -> impl Stream<Item = Answer> + Send {
    let ended = Refusal::new(Reason::Unavailable, "the watch ended", "the node that answered it is stopping")
        .hint("watch again, from any node");
    let changes = changes.chain(stream::once(std::future::ready(Err(ended))));
    let later = changes.scan(Some(state), move |state, changes| {
        let answers = match (state.as_mut(), changes) {
            (None, _) => return std::future::ready(None),
            (Some(state), Ok(changes)) => watch.revision(state, &changes),
            (Some(_), Err(refusal)) => Err(refusal),
        };
        let answers = answers.unwrap_or_else(|refusal| {
            *state = None;
            vec![Answer::Refused(refusal)]
        });
        std::future::ready(Some(stream::iter(answers)))
    });
    later.flatten()
}

#[derive(Clone)]
struct Watch {
    selected: Arc<Selected>,
    clock: Arc<dyn Clock>,
}

impl Watch {
    fn new(selection: &Selection, clock: Arc<dyn Clock>) -> Result<Self, Refusal> {
        Ok(Self { selected: Arc::new(Selected::parse(selection)?), clock })
    }

    fn present(&self, snapshot: &Snapshot, known: impl Fn(&Stored) -> bool) -> BTreeMap<Key, Arc<Stored>> {
        let selected = self.selected.of(snapshot).filter(|stored| known(stored));
        selected.map(|stored| (stored.key.clone(), Arc::clone(stored))).collect()
    }

    fn headings(&self) -> Option<Answer> {
        match self.selected.shape {
            Shape::Table => {
                Some(Answer::Table(Table { columns: table::columns(self.selected.kind), rows: Vec::new() }))
            }
            Shape::Objects => None,
        }
    }

    fn show(&self, kind: EventKind, stored: &Stored) -> Answer {
        match self.selected.shape {
            Shape::Objects => Answer::Event { kind, object: stored.shown().to_document() },
            Shape::Table => {
                let rows = vec![table::row(self.selected.kind, &stored.object, self.clock.wall())];
                Answer::Table(Table { columns: Vec::new(), rows })
            }
        }
    }

    /// What the changes of one revision mean.
    fn revision(&self, state: &mut State, changes: &[Change]) -> Result<Vec<Answer>, Refusal> {
        let mut answers = Vec::new();
        for change in changes {
            answers.extend(self.change(state, change)?);
        }
        let revision = changes.last().map_or(state.told, |change| change.revision);
        if !answers.is_empty() || revision.0 >= state.told.0 + BOOKMARK_EVERY {
            state.told = revision;
            answers.push(Answer::Bookmark(revision));
        }
        Ok(answers)
    }

    /// What a change means; `None` if it is none of the watch's business.
    fn change(&self, state: &mut State, change: &Change) -> Result<Option<Answer>, Refusal> {
        if Kind::at(&change.key) != Some(self.selected.kind) {
            return Ok(None);
        }
        let selected = |versioned: Option<&Versioned>| {
            let stored = versioned.map(|versioned| Stored::new(change.key.clone(), versioned)).transpose();
            let stored = stored.map_err(|error| {
                let because = format!("{error}: {}", error.source);
                Refusal::new(Reason::Internal, "the watch ended", because)
            })?;
            Ok::<_, Refusal>(stored.filter(|stored| self.selected.selects(stored)).map(Arc::new))
        };
        let past = match &mut state.since {
            Some(since) => since.before(change)?,
            None => None,
        };
        let before = match past {
            Some(past) => selected(Some(&past))?,
            None => state.present.remove(&change.key),
        };
        let (kind, shown) = match (before, selected(change.now.as_ref())?) {
            (None, None) => return Ok(None),
            (None, Some(stored)) => (EventKind::Added, stored),
            (Some(_), Some(stored)) => (EventKind::Modified, stored),
            (Some(stored), None) => {
                // The revision is that of the deletion, so that who resumes from it does not see it twice.
                let gone = Stored { modified: change.revision, ..Stored::clone(&stored) };
                return Ok(Some(self.show(EventKind::Deleted, &gone)));
            }
        };
        state.present.insert(change.key.clone(), Arc::clone(&shown));
        Ok(Some(self.show(kind, &shown)))
    }
}

#[cfg(test)]
mod tests;
