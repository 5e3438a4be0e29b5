//! What was sent → an object of a kind we serve: limits, strictness, names, and what only the cluster may set is left out.
//!
//! Invariant: a size is compared with its limit before the bytes are parsed, and every field is one the schema knows.

use quorate_proto::{
    kinds::{Access, Kind},
    object::{MAX_OBJECT, Object, ObjectError},
    refusal::{Reason, Refusal},
    request::Reference,
    schema,
    txn::{Document, Revision},
    world::Random,
};
use serde_json::Value;

use crate::{
    access, default,
    message::{Problem, Subject, Verb, cut, unknown_kind},
    metadata,
    pipeline::Moment,
};

/// The longest name a generated one is made from, in bytes: with its suffix it must still be a label.
const MAX_GENERATE_NAME: usize = 58;

/// How many characters `generateName` appends.
const SUFFIX: usize = 5;

/// An object as someone sent it, without what only the cluster may set. Fields may still be `null`.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) kind: &'static Kind,
    pub(crate) subject: Subject,
    pub(crate) object: Object,
    pub(crate) warnings: Vec<String>,
    /// `metadata.resourceVersion`, if the sender insists on one.
    pub(crate) seen: Option<Revision>,
}

/// Reads a whole object.
pub(crate) fn object(verb: Verb, document: &Document, moment: &Moment<'_>) -> Result<Incoming, Refusal> {
    let mut value = json(&Subject::unknown(verb), "the object", document)?;
    let kind = kind_of(verb, &value)?;
    name(verb, kind, &mut value, moment)?;
    let named = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let subject = Subject::new(verb, kind, named);
    let mut object = Object::from_value(value).map_err(|error| malformed(&subject, &error))?;
    access::kind_allows(verb, kind, &subject)?;
    place(kind, &subject, &mut object)?;
    let seen = resource_version(&subject, &object)?;
    metadata::strip(&mut object);
    let warnings = check(&object).map_err(|problems| subject.invalid(&problems))?;
    let mut value = object.into_value();
    default::fold(kind, &mut value);
    let object = Object::from_value(value).map_err(|error| malformed(&subject, &error))?;
    Ok(Incoming { kind, subject, object, warnings, seen })
}

/// Reads a merge patch, and warns of what it says in vain.
pub(crate) fn patch(kind: &Kind, subject: &Subject, document: &Document) -> Result<(Value, Vec<String>), Refusal> {
    let mut patch = json(subject, "the patch", document)?;
    let Value::Object(fields) = &mut patch else {
        return Err(subject.refuse(Reason::BadRequest, "a merge patch is a map (RFC 7386)"));
    };
    let mut warnings = Vec::new();
    if fields.remove("status").is_some() {
        warnings.push("`status` is set by the cluster: it was left as it is".to_owned());
    }
    default::fold(kind, &mut patch);
    Ok((patch, warnings))
}

/// Checks what a patch made of an object: still the same object, and nothing wrong with it that was not wrong before, as fields are
/// that a newer version wrote.
pub(crate) fn patched(subject: &Subject, before: &Object, after: &Object) -> Result<Vec<String>, Refusal> {
    let identity = |object: &Object| {
        [object.api_version(), object.kind(), object.name(), object.namespace().unwrap_or_default()].map(str::to_owned)
    };
    if identity(before) != identity(after) {
        let because = "a patch changes neither `apiVersion` nor `kind`, `metadata.name` or `metadata.namespace`";
        return Err(subject.refuse(Reason::Invalid, because));
    }
    let known = check(before);
    match check(after) {
        Ok(warnings) => {
            let known = known.unwrap_or_default();
            Ok(warnings.into_iter().filter(|warning| !known.contains(warning)).collect())
        }
        Err(mut problems) => {
            let known = known.err().unwrap_or_default();
            problems.retain(|problem| !known.contains(problem));
            if problems.is_empty() { Ok(Vec::new()) } else { Err(subject.invalid(&problems)) }
        }
    }
}

/// The kind and the subject a reference means.
pub(crate) fn reference(verb: Verb, reference: &Reference) -> Result<(&'static Kind, Subject), Refusal> {
    let kind = served(verb, &reference.kind)?;
    let subject = Subject::new(verb, kind, &reference.name);
    if reference.name.is_empty() {
        return Err(subject.refuse(Reason::BadRequest, format!("the name of the {} is missing", kind.singular)));
    }
    Ok((kind, subject))
}

/// The kind that goes by a name a user may write.
pub(crate) fn served(verb: Verb, written: &str) -> Result<&'static Kind, Refusal> {
    Kind::named(written)
        .filter(|kind| kind.access != Access::Internal)
        .ok_or_else(|| unknown_kind(&Subject::unknown(verb), written))
}

/// The revision the sender saw, if it says so.
pub(crate) fn resource_version(subject: &Subject, object: &Object) -> Result<Option<Revision>, Refusal> {
    match object.at(&["metadata", "resourceVersion"]) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
            Ok(revision) => Ok(Some(Revision(revision))),
            Err(_) => Err(not_a_revision(subject, text)),
        },
        Some(other) => Err(not_a_revision(subject, &other.to_string())),
    }
}

fn not_a_revision(subject: &Subject, text: &str) -> Refusal {
    subject.refuse(Reason::BadRequest, format!("`metadata.resourceVersion` is a number in quotes, not `{}`", cut(text)))
}

fn json(subject: &Subject, what: &str, document: &Document) -> Result<Value, Refusal> {
    let size = document.0.len();
    if size > MAX_OBJECT {
        let because = format!("{what} has {size} bytes, the limit is {MAX_OBJECT} (1.5 MiB)");
        return Err(subject.refuse(Reason::TooLarge, because));
    }
    serde_json::from_slice(&document.0)
        .map_err(|error| subject.refuse(Reason::BadRequest, format!("{what} is not JSON: {error}")))
}

fn malformed(subject: &Subject, error: &ObjectError) -> Refusal {
    subject.refuse(Reason::Invalid, error.to_string())
}

fn kind_of(verb: Verb, value: &Value) -> Result<&'static Kind, Refusal> {
    let subject = Subject::unknown(verb);
    let text = |field: &'static str| match value.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        _ => Err(subject.refuse(Reason::Invalid, format!("`{field}` is missing or not a string"))),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    if let Some(found) = Kind::of(api_version, kind).filter(|kind| kind.access != Access::Internal) {
        return Ok(found);
    }
    let meant = Kind::named(kind).filter(|meant| meant.access != Access::Internal);
    Err(match meant {
        Some(meant) => subject
            .refuse(
                Reason::BadRequest,
                format!("`{}` of `{}` is no kind that this cluster serves", cut(kind), cut(api_version)),
            )
            .hint(format!("write `apiVersion: {}` and `kind: {}`", meant.api_version(), meant.kind)),
        None => unknown_kind(&subject, kind),
    })
}

/// Makes the name of an object that only says how it begins.
fn name(verb: Verb, kind: &Kind, value: &mut Value, moment: &Moment<'_>) -> Result<(), Refusal> {
    let Some(Value::Object(metadata)) = value.get_mut("metadata") else { return Ok(()) };
    if metadata.get("name").is_some_and(|name| name.as_str() != Some("") && !name.is_null()) {
        return Ok(());
    }
    let Some(base) = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned) else { return Ok(()) };
    let subject = Subject::new(verb, kind, &base);
    if verb != Verb::Create {
        let because = "`metadata.generateName` makes a new name each time, so the object has none yet";
        return Err(subject.refuse(Reason::Invalid, because).hint("create it, or give it a `metadata.name`"));
    }
    let end = base.char_indices().map(|(index, _)| index).take_while(|index| *index <= MAX_GENERATE_NAME).last();
    let base = if base.len() <= MAX_GENERATE_NAME { base.as_str() } else { &base[..end.unwrap_or_default()] };
    metadata.insert("name".to_owned(), format!("{base}{}", moment.chance().suffix(SUFFIX)).into());
    Ok(())
}

/// Puts the object where it belongs: `default` if it names no namespace.
fn place(kind: &Kind, subject: &Subject, object: &mut Object) -> Result<(), Refusal> {
    let namespace = object.at(&["metadata", "namespace"]);
    match namespace {
        None | Some(Value::Null) if kind.namespaced => object.set(&["metadata", "namespace"], "default"),
        Some(Value::String(text)) if text.is_empty() && kind.namespaced => {
            object.set(&["metadata", "namespace"], "default");
        }
        Some(Value::String(text)) if !text.is_empty() && !kind.namespaced => {
            let because = format!("a {} is in no namespace: `metadata.namespace` must not be set", kind.singular);
            return Err(subject.refuse(Reason::Invalid, because));
        }
        _ => {}
    }
    if !kind.namespaced {
        object.unset(&["metadata", "namespace"]);
    }
    kind.key(object.namespace(), object.name()).map(|_| ()).map_err(|error| {
        subject.refuse(Reason::Invalid, format!("`metadata` names nothing that can be stored: {error}"))
    })
}

/// The strict walk over all fields: refuses what is unknown, mistyped or not served, warns about what is not honoured.
fn check(object: &Object) -> Result<Vec<String>, Vec<Problem>> {
    match schema::check(object) {
        Ok(warnings) => Ok(warnings.into_iter().map(|warning| warning.message).collect()),
        Err(problems) => {
            Err(problems.into_iter().map(|problem| Problem { text: problem.message, hint: problem.hint }).collect())
        }
    }
}
