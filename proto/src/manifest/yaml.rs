//! Text → values, with the line of each: the one file that names serde-saphyr's reader.
//!
//! Invariant: a value and its place have the same shape.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{
    DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter as _, NonFiniteFloatPolicy, Spanned, UserMessageFormatter,
    budget::BudgetBreach,
};

use crate::schema::{Path, Step, one_line, shown};

use super::{MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_VALUES, error::ManifestError};

/// The most characters of what the parser says.
const SENTENCE: usize = 400;

/// Where a value stands, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The line of its name, or of itself.
    line: u64,
    within: Within,
}

#[derive(Debug, Clone)]
enum Within {
    Nothing,
    Items(Vec<Place>),
    Fields(BTreeMap<String, Place>),
}

impl Place {
    /// The line of the value at a path, or of as much of the path as there is.
    pub(super) fn line(&self, path: &Path) -> u64 {
        let mut place = self;
        for step in &path.0 {
            let next = match (step, &place.within) {
                (Step::Index(index), Within::Items(items)) => items.get(*index),
                (Step::Field(name) | Step::Key(name), Within::Fields(fields)) => fields.get(name),
                _ => None,
            };
            match next {
                Some(next) => place = next,
                None => break,
            }
        }
        place.line
    }

    pub(super) const fn first_line(&self) -> u64 {
        self.line
    }

    /// The places of the items of a list in this map.
    pub(super) fn into_items(self, name: &str) -> Vec<Self> {
        let Within::Fields(mut fields) = self.within else { return Vec::new() };
        match fields.remove(name).map(|place| place.within) {
            Some(Within::Items(items)) => items,
            _ => Vec::new(),
        }
    }
}

/// All documents of a text that are not empty.
pub(super) fn documents(text: &str, file: &str) -> Result<Vec<(Value, Place)>, ManifestError> {
    if text.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge { file: file.to_owned(), bytes: text.len() });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_anchors: 0,
            max_aliases: 0,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        reject_unsupported_tags: true,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Spanned<Node>>(text, options)
        .map(|documents| documents.into_iter().map(Node::placed).collect())
        .map_err(|error| refused(error, file))
}

fn refused(error: serde_saphyr::Error, file: &str) -> ManifestError {
    use serde_saphyr::Error;
    let plain = error.without_snippet();
    let written_out = Some("write each value out where it belongs");
    let (message, hint) = match plain {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Documents { .. } => (format!("more than {MAX_DOCUMENTS} documents"), Some("split the file")),
            BudgetBreach::Depth { .. } => {
                (format!("lists and maps stand in each other more than {MAX_DEPTH} deep"), None)
            }
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
                (format!("more than {MAX_VALUES} values"), Some("split the file"))
            }
            BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => {
                ("anchors (`&`) and aliases (`*`) are not read".to_owned(), written_out)
            }
            _ => (UserMessageFormatter.format_message(plain).into_owned(), None),
        },
        Error::UnknownAnchor { .. } => ("anchors (`&`) and aliases (`*`) are not read".to_owned(), written_out),
        Error::MergeKeyNotAllowed { .. } => ("merge keys (`<<`) are not read".to_owned(), written_out),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("`{}` stands here twice", shown(key)), Some("only one of the two would be used: remove the other"))
        }
        _ => (UserMessageFormatter.format_message(plain).into_owned(), None),
    };
    let line = plain.location().map_or(1, |location| location.line().max(1));
    ManifestError::Malformed {
        file: file.to_owned(),
        line,
        message: one_line(&message, SENTENCE),
        hint: hint.map(str::to_owned),
        source: Box::new(error),
    }
}

/// A value as it was read, with lines inside.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(BTreeMap<String, (u64, Spanned<Self>)>),
}

impl Node {
    fn placed(node: Spanned<Self>) -> (Value, Place) {
        let line = node.referenced.line();
        match node.value {
            Self::Scalar(value) => (value, Place { line, within: Within::Nothing }),
            Self::List(items) => {
                let (values, places) = items.into_iter().map(Self::placed).unzip();
                (Value::Array(values), Place { line, within: Within::Items(places) })
            }
            Self::Map(fields) => {
                let mut values = Map::new();
                let mut places = BTreeMap::new();
                for (name, (line, node)) in fields {
                    let (value, place) = Self::placed(node);
                    values.insert(name.clone(), value);
                    places.insert(name, Place { line, ..place });
                }
                (Value::Object(values), Place { line, within: Within::Fields(places) })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has too")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry::<Spanned<String>, _>()? {
            let line = name.referenced.line();
            // `1` and `"1"` are two keys in YAML and one in JSON.
            if map.insert(name.value.clone(), (line, value)).is_some() {
                return Err(de::Error::custom(format!("`{}` stands here twice", shown(&name.value))));
            }
        }
        Ok(Node::Map(map))
    }
}
