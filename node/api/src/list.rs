//! Answers lists: in frames that fit, all of one state.
//!
//! Invariant: a frame holds at least one object and stays below the cap of a frame; memory is needed for one frame at a time.

use std::sync::Arc;

use futures_util::stream::{self, Stream};
use quorate_proto::{
    refusal::Refusal,
    request::{Answer, Selection, Shape, Table, TableRow},
    snapshot::{Snapshot, Stored},
    world::Timestamp,
};

use crate::{select::Selected, table};

/// How much of a list goes into one frame, in bytes; an object may be larger and then has a frame of its own.
const FRAME: usize = 512 << 10;

/// The most objects or rows in one frame.
const MAX_ITEMS: usize = 500;

/// All objects that are selected, then `End`.
pub(crate) fn answers(
    selection: &Selection,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<impl Stream<Item = Answer> + Send + use<>, Refusal> {
    let selected = Selected::parse(selection)?;
    let objects: Vec<Arc<Stored>> = selected.of(snapshot).cloned().collect();
    let revision = snapshot.revision();
    let frames = stream::unfold(Some(0), move |next| {
        let frame = next.map(|start| match selected.shape {
            Shape::Objects => {
                let (objects, end) = fill(&objects, start, |stored| {
                    let document = stored.shown().to_document();
                    (document.0.len(), document)
                });
                (Answer::Objects { revision, objects }, end)
            }
            Shape::Table => {
                let (rows, end) = fill(&objects, start, |stored| sized(table::row(selected.kind, &stored.object, now)));
                let columns = if start == 0 { table::columns(selected.kind) } else { Vec::new() };
                (Answer::Table(Table { columns, rows }), end)
            }
        });
        std::future::ready(frame)
    });
    Ok(stream::StreamExt::chain(frames, stream::once(std::future::ready(Answer::End))))
}

fn sized(row: TableRow) -> (usize, TableRow) {
    (row.name.len() + row.namespace.len() + row.cells.iter().map(|cell| cell.len() + 4).sum::<usize>(), row)
}

/// One frame's worth from `start` on, and where the next frame starts.
fn fill<T>(objects: &[Arc<Stored>], start: usize, show: impl Fn(&Stored) -> (usize, T)) -> (Vec<T>, Option<usize>) {
    let (mut shown, mut size) = (Vec::new(), 0);
    for (index, stored) in objects.iter().enumerate().skip(start) {
        let (length, item) = show(stored);
        if !shown.is_empty() && (shown.len() == MAX_ITEMS || size + length > FRAME) {
            return (shown, Some(index));
        }
        size += length;
        shown.push(item);
    }
    (shown, None)
}
