//! Says of an object, without a cluster, what admission would refuse it for beyond its fields: names, grammars, what does not go together.
//!
//! Invariant: it is the same validation; only what depends on other objects or on the cluster is not asked.

use quorate_proto::{kinds::Kind, object::Object, patch::without_nulls};
use serde_json::Value;

use crate::{default, validate};

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A sentence that names the field.
    pub message: String,
    /// What to do instead, where we know.
    pub hint: Option<String>,
}

/// What is wrong with an object whose fields are acceptable. Nothing, if its kind is not known here.
#[must_use]
pub fn problems(object: &Object) -> Vec<Problem> {
    let Some(kind) = Kind::of(object.api_version(), object.kind()) else { return Vec::new() };
    let mut value = Value::Object(object.as_map().clone());
    default::fold(kind, &mut value);
    let Ok(mut object) = Object::from_value(without_nulls(&value)) else { return Vec::new() };
    default::fill(kind, &mut object);
    let mut problems = validate::new_object(kind, &object);
    problems.extend(validate::object(kind, &object));
    problems.into_iter().map(|problem| Problem { message: problem.text, hint: problem.hint }).collect()
}
