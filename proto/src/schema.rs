//! Strict decoding: every field of an object is known, has the right type, and is honoured, warned about or refused (D1).
//!
//! Two tables say so. `schema/fields.txt` is derived from Kubernetes' own definitions by `tools/schema/generate`: names, types, how
//! a patch merges. `schema/labels.txt` is written by hand and reviewed: what Quorate does with each field.
//!
//! Invariant: nothing is silently ignored. A field without a label is refused, and a security-relevant field that is not honoured
//! is refused, never only warned about.

mod check;
mod path;
mod table;

use crate::kinds::{Access, KINDS, Kind};

pub(crate) use self::path::{one_line, shown};
use self::table::{Rule, TABLE, TypeRow};
pub use self::{
    check::{MAX_PROBLEMS, Problem, Survey, Warning, check, survey},
    path::{Path, Step},
    table::{Label, Merge, Type},
};

/// A field of a kind, as `quorate check` and the documentation list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its path from the object's root: `spec.containers[].image`. `[]` stands for any item of a list, `[x…]` for any key of a map
    /// that begins with x.
    pub path: String,
    /// The type, as `schema/fields.txt` writes it: `string`, `[Container]`, `{quantity}`.
    pub type_name: String,
    /// Whether the object it stands in is refused without it.
    pub required: bool,
    /// What is done with it.
    pub label: Label,
    /// The values that are accepted although the label says otherwise; for maps, the keys.
    pub unless: &'static [&'static str],
    /// The field beside which any value is accepted.
    pub beside: Option<&'static str>,
    /// Why it is not honoured; empty if it is.
    pub reason: &'static str,
}

impl Field {
    const fn of(path: String, type_name: String, required: bool, rule: &'static Rule) -> Self {
        let Rule { label, unless, beside, reason, .. } = rule;
        Self { path, type_name, required, label: *label, unless: unless.as_slice(), beside: *beside, reason }
    }
}

/// The kinds that have a schema: all that are served.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().copied().filter(|kind| kind.access != Access::Internal)
}

/// All fields of a kind, in the order of their paths, down to the first that is not honoured: what is below it shares its fate.
#[must_use]
pub fn fields(kind: &Kind) -> Vec<Field> {
    fn below(path: &str, row: &'static TypeRow, fields: &mut Vec<Field>) {
        for (name, field) in &row.fields {
            let mut path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
            fields.push(Field::of(path.clone(), field.type_.to_string(), field.required, &field.rule));
            for (prefix, rule) in field.keys.iter().rev() {
                fields.push(Field::of(format!("{path}[{prefix}…]"), Type::String.to_string(), false, rule));
            }
            if field.rule.label == Label::Honoured
                && let Some((name, suffix)) = field.type_.innermost()
                && let Some(row) = TABLE.types.get(name)
            {
                path.push_str(suffix);
                below(&path, row, fields);
            }
        }
    }
    let mut fields = Vec::new();
    if let Some(row) = TABLE.of(kind) {
        below("", row, &mut fields);
    }
    fields
}

/// How a patch merges the field at a path of field names without indexes: `["spec", "template", "spec", "containers"]` is merged
/// [`ByKey`](Merge::ByKey) `name`. Below a map, its keys are names too. [`Merge::Replace`] where the table knows no such field.
#[must_use]
pub fn merge_key(kind: &Kind, path: &[&str]) -> Merge {
    let Some(row) = TABLE.of(kind) else { return Merge::Replace };
    let mut type_ = &Type::Object(row.name);
    let mut merge = Merge::Fields;
    for name in path {
        while let Type::List(item) = type_ {
            type_ = item;
        }
        (type_, merge) = match type_ {
            Type::Map(value) => (&**value, Merge::of(value)),
            Type::Object(object) => match TABLE.types.get(object).and_then(|row| row.fields.get(name)) {
                Some(field) => (&field.type_, field.merge),
                None => return Merge::Replace,
            },
            _ => return Merge::Replace,
        };
    }
    merge
}

#[cfg(test)]
mod tests;
