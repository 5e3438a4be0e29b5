//! Reading the key space: at present, at an older revision, what changed since, and whether it is whole.
//!
//! Invariant: what is read is of one revision; nothing older than `compacted_rev` is ever answered, whether it was swept away or not.

use std::{cell::Cell, collections::BTreeMap, io, ops::ControlFlow, sync::Arc};

use quorate_proto::{
    key::Key,
    query::{MAX_PAGE, MAX_PAGE_BYTES, Page, Query, Row, Select},
    range::KeyRange,
    txn::{CommandRefusal, Revision, Versioned},
    watch::{Event, Update},
};

use super::{Applying, Current, Draft, Meta, Operation, stored_key};
use crate::{
    columns::{self, Column},
    engine::View,
    mutant::{self, Mutant},
    record,
};

/// What an answer may still hold.
pub(super) struct Budget {
    rows: u32,
    bytes: usize,
    used: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { rows: MAX_PAGE, bytes: MAX_PAGE_BYTES, used: false }
    }
}

impl Budget {
    /// Whether there is room for so many bytes more; the first row always fits.
    pub(super) fn take(&mut self, weight: usize) -> bool {
        let fits = self.rows > 0 && (!self.used || weight <= self.bytes);
        if fits {
            self.used = true;
            self.rows -= 1;
            self.bytes = self.bytes.saturating_sub(weight);
        }
        fits
    }

    /// A row, without its document if there is no room for that.
    pub(super) fn cut(&mut self, row: Row) -> Row {
        if self.take(row.weight()) { row } else { Row { document: None, ..row } }
    }
}

/// What is called for each row.
type Each<'a> = dyn FnMut(&Key, &Current) -> io::Result<ControlFlow<()>> + 'a;

impl Applying<'_> {
    /// Why a query cannot be answered.
    pub(super) fn refuses(&self, query: &Query) -> Option<CommandRefusal> {
        let (oldest, at) = (self.meta.compacted, self.meta.revision);
        query.at.and_then(|asked| {
            if asked > at {
                Some(CommandRefusal::FutureRevision { asked, at })
            } else if asked < oldest {
                Some(CommandRefusal::Compacted { oldest })
            } else {
                None
            }
        })
    }

    /// Answers a query. At present it sees what is drafted.
    pub(super) fn page(&self, draft: Option<&Draft>, query: &Query, budget: &mut Budget) -> io::Result<Page> {
        let mut page = Page { revision: self.meta.revision, ..Page::default() };
        let limit = query.rows() as usize;
        let mut take = |key: &Key, row: &Current| {
            if query.select == Select::Count {
                page.count += 1;
                return Ok(ControlFlow::Continue(()));
            }
            let mut row = row.row(key);
            if query.select == Select::Keys {
                row.document = None;
            }
            if page.rows.len() == limit || !budget.take(row.weight()) {
                page.more = true;
                return Ok(ControlFlow::Break(()));
            }
            page.rows.push(row);
            page.count += 1;
            Ok(ControlFlow::Continue(()))
        };
        match query.at {
            None => self.each(draft, &query.range, &mut take)?,
            Some(at) if at >= self.base => self.each_at(at, &query.range, &mut take)?,
            Some(at) => history(self.view, at, &query.range, &mut take)?,
        }
        Ok(page)
    }

    /// The rows of a range at present, in order, with what is drafted.
    pub(super) fn each(&self, draft: Option<&Draft>, range: &KeyRange, each: &mut Each<'_>) -> io::Result<()> {
        let mut over: BTreeMap<&str, Option<&Current>> = BTreeMap::new();
        for rows in [Some(&self.rows), draft.map(|draft| &draft.after)].into_iter().flatten() {
            over.extend(rows.range::<str, _>(range.bounds()).map(|(key, row)| (key.as_str(), row.as_ref())));
        }
        merged(self.view, &over, range, each)
    }

    /// The rows of a range at a revision that is no older than the view: what these entries did since is undone.
    fn each_at(&self, at: Revision, range: &KeyRange, each: &mut Each<'_>) -> io::Result<()> {
        let mut undone: BTreeMap<&str, Option<Current>> = BTreeMap::new();
        for update in self.updates.iter().rev().take_while(|update| update.revision > at) {
            for event in update.events.iter().filter(|event| range.contains(&event.key)) {
                undone.insert(event.key.as_str(), event.before.as_ref().map(Current::of));
            }
        }
        let mut over: BTreeMap<&str, Option<&Current>> =
            self.rows.range::<str, _>(range.bounds()).map(|(key, row)| (key.as_str(), row.as_ref())).collect();
        over.extend(undone.iter().map(|(key, row)| (*key, row.as_ref())));
        merged(self.view, &over, range, each)
    }
}

/// The rows of a view, with others in their place or between them.
fn merged(
    view: &dyn View,
    over: &BTreeMap<&str, Option<&Current>>,
    range: &KeyRange,
    each: &mut Each<'_>,
) -> io::Result<()> {
    let mut over = over.iter().peekable();
    let ended = Cell::new(false);
    let mut emit = |key: &str, row: &Current| {
        let flow = each(&stored_key(key.as_bytes())?, row)?;
        ended.set(flow.is_break());
        io::Result::Ok(flow)
    };
    view.scan(Column::Current, range.from().as_bytes(), range.to().map(str::as_bytes), &mut |key, row| {
        let key = std::str::from_utf8(key).map_err(|error| record::damaged(error.to_string()))?;
        while let Some((before, row)) = over.next_if(|(before, _)| **before < key) {
            if let Some(row) = row
                && emit(before, row)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        match over.next_if(|(same, _)| **same == key) {
            Some((_, Some(row))) => emit(key, row),
            Some((_, None)) => Ok(ControlFlow::Continue(())),
            None => emit(key, &record::decode(row)?),
        }
    })?;
    for (key, row) in over {
        if let Some(row) = row
            && (ended.get() || emit(key, row)?.is_break())
        {
            break;
        }
    }
    Ok(())
}

/// The rows of a range as they were at a revision, in order.
fn history(view: &dyn View, at: Revision, range: &KeyRange, each: &mut Each<'_>) -> io::Result<()> {
    let from = match range.single() {
        Some(key) => columns::history_key(key.as_str(), at),
        None => columns::history_start(range.from()),
    };
    let to = range.to().map(columns::history_start);
    let mut seen: Vec<u8> = Vec::new();
    view.scan(Column::History, &from, to.as_deref(), &mut |key, row| {
        let damaged = || record::damaged("a key of kv_hist".to_owned());
        let (name, revision) = columns::version_of(key).ok_or_else(damaged)?;
        if revision > at || name == seen {
            return Ok(ControlFlow::Continue(()));
        }
        seen = name.to_vec();
        match record::decode::<Option<Current>>(row)? {
            Some(row) => each(&stored_key(&columns::unescape(name).ok_or_else(damaged)?)?, &row),
            None => Ok(ControlFlow::Continue(())),
        }
    })
}

/// Answers a query, or says why it cannot be answered.
pub(crate) fn query(view: &dyn View, query: &Query) -> io::Result<Result<Page, CommandRefusal>> {
    if let (None, Some(key)) = (query.at, query.range.single()) {
        return present(view, query, &key).map(Ok);
    }
    let state = Applying::new(view, Meta::load(view)?);
    match state.refuses(query) {
        Some(refusal) => Ok(Err(refusal)),
        None => state.page(None, query, &mut Budget::default()).map(Ok),
    }
}

/// The page of one key at present: what is asked most, and needs neither a scan nor all that the state knows about itself.
fn present(view: &dyn View, query: &Query, key: &Key) -> io::Result<Page> {
    let mut page = Page { revision: Meta::revision(view)?, ..Page::default() };
    let Some(row) = view.get(Column::Current, key.as_str().as_bytes())? else { return Ok(page) };
    page.count = 1;
    if query.select != Select::Count {
        let mut row = record::decode::<Current>(&row)?.row(key);
        if query.select == Select::Keys {
            row.document = None;
        }
        page.rows.push(row);
    }
    Ok(page)
}

/// All keys that begin with a prefix, as of the present.
pub(crate) fn rows(view: &dyn View, prefix: &str) -> io::Result<(Revision, Vec<(Key, Versioned)>)> {
    let revision = Meta::revision(view)?;
    let mut found = Vec::new();
    let end = columns::end_of(prefix.as_bytes());
    view.scan(Column::Current, prefix.as_bytes(), end.as_deref(), &mut |key, row| {
        let row: Current = record::decode(row)?;
        found.push((stored_key(key)?, row.versioned()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((revision, found))
}

/// All keys that do not begin with a prefix, as of the present.
pub(crate) fn rows_outside(view: &dyn View, prefix: &str) -> io::Result<(Revision, Vec<(Key, Versioned)>)> {
    let revision = Meta::revision(view)?;
    let mut found = Vec::new();
    let mut take = |key: &[u8], row: &[u8]| {
        let row: Current = record::decode(row)?;
        found.push((stored_key(key)?, row.versioned()));
        Ok(ControlFlow::Continue(()))
    };
    view.scan(Column::Current, &[], Some(prefix.as_bytes()), &mut take)?;
    if let Some(end) = columns::end_of(prefix.as_bytes()) {
        view.scan(Column::Current, &end, None, &mut take)?;
    }
    Ok((revision, found))
}

/// What a key held at a revision.
pub(crate) enum Past {
    /// This, or nothing.
    Held(Option<Versioned>),
    /// The oldest revision that can still be read.
    Compacted(Revision),
}

/// Looks up what a key held at a revision.
pub(crate) fn at(view: &dyn View, key: &Key, revision: Revision) -> io::Result<Past> {
    let oldest = Meta::load(view)?.compacted;
    if revision < oldest {
        return Ok(Past::Compacted(oldest));
    }
    Ok(Past::Held(held(view, key, revision)?.as_ref().map(Current::versioned)))
}

fn held(view: &dyn View, key: &Key, revision: Revision) -> io::Result<Option<Current>> {
    let mut found = None;
    history(view, revision, &KeyRange::key(key), &mut |_, row| {
        found = Some(row.clone());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Why changes cannot be replayed.
pub(crate) enum Replay {
    /// By revision, at least one if there is any.
    Updates(Vec<Arc<Update>>),
    /// The oldest revision that can still be replayed from.
    Compacted(Revision),
}

/// What happened after a revision, of whole revisions, until it comes to `limit` bytes; with what was there before, if that is asked for.
pub(crate) fn replay(view: &dyn View, after: Revision, limit: usize, previous: bool) -> io::Result<Replay> {
    let meta = Meta::load(view)?;
    if after < meta.compacted {
        return Ok(Replay::Compacted(meta.compacted));
    }
    let mut operations: Vec<(Revision, Operation)> = Vec::new();
    let from = columns::revision_key(Revision(after.0.saturating_add(1)), 0);
    let mut revisions = Vec::new();
    let mut size = 0;
    view.scan(Column::Revisions, &from, None, &mut |key, row| {
        let (revision, _) = columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        if let Some((last, _)) = operations.last()
            && *last != revision
        {
            let whole = update(view, *last, std::mem::take(&mut operations), previous)?;
            size += whole.events.iter().map(Event::weight).sum::<usize>();
            revisions.push(whole);
            if size >= limit {
                return Ok(ControlFlow::Break(()));
            }
        }
        let operation: Operation = record::decode(row)?;
        if !(operation.deleted && mutant::is(Mutant::DeletionUnwatched)) {
            operations.push((revision, operation));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some((last, _)) = operations.last() {
        revisions.push(update(view, *last, operations, previous)?);
    }
    Ok(Replay::Updates(revisions))
}

fn update(
    view: &dyn View,
    revision: Revision,
    operations: Vec<(Revision, Operation)>,
    previous: bool,
) -> io::Result<Arc<Update>> {
    let event = |(revision, operation): (Revision, Operation)| {
        let key = columns::history_key(operation.key.as_str(), revision);
        let row = view.get(Column::History, &key)?;
        let row = row.ok_or_else(|| record::damaged(format!("{} has no revision {revision}", operation.key)))?;
        let now: Option<Current> = record::decode(&row)?;
        let before = if previous { held(view, &operation.key, Revision(revision.0 - 1))? } else { None };
        let shown = |row: Option<Current>| row.map(|row| row.row(&operation.key));
        Ok(Event { now: shown(now), before: shown(before), key: operation.key.clone() })
    };
    let events = operations.into_iter().map(event).collect::<io::Result<_>>()?;
    Ok(Arc::new(Update { revision, events }))
}

/// Checks that no revision is missing: a batch that was lost while a later one was kept leaves a gap.
pub(crate) fn check(view: &dyn View) -> io::Result<Meta> {
    let meta = Meta::load(view)?;
    let mut last = meta.compacted;
    let from = columns::revision_key(Revision(last.0 + 1), 0);
    view.scan(Column::Revisions, &from, None, &mut |key, _| {
        let (revision, place) =
            columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        if revision != last && (revision.0 != last.0 + 1 || place != 0) {
            return Err(record::damaged(format!("revision {} is missing", last.0 + 1)));
        }
        last = revision;
        Ok(ControlFlow::Continue(()))
    })?;
    if last == meta.revision {
        Ok(meta)
    } else {
        Err(record::damaged(format!("the state is at revision {}, its history at {last}", meta.revision)))
    }
}
