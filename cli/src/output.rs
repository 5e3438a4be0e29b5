//! Prints answers: tables as `kubectl` aligns them, JSON, YAML, names.
//!
//! Invariant: answers go to `out`, talk goes to `err`; nothing is said by colour alone.

use std::io::{self, Write};

use quorate_proto::{
    kinds::Kind,
    object::{Object, ObjectError},
    refusal::{Reason, Refusal},
    request::{TableColumn, TableRow},
    txn::Document,
};
use serde::Serialize as _;
use serde_json::Value;

use crate::failure::Failure;

/// Where a command writes.
pub(crate) struct Console<'a> {
    /// What was asked for.
    pub(crate) out: &'a mut dyn Write,
    /// What else there is to say.
    pub(crate) err: &'a mut dyn Write,
}

/// Spaces between columns.
const PADDING: usize = 3;

/// The narrowest column with its padding, as `kubectl` has it.
const NARROWEST: usize = 6;

/// A table that is printed bit by bit: a column gets no narrower than it once was, so that rows of a watch stay aligned.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    widths: Vec<usize>,
}

impl Aligned {
    /// Prints rows, aligned with each other and with all before them.
    pub(crate) fn print<Text: AsRef<str>>(&mut self, rows: &[Vec<Text>], out: &mut dyn Write) -> io::Result<()> {
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                let width = (cell.as_ref().chars().count() + PADDING).max(NARROWEST);
                match self.widths.get_mut(index) {
                    Some(widest) => *widest = width.max(*widest),
                    None => self.widths.push(width),
                }
            }
        }
        for row in rows {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                line.push_str(cell.as_ref());
                if index + 1 < row.len() {
                    let width = self.widths.get(index).copied().unwrap_or_default();
                    line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.as_ref().chars().count())));
                }
            }
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// How the rows of one kind are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableStyle {
    /// The namespace first.
    pub(crate) namespaces: bool,
    /// The columns of `-o wide` too.
    pub(crate) wide: bool,
    /// `deployment.apps/web` instead of `web`: several kinds are shown.
    pub(crate) kind: Option<&'static Kind>,
}

impl TableStyle {
    /// The headings.
    pub(crate) fn headings(self, columns: &[TableColumn]) -> Vec<String> {
        let shown = columns.iter().filter(|column| self.wide || !column.wide).map(|column| column.name.clone());
        self.namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(shown).collect()
    }

    /// The cells of a row.
    pub(crate) fn cells(self, columns: &[TableColumn], row: &TableRow) -> Vec<String> {
        let shown = columns.iter().zip(&row.cells).filter(|(column, _)| self.wide || !column.wide);
        let cells = shown.map(|(column, cell)| match self.kind {
            Some(kind) if column.name == "NAME" => format!("{}/{cell}", kind.qualified()),
            _ => cell.clone(),
        });
        self.namespaces.then(|| row.namespace.clone()).into_iter().chain(cells).collect()
    }
}

/// `deployment.apps/web`.
pub(crate) fn qualified_name(kind: &Kind, name: &str) -> String {
    format!("{}/{name}", kind.qualified())
}

/// `deployment.apps/web`, by what the object says it is.
pub(crate) fn object_name(object: &Object) -> String {
    match Kind::of(object.api_version(), object.kind()) {
        Some(kind) => qualified_name(kind, object.name()),
        None => format!("{}/{}", object.kind().to_lowercase(), object.name()),
    }
}

/// Reads an object that a node sent.
pub(crate) fn read(document: &Document) -> Result<Object, Refusal> {
    Object::from_document(document).map_err(|error| not_an_object(&error))
}

fn not_an_object(error: &ObjectError) -> Refusal {
    Refusal::new(Reason::Internal, "the answer was not understood", format!("a node sent what is no object: {error}"))
        .hint("compare `quorate --version` with the nodes' versions in `quorate nodes`")
}

/// Prints JSON as `kubectl` does: indented by four.
pub(crate) fn json(value: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut *out, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints YAML.
pub(crate) fn yaml(value: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_never_get_narrower() {
        let mut out = Vec::new();
        let mut table = Aligned::default();
        table.print(&[vec!["NAME", "A", "AGE"], vec!["web-1", "", "5s"]], &mut out).unwrap();
        table.print(&[vec!["a-longer-name", "x", "6s"]], &mut out).unwrap();
        table.print(&[vec!["web-2", "é", "7s"]], &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        NAME    A     AGE
        web-1         5s
        a-longer-name   x     6s
        web-2           é     7s
        ");
    }

    #[test]
    fn json_and_yaml_look_as_kubectl_prints_them() {
        let value = json!({"kind": "Pod", "metadata": {"labels": {"a": "1", "on": "true"}, "name": "web"}, "spec": {"args": ["-c", "echo hi\nls"], "list": [], "n": 3}});
        let mut out = Vec::new();
        json(&value, &mut out).unwrap();
        yaml(&value, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
