//! Answers watches: the objects that exist, then every change, complete and in the store's order.
//!
//! Invariant: what a watch has told adds up to what is selected at each revision: an object that begins to be selected is added, one that
//! no longer is is deleted, whatever happened to it. It ends with a refusal, never in silence.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};
use quorate_proto::{
    key::Key,
    kinds::Kind,
    refusal::{Reason, Refusal},
    request::{Answer, EventKind, Selection, Shape, Table},
    snapshot::{Snapshot, Stored},
    txn::Change,
    world::Clock,
};

use crate::{select::Selected, table};

/// Follows a selection. `changes` must begin right after the snapshot.
pub(crate) fn answers(
    selection: &Selection,
    snapshot: &Snapshot,
    changes: BoxStream<'static, Result<Change, Refusal>>,
    clock: Arc<dyn Clock>,
) -> Result<impl Stream<Item = Answer> + Send + use<>, Refusal> {
    let selected = Selected::parse(selection)?;
    let present: BTreeMap<Key, Arc<Stored>> =
        selected.of(snapshot).map(|stored| (stored.key.clone(), Arc::clone(stored))).collect();
    let first: Vec<Arc<Stored>> = present.values().cloned().collect();
    let headings = match selected.shape {
        Shape::Table => Some(Answer::Table(Table { columns: table::columns(selected.kind), rows: Vec::new() })),
        Shape::Objects => None,
    };
    let watch = Watch { kind: selected.kind, shape: selected.shape, clock };
    let existing = {
        let watch = watch.clone();
        stream::iter(first).map(move |stored| watch.show(EventKind::Added, &stored))
    };
    let ended = Refusal::new(Reason::Unavailable, "the watch ended", "the node that answered it is stopping")
        .hint("watch again, from any node");
    let changes = changes.chain(stream::once(std::future::ready(Err(ended))));
    let later = changes.scan(Some((present, selected)), move |state, change| {
        let answers = match (state.as_mut(), change) {
            (None, _) => return std::future::ready(None),
            (Some((present, selected)), Ok(change)) => told(&watch, selected, present, &change),
            (Some(_), Err(refusal)) => Err(refusal),
        };
        let answer = answers.unwrap_or_else(|refusal| {
            *state = None;
            Some(Answer::Refused(refusal))
        });
        std::future::ready(Some(answer))
    });
    Ok(stream::iter(headings).chain(existing).chain(later.filter_map(std::future::ready)))
}

#[derive(Clone)]
struct Watch {
    kind: &'static Kind,
    shape: Shape,
    clock: Arc<dyn Clock>,
}

impl Watch {
    fn show(&self, kind: EventKind, stored: &Stored) -> Answer {
        match self.shape {
            Shape::Objects => Answer::Event { kind, object: stored.shown().to_document() },
            Shape::Table => {
                let rows = vec![table::row(self.kind, &stored.object, self.clock.wall())];
                Answer::Table(Table { columns: Vec::new(), rows })
            }
        }
    }
}

/// What a change means to a watch; `None` if it is none of its business.
fn told(
    watch: &Watch,
    selected: &Selected,
    present: &mut BTreeMap<Key, Arc<Stored>>,
    change: &Change,
) -> Result<Option<Answer>, Refusal> {
    if Kind::at(&change.key) != Some(selected.kind) {
        return Ok(None);
    }
    let now = match &change.now {
        None => None,
        Some(versioned) => match Stored::new(change.key.clone(), versioned) {
            Ok(stored) => Some(Arc::new(stored)),
            Err(error) => {
                let because = format!("{error}: {}", error.source);
                return Err(Refusal::new(Reason::Internal, "the watch ended", because));
            }
        },
    };
    let before = present.remove(&change.key);
    let (kind, shown) = match (before, now.filter(|stored| selected.selects(stored))) {
        (None, None) => return Ok(None),
        (None, Some(stored)) => (EventKind::Added, stored),
        (Some(_), Some(stored)) => (EventKind::Modified, stored),
        (Some(stored), None) => {
            // The revision is that of the deletion, so that who resumes from it does not see it twice.
            let gone = Stored { modified: change.revision, ..Stored::clone(&stored) };
            return Ok(Some(watch.show(EventKind::Deleted, &gone)));
        }
    };
    present.insert(change.key.clone(), Arc::clone(&shown));
    Ok(Some(watch.show(kind, &shown)))
}

#[cfg(test)]
mod tests;
