//! Objects → rows of a table, with the columns of the registry of kinds.
//!
//! Invariant: every kind's every column has a text for every object, however little it says.

use quorate_proto::{
    kinds::{Cell, Kind},
    object::Object,
    request::{TableColumn, TableRow},
    world::Timestamp,
};
use serde_json::Value;

use crate::{age, cell};

/// What a cell shows whose function this version does not have.
const UNKNOWN: &str = "<unknown>";

/// The headings of a kind's table.
pub(crate) fn columns(kind: &Kind) -> Vec<TableColumn> {
    kind.columns.iter().map(|column| TableColumn { name: column.name.to_owned(), wide: column.wide }).collect()
}

/// The row of an object.
pub(crate) fn row(kind: &Kind, object: &Object, now: Timestamp) -> TableRow {
    let cells = kind.columns.iter().map(|column| match column.cell {
        Cell::Path(path, missing) => object.at(path).map_or_else(|| missing.to_owned(), text),
        Cell::Age(path) => object.text(path).map_or_else(|| UNKNOWN.to_owned(), |time| age::since(time, now)),
        Cell::Computed(name) => cell::computed(name, object, now).unwrap_or_else(|| UNKNOWN.to_owned()),
    });
    TableRow {
        namespace: object.namespace().unwrap_or_default().to_owned(),
        name: object.name().to_owned(),
        cells: cells.map(|cell| on_one_line(&cell)).collect(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A cell is one line: what a container wrote must not look like another row.
fn on_one_line(text: &str) -> String {
    text.split(|letter: char| letter.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
