//! Reads manifests: YAML or JSON text → objects, checked against the schema, with file and line in every error.
//!
//! JSON is read as the YAML it is. A `List` is taken apart; empty documents are skipped. Scalars are those of YAML 1.1, as in
//! Kubernetes: `yes` and `on` are true, `0644` is octal. Anchors, aliases and merge keys are refused: a few lines of them can unfold
//! into gigabytes, and an object says more when it is written out.
//!
//! Invariant: a text is either read whole or refused; every limit is checked before memory is taken for what is beyond it.

mod error;
mod yaml;

use serde_json::Value;

use crate::{
    object::{Object, ObjectError},
    schema::{self, Path, Problem, Step, Survey, Warning},
};

pub use self::error::{Flaw, ManifestError};
use self::yaml::Place;

/// The largest manifest file, in bytes.
pub const MAX_BYTES: usize = 3 << 19;

/// The most documents in a file, and the most objects.
pub const MAX_DOCUMENTS: usize = 1_000;

/// How deep lists and maps may stand in each other.
pub const MAX_DEPTH: usize = 64;

/// The most values (scalars, lists, maps) in a file.
pub const MAX_VALUES: usize = 250_000;

/// An object from a manifest.
#[derive(Debug, Clone)]
pub struct ManifestObject {
    /// The object, as it was written. Nothing is defaulted.
    pub object: Object,
    /// Where it begins.
    pub origin: Origin,
    /// Fields that are stored and do nothing.
    pub warnings: Vec<Warning>,
    place: Place,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was given.
    pub file: String,
    /// The line, counted from 1.
    pub line: u64,
}

impl ManifestObject {
    /// The line of a field: of its name, or of its item in a list. A field that is not there has the line of what it belongs into.
    #[must_use]
    pub fn line(&self, path: &Path) -> u64 {
        self.place.line(path)
    }

    /// Where a field stands: `web.yaml:14`.
    #[must_use]
    pub fn locate(&self, path: &Path) -> Origin {
        Origin { file: self.origin.file.clone(), line: self.line(path) }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// What can be said of an object in a manifest, acceptable or not.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// What messages call it: `deployment.apps/web`; `None` if it has no name or kind.
    pub name: Option<String>,
    /// The object, if it is one.
    pub object: Option<Object>,
    /// Where it begins.
    pub origin: Origin,
    /// What is done with its fields.
    pub survey: Survey,
    place: Place,
}

impl Surveyed {
    /// Where a field stands: `web.yaml:14`.
    #[must_use]
    pub fn locate(&self, path: &Path) -> Origin {
        Origin { file: self.origin.file.clone(), line: self.place.line(path) }
    }
}

/// Looks at all objects of a file, and says what is done with each of their fields; those that are not acceptable too.
///
/// # Errors
/// If the text is beyond a limit, as in [`read`], or neither YAML nor JSON.
pub fn survey(text: &str, file: &str) -> Result<Vec<Surveyed>, ManifestError> {
    let mut surveyed = Vec::new();
    for (value, place) in yaml::documents(text, file)? {
        flatten(value, place, &mut |value, place| {
            let (name, origin) = (named(&value), Origin { file: file.to_owned(), line: place.first_line() });
            let (object, survey) = match Object::from_value(value) {
                Ok(object) => {
                    let survey = schema::survey(&object);
                    (Some(object), survey)
                }
                Err(error) => {
                    let (path, message, hint) = flaw_of(&error);
                    let problem = Problem { path, message, hint: hint.map(str::to_owned) };
                    (None, Survey { problems: vec![problem], ..Survey::default() })
                }
            };
            surveyed.push(Surveyed { name, object, origin, survey, place });
        });
    }
    if surveyed.len() > MAX_DOCUMENTS {
        return Err(ManifestError::TooManyObjects { file: file.to_owned(), objects: surveyed.len() });
    }
    Ok(surveyed)
}

/// Reads all objects of a file, in the order in which they stand there. `file` is what errors call it.
///
/// # Errors
/// If the text is beyond a limit ([`MAX_BYTES`], [`MAX_DOCUMENTS`], [`MAX_DEPTH`], [`MAX_VALUES`]) or malformed, or with everything
/// that is wrong with any of its objects.
pub fn read(text: &str, file: &str) -> Result<Vec<ManifestObject>, ManifestError> {
    let mut objects = Vec::new();
    let mut flaws = Vec::new();
    for (value, place) in yaml::documents(text, file)? {
        flatten(value, place, &mut |value, place| match one(value, place, file) {
            Ok(object) => objects.push(object),
            Err(found) => flaws.extend(found),
        });
    }
    if objects.len() > MAX_DOCUMENTS {
        return Err(ManifestError::TooManyObjects { file: file.to_owned(), objects: objects.len() });
    }
    flaws.sort_by_key(|flaw| flaw.line);
    if flaws.is_empty() { Ok(objects) } else { Err(ManifestError::Objects { file: file.to_owned(), flaws }) }
}

/// Takes lists apart (`kind: List` of `apiVersion: v1`), also lists of lists.
fn flatten(mut value: Value, place: Place, found: &mut impl FnMut(Value, Place)) {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List");
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            let places = place.into_items("items");
            for (item, place) in items.into_iter().zip(places) {
                flatten(item, place, found);
            }
        }
        Some(items) => {
            value["items"] = items;
            found(value, place);
        }
        None => found(value, place),
    }
}

fn one(value: Value, place: Place, file: &str) -> Result<ManifestObject, Vec<Flaw>> {
    let name = named(&value);
    let origin = Origin { file: file.to_owned(), line: place.first_line() };
    let object = Object::from_value(value).map_err(|error| vec![no_object(&error, name.as_ref(), &place)])?;
    match schema::check(&object) {
        Ok(warnings) => Ok(ManifestObject { object, origin, warnings, place }),
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| Flaw {
                object: name.clone(),
                line: place.line(&problem.path),
                message: problem.message,
                hint: problem.hint,
            })
            .collect()),
    }
}

fn no_object(error: &ObjectError, name: Option<&String>, place: &Place) -> Flaw {
    let (path, message, hint) = flaw_of(error);
    Flaw { object: name.cloned(), line: place.line(&path), message, hint: hint.map(str::to_owned) }
}

/// Why a value is no object: where, what, and what to do.
fn flaw_of(error: &ObjectError) -> (Path, String, Option<&'static str>) {
    match error {
        ObjectError::Missing(field) => {
            let path = field.split('.').map(|name| Step::Field(name.to_owned())).collect();
            let hint = (*field == "metadata.name").then_some("every object in a manifest has a name of its own");
            (Path(path), error.to_string(), hint)
        }
        ObjectError::NotAMap(_) | ObjectError::Json(_) => {
            (Path::default(), error.to_string(), Some("a manifest begins with `apiVersion` and `kind`"))
        }
    }
}

/// What messages call an object: `deployment.apps/web`.
fn named(value: &Value) -> Option<String> {
    let text = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
    let (version, kind) = (text(value.get("apiVersion"))?, text(value.get("kind"))?);
    let name = text(value.get("metadata").and_then(|metadata| metadata.get("name")))?;
    let kind =
        crate::kinds::Kind::of(&version, &kind).map_or_else(|| kind.to_lowercase(), crate::kinds::Kind::qualified);
    Some(schema::shown(&format!("{kind}/{name}")))
}

#[cfg(test)]
mod tests;
