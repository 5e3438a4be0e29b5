//! The two tables, read once: types with their fields from `fields.txt`, what is done with each field from `labels.txt`.
//!
//! Reading cannot fail: a word that is not understood leaves its field refused, and the tests of `schema.rs` find it.
//!
//! Invariant: a field is honoured only if a line of `labels.txt` says so.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use crate::kinds::{Access, Kind};

/// Both tables. Immutable after the first use.
pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::read(include_str!("fields.txt"), include_str!("labels.txt")).0);

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// It does what Kubernetes says it does.
    Honoured,
    /// It is stored and does nothing; whoever writes it is told.
    Warned,
    /// An object that has it is not accepted.
    Refused,
    /// The cluster writes it; what a user writes there is accepted and dropped.
    Server,
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A whole number, or text such as `25%` or the name of a port.
    IntOrString,
    /// An amount: `500m`, `64Mi`, or a number.
    Quantity,
    /// A time as RFC 3339.
    Time,
    /// Bytes as base64 (RFC 4648, with padding).
    Bytes,
    /// Anything.
    Any,
    /// A list.
    List(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
    /// An object with fields of its own, by the name of its type.
    Object(&'static str),
}

/// How a strategic merge patch treats a field (Kubernetes' `x-kubernetes-patch-strategy` and `-merge-key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The new value takes the old one's place: scalars and atomic lists.
    Replace,
    /// Field by field, key by key: objects and maps.
    Fields,
    /// Field by field, but fields the new value does not have are dropped (`retainKeys`): one-of-several objects.
    RetainKeys,
    /// Item by item; items are the same if they agree in this field.
    ByKey(&'static str),
    /// As [`ByKey`](Self::ByKey), and within an item as [`RetainKeys`](Self::RetainKeys).
    ByKeyRetainKeys(&'static str),
    /// A list of distinct scalars: united.
    Set,
}

/// All types, by name.
pub(super) struct Table {
    pub(super) types: BTreeMap<&'static str, TypeRow>,
}

/// A type and its fields.
#[derive(Debug, Default)]
pub(super) struct TypeRow {
    pub(super) name: &'static str,
    pub(super) fields: BTreeMap<&'static str, FieldRow>,
}

/// A field.
#[derive(Debug)]
pub(super) struct FieldRow {
    pub(super) type_: Type,
    pub(super) required: bool,
    pub(super) merge: Merge,
    pub(super) rule: Rule,
    /// What is done with the keys of a map that begin so: labels and annotations with a meaning of their own.
    pub(super) keys: Vec<(&'static str, Rule)>,
}

/// A line of `labels.txt`: `label [unless VALUE,… [beside FIELD]] [:: reason [| hint]]`.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) label: Label,
    pub(super) unless: Vec<&'static str>,
    pub(super) beside: Option<&'static str>,
    pub(super) reason: &'static str,
    pub(super) hint: Option<&'static str>,
}

impl Table {
    /// Reads both tables. The lines of `labels` that label nothing come with them.
    pub(super) fn read(fields: &'static str, labels: &'static str) -> (Self, Vec<String>) {
        let mut types = BTreeMap::<_, TypeRow>::new();
        for (name, line) in sections(fields) {
            let row = types.entry(name).or_insert_with(|| TypeRow { name, fields: BTreeMap::new() });
            if let Some((field, row_of_field)) = FieldRow::read(line) {
                row.fields.insert(field, row_of_field);
            }
        }
        let mut table = Self { types };
        let mut idle = Vec::new();
        let (all, named): (Vec<_>, Vec<_>) = sections(labels).partition(|(_, line)| line.starts_with("* "));
        // A `*` labels what no other line of its section names.
        for (name, line) in all.into_iter().chain(named) {
            if !line.is_empty() && !table.label(name, line) {
                idle.push(format!("{name}: {line}"));
            }
        }
        (table, idle)
    }

    /// Puts a line of `labels.txt` to its fields; whether there is any.
    fn label(&mut self, name: &str, line: &'static str) -> bool {
        let Some(row) = self.types.get_mut(name) else { return false };
        let Some((pattern, rest)) = line.split_once(' ') else { return false };
        let rule = Rule::read(rest);
        if pattern == "*" {
            row.fields.values_mut().for_each(|field| field.rule = rule.clone());
            return !row.fields.is_empty();
        }
        if let Some((map, prefix)) = pattern.strip_suffix(']').and_then(|pattern| pattern.split_once('[')) {
            let Some(field) = row.fields.get_mut(map) else { return false };
            field.keys.push((prefix, rule));
            field.keys.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
            return true;
        }
        row.fields.get_mut(pattern).map(|field| field.rule = rule).is_some()
    }

    /// The type of a served kind.
    pub(super) fn of(&self, kind: &Kind) -> Option<&TypeRow> {
        self.types.get(kind.kind).filter(|_| kind.access != Access::Internal)
    }
}

/// The indented lines of a table, each with the line it stands under; a section without any gives one empty line.
fn sections(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(move |line| {
        if let Some(line) = line.strip_prefix("  ") {
            (section, line.trim())
        } else {
            section = line.trim();
            (section, "")
        }
    })
}

impl FieldRow {
    fn read(line: &'static str) -> Option<(&'static str, Self)> {
        let mut words = line.split_whitespace();
        let (name, type_) = (words.next()?, Type::read(words.next()?));
        let mut row = Self {
            merge: Merge::of(&type_),
            type_,
            required: false,
            rule: Rule {
                label: Label::Refused,
                unless: Vec::new(),
                beside: None,
                reason: "it has no label",
                hint: None,
            },
            keys: Vec::new(),
        };
        for word in words {
            row.merge = match (word, row.merge) {
                ("retainKeys", Merge::ByKey(key)) => Merge::ByKeyRetainKeys(key),
                ("retainKeys", _) => Merge::RetainKeys,
                ("set", _) => Merge::Set,
                (_, merge) => word.strip_prefix("key=").map_or(merge, Merge::ByKey),
            };
            row.required |= word == "required";
        }
        Some((name, row))
    }
}

impl Rule {
    fn read(text: &'static str) -> Self {
        let (words, why) = text.split_once("::").unwrap_or((text, ""));
        let (reason, hint) = why.split_once('|').map_or((why, None), |(reason, hint)| (reason, Some(hint.trim())));
        let (label, unless) = words.split_once(" unless ").unwrap_or((words, ""));
        let (unless, beside) =
            unless.split_once(" beside ").map_or((unless, None), |(unless, field)| (unless, Some(field.trim())));
        Self {
            label: match label.trim() {
                "honoured" => Label::Honoured,
                "warned" => Label::Warned,
                "server" => Label::Server,
                _ => Label::Refused,
            },
            beside,
            unless: unless.split(',').map(str::trim).filter(|value| !value.is_empty()).collect(),
            reason: reason.trim(),
            hint,
        }
    }
}

impl Merge {
    /// How a value of a type is merged if nothing else is said.
    pub(super) const fn of(type_: &Type) -> Self {
        match type_ {
            Type::Object(_) | Type::Map(_) => Self::Fields,
            _ => Self::Replace,
        }
    }
}

impl Type {
    fn read(text: &'static str) -> Self {
        let inner = |open, close| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        if let Some(item) = inner('[', ']') {
            return Self::List(Box::new(Self::read(item)));
        }
        if let Some(value) = inner('{', '}') {
            return Self::Map(Box::new(Self::read(value)));
        }
        match text {
            "string" => Self::String,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "int-or-string" => Self::IntOrString,
            "quantity" => Self::Quantity,
            "time" => Self::Time,
            "bytes" => Self::Bytes,
            "any" => Self::Any,
            name => Self::Object(name),
        }
    }

    /// The object type inside lists and maps, and what a path needs to get there.
    pub(super) fn innermost(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Object(name) => Some((name, "")),
            Self::List(item) => item.innermost().map(|(name, _)| (name, "[]")),
            Self::Map(value) => value.innermost().map(|(name, _)| (name, "[]")),
            _ => None,
        }
    }

    /// The type as a message names it.
    pub(super) const fn article(&self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Int32 | Self::Int64 => "an integer",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::IntOrString => "an integer or a string",
            Self::Quantity => "a quantity such as `500m` or `64Mi`",
            Self::Time => "a time such as `2027-01-15T08:00:00Z`",
            Self::Bytes => "base64",
            Self::Any => "anything",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Object(_) => "a map",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => formatter.write_str("string"),
            Self::Int32 => formatter.write_str("int32"),
            Self::Int64 => formatter.write_str("int64"),
            Self::Number => formatter.write_str("number"),
            Self::Boolean => formatter.write_str("boolean"),
            Self::IntOrString => formatter.write_str("int-or-string"),
            Self::Quantity => formatter.write_str("quantity"),
            Self::Time => formatter.write_str("time"),
            Self::Bytes => formatter.write_str("bytes"),
            Self::Any => formatter.write_str("any"),
            Self::List(item) => write!(formatter, "[{item}]"),
            Self::Map(value) => write!(formatter, "{{{value}}}"),
            Self::Object(name) => formatter.write_str(name),
        }
    }
}
