//! Walks an object along the table of fields, and collects what is wrong with it and what will do nothing.
//!
//! Invariant: the work is bounded by the size of the object, and what is reported by [`MAX_PROBLEMS`].

use data_encoding::BASE64;
use serde_json::{Map, Value};

use crate::{kinds::Kind, object::Object, quantity::Quantity};

use super::{
    path::{Path, Step, one_line, shown},
    table::{FieldRow, Label, Rule, TABLE, Type, TypeRow},
};

/// The most problems, and the most warnings, that are reported of one object.
pub const MAX_PROBLEMS: usize = 50;

/// The most characters of a sentence that repeats what a manifest says.
const SENTENCE: usize = 400;

/// How alike two names must be (Jaro-Winkler) for one to be taken for the other.
const ALIKE: f64 = 0.86;

/// Something that makes an object unacceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: Path,
    /// What, as a sentence that names the path.
    pub message: String,
    /// What to do instead, where we know.
    pub hint: Option<String>,
}

/// A field that is stored and does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub path: Path,
    /// What, as a sentence that names the path.
    pub message: String,
}

/// All that can be said of an object's fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The fields that do what Kubernetes says they do: each that has a value of its own, not those that only hold others.
    pub honoured: Vec<Path>,
    /// The fields that do nothing.
    pub warnings: Vec<Warning>,
    /// What makes the object unacceptable.
    pub problems: Vec<Problem>,
}

/// Looks at every field of an object, as [`check`] does, and says of each what is done with it.
#[must_use]
pub fn survey(object: &Object) -> Survey {
    let kind = Kind::of(object.api_version(), object.kind());
    let Some(row) = kind.and_then(|kind| TABLE.of(kind)) else {
        return Survey { problems: vec![not_served(object)], ..Survey::default() };
    };
    let mut check = Check { honoured: Some(Vec::new()), ..Check::default() };
    check.fields(object.as_map(), row);
    Survey { honoured: check.honoured.unwrap_or_default(), warnings: check.warnings, problems: check.problems }
}

/// Checks that every field of an object is known, has the right type and is not refused. What the server sets (`status`, uid …) is
/// not looked into; whether values make sense together is not asked here.
///
/// # Errors
/// If the object's kind is not served, or with everything that is wrong with its fields, at most [`MAX_PROBLEMS`].
pub fn check(object: &Object) -> Result<Vec<Warning>, Vec<Problem>> {
    let kind = Kind::of(object.api_version(), object.kind());
    let Some(row) = kind.and_then(|kind| TABLE.of(kind)) else {
        return Err(vec![not_served(object)]);
    };
    let mut check = Check::default();
    check.fields(object.as_map(), row);
    if check.problems.is_empty() { Ok(check.warnings) } else { Err(check.problems) }
}

fn not_served(object: &Object) -> Problem {
    let (version, kind) = (object.api_version(), object.kind());
    let served = super::kinds().find(|row| row.kind == kind).or_else(|| {
        let alike = |row: &&Kind| strsim::jaro_winkler(&row.kind.to_lowercase(), &kind.to_lowercase());
        super::kinds().filter(|row| alike(row) >= ALIKE).max_by(|a, b| alike(a).total_cmp(&alike(b)))
    });
    let hint = served.map_or_else(
        || format!("the kinds are {}", super::kinds().map(|row| row.kind).collect::<Vec<_>>().join(", ")),
        |row| format!("did you mean kind `{}` of apiVersion `{}`?", row.kind, row.api_version()),
    );
    Problem {
        path: Path(vec![Step::Field("kind".to_owned())]),
        message: format!("kind `{}` of apiVersion `{}` is not served here", shown(kind), shown(version)),
        hint: Some(hint),
    }
}

#[derive(Default)]
struct Check {
    path: Path,
    /// The types of the objects the walk is in, outermost first.
    within: Vec<&'static TypeRow>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    /// The honoured fields, for whoever asks for them.
    honoured: Option<Vec<Path>>,
}

impl Check {
    fn fields(&mut self, map: &Map<String, Value>, row: &'static TypeRow) {
        self.within.push(row);
        for (name, value) in map {
            self.step(Step::Field(name.clone()), |check| match row.fields.get(name.as_str()) {
                None => check.unknown(name, row),
                Some(_) if value.is_null() => {} // as if it were not there
                Some(field)
                    if field.rule.beside.is_some_and(|other| map.get(other).is_some_and(|other| !other.is_null())) =>
                {
                    check.value(value, &field.type_, false);
                }
                Some(field) => check.field(value, field),
            });
        }
        for (name, _) in row.fields.iter().filter(|(_, field)| field.required) {
            if map.get(*name).is_none_or(Value::is_null) {
                self.step(Step::Field((*name).to_owned()), |check| {
                    let hint = format!("add `{name}`");
                    check.problem(|path| format!("`{path}` is missing: {} requires it", row.name), Some(hint));
                });
            }
        }
        self.within.pop();
    }

    fn field(&mut self, value: &Value, field: &'static FieldRow) {
        match field.rule.label {
            Label::Server => return,
            Label::Honoured => {}
            Label::Warned | Label::Refused => self.judge(value, &field.rule),
        }
        if let Value::Object(map) = value
            && !field.keys.is_empty()
        {
            for (key, value) in map {
                if let Some((_, rule)) = field.keys.iter().find(|(prefix, _)| key.starts_with(prefix)) {
                    self.step(Step::Key(key.clone()), |check| check.judge(value, rule));
                }
            }
        }
        let below = field.rule.label == Label::Honoured;
        let holds_others = field.type_.innermost().is_some_and(|(name, _)| TABLE.types.contains_key(name));
        if below
            && !holds_others
            && let Some(honoured) = &mut self.honoured
        {
            honoured.push(self.path.clone());
        }
        self.value(value, &field.type_, below);
    }

    /// Warns about a value or refuses it, unless it asks for nothing.
    fn judge(&mut self, value: &Value, rule: &'static Rule) {
        let passes = |text: &str| rule.unless.contains(&text);
        let culprit = match value {
            Value::Null => return,
            Value::Bool(value) if passes(if *value { "true" } else { "false" }) => return,
            Value::Number(number) if passes(&number.to_string()) => return,
            Value::String(text) if text.is_empty() || passes(text) => return,
            Value::Array(items) if items.is_empty() => return,
            Value::Object(map) if map.is_empty() => return,
            Value::Array(items) if !rule.unless.is_empty() => {
                let Some(item) = items.iter().filter_map(Value::as_str).find(|item| !passes(item)) else { return };
                format!(": {}", shown(item))
            }
            Value::Object(map) if !rule.unless.is_empty() => {
                let Some(key) = map.keys().find(|key| !passes(key)) else { return };
                format!(": {}", shown(key))
            }
            Value::String(text) if !rule.unless.is_empty() => format!(": {}", shown(text)),
            Value::Bool(value) if !rule.unless.is_empty() => format!(": {value}"),
            Value::Number(number) if !rule.unless.is_empty() => format!(": {number}"),
            _ => String::new(),
        };
        if rule.label == Label::Refused {
            self.problem(|path| format!("`{path}{culprit}` is refused: {}", rule.reason), rule.hint.map(str::to_owned));
        } else if self.warnings.len() < MAX_PROBLEMS {
            let message = format!("`{}{culprit}` is stored but not honoured: {}", self.path, rule.reason);
            self.warnings.push(Warning { path: self.path.clone(), message });
        }
    }

    /// Checks a value against its type; `below` an honoured field, the labels of its fields too.
    fn value(&mut self, value: &Value, type_: &'static Type, below: bool) {
        match (type_, value) {
            (Type::List(item_type), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.step(Step::Index(index), |check| check.value(item, item_type, below));
                }
            }
            (Type::Map(value_type), Value::Object(map)) => {
                for (key, value) in map {
                    self.step(Step::Key(key.clone()), |check| check.value(value, value_type, below));
                }
            }
            (Type::Object(name), Value::Object(map)) => {
                if below && let Some(row) = TABLE.types.get(name) {
                    self.fields(map, row);
                }
            }
            (Type::Int32, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_err()) => {
                let hint = format!("the least is {}, the greatest {}", i32::MIN, i32::MAX);
                self.problem(|path| format!("`{path}: {number}` is beyond 32 bits"), Some(hint));
            }
            (Type::Int64 | Type::Int32 | Type::IntOrString, Value::Number(number)) if number.is_i64() => {}
            (Type::Bytes, Value::String(text)) => {
                if BASE64.decode(text.as_bytes()).is_err() {
                    let hint = "plain text goes into `stringData` of a Secret, or `data` of a ConfigMap".to_owned();
                    self.problem(|path| format!("`{path}` must be base64"), Some(hint));
                }
            }
            (Type::Quantity, Value::String(text)) => self.quantity(text),
            (Type::Quantity, Value::Number(number)) => self.quantity(&number.to_string()),
            (Type::Any, _)
            | (Type::String | Type::IntOrString | Type::Time, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => {}
            _ => {
                let wanted = type_.article();
                self.problem(|path| format!("`{path}` must be {wanted}, not {}", described(value)), cure(value, type_));
            }
        }
    }

    fn quantity(&mut self, text: &str) {
        if let Err(error) = text.parse::<Quantity>() {
            self.problem(
                |path| format!("`{path}` must be a quantity: {}", one_line(&error.to_string(), SENTENCE)),
                example(&Type::Quantity).map(str::to_owned),
            );
        }
    }

    fn unknown(&mut self, name: &str, row: &'static TypeRow) {
        let outer = self.within.iter().rev().skip(1).find(|outer| outer.fields.contains_key(name));
        let inner = row.fields.iter().find_map(|(field, found)| {
            let (inner, _) = found.type_.innermost()?;
            let found = TABLE.types.get(inner)?.fields.contains_key(name) && found.rule.label == Label::Honoured;
            found.then_some(field)
        });
        let alike = |field: &&str| strsim::jaro_winkler(&field.to_lowercase(), &name.to_lowercase());
        let closest = row
            .fields
            .iter()
            .filter(|(_, found)| found.rule.label != Label::Server)
            .map(|(field, _)| *field)
            .filter(|field| name.len() <= 64 && alike(field) >= ALIKE)
            .max_by(|a, b| alike(a).total_cmp(&alike(b)));
        let hint = match (outer, inner, closest) {
            (Some(outer), ..) => Some(format!("`{name}` is a field of {}: check the indentation", outer.name)),
            (None, Some(field), _) => Some(format!("`{name}` stands below `{field}`: check the indentation")),
            (None, None, Some(field)) => Some(format!("did you mean `{field}`?")),
            (None, None, None) => None,
        };
        self.problem(|path| format!("`{path}` is not a field of {}", row.name), hint);
    }

    fn step(&mut self, step: Step, visit: impl FnOnce(&mut Self)) {
        if self.problems.len() < MAX_PROBLEMS {
            self.path.0.push(step);
            visit(self);
            self.path.0.pop();
        }
    }

    fn problem(&mut self, message: impl FnOnce(&Path) -> String, hint: Option<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: self.path.clone(), message: message(&self.path), hint });
        }
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// What to write instead of a value of the wrong type.
fn cure(value: &Value, type_: &Type) -> Option<String> {
    match (type_, value) {
        (Type::String, Value::Bool(_)) => Some(
            "put it in quotes: without them YAML takes y, yes, on and true for true, and n, no, off and false for false".to_owned(),
        ),
        (Type::String, Value::Null) => Some("for an empty text write \"\"".to_owned()),
        (Type::String, Value::Number(_)) => Some("put it in quotes".to_owned()),
        (Type::Int32 | Type::Int64 | Type::Number, Value::String(text)) if text.parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: {}", shown(text)))
        }
        (Type::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            Some(format!("write it without quotes: {text}"))
        }
        (Type::Object(_) | Type::Map(_), Value::Array(_)) => Some("leave out the `- `".to_owned()),
        _ => Some(example(type_)?.to_owned()),
    }
}

/// How a value of a type is written.
const fn example(type_: &Type) -> Option<&'static str> {
    match type_ {
        Type::Any => None,
        Type::String | Type::Time | Type::Bytes => Some("write one text in its place"),
        Type::Int32 | Type::Int64 => Some("write a whole number, without quotes: 3"),
        Type::Number => Some("write a number, without quotes: 0.5"),
        Type::Boolean => Some("write true or false, without quotes"),
        Type::IntOrString => Some("write a whole number or one text in its place"),
        Type::Quantity => Some("write it as 2, 500m or 64Mi"),
        Type::List(_) => Some("begin each item with `- `"),
        Type::Map(_) | Type::Object(_) => Some("write `name: value` below it, further to the right"),
    }
}
