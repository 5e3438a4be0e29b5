//! Whether an object makes sense: what the schema cannot say, because it takes more than one field, or a grammar.
//!
//! Source: kubernetes `pkg/apis/core/validation/validation.go` and `pkg/apis/apps/validation/validation.go`, as far as fields are honoured.
//!
//! Invariant: all problems are named, not only the first; each names its field.

mod apps;
mod batch;
mod container;
mod core;
mod names;
mod pod;
mod rules;

use quorate_proto::{kinds::Kind, object::Object, selector::is_label_name, selector::is_label_value};
use serde::de::DeserializeOwned;

use crate::message::{Problem, cut};

/// Validates a whole object, with its defaults.
pub(crate) fn object(kind: &Kind, object: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    metadata(kind, object, &mut problems);
    match (kind.group, kind.kind) {
        ("", "Pod") => typed(object, &mut problems, pod::object),
        ("", "Service") => typed(object, &mut problems, core::service),
        ("", "ConfigMap") => typed(object, &mut problems, core::config_map),
        ("", "Secret") => typed(object, &mut problems, core::secret),
        ("", "Node") => typed(object, &mut problems, core::node),
        ("apps", "Deployment") => typed(object, &mut problems, apps::deployment),
        ("apps", "ReplicaSet") => typed(object, &mut problems, apps::replicaset),
        ("apps", "DaemonSet") => typed(object, &mut problems, apps::daemonset),
        ("batch", "Job") => typed(object, &mut problems, batch::job),
        ("batch", "CronJob") => {
            batch::template_of_jobs(object, &mut problems);
            typed(object, &mut problems, batch::cronjob);
        }
        _ => {}
    }
    problems
}

/// Validates what only matters while an object is made.
pub(crate) fn new_object(kind: &Kind, object: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    if (kind.group, kind.kind) == ("batch", "Job") {
        batch::new_job(object, &mut problems);
    }
    problems
}

/// Validates what a change does to fields that must not change.
pub(crate) fn change(kind: &Kind, stored: &Object, next: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    let added = next.finalizers().into_iter().find(|name| !stored.finalizers().contains(name));
    if let Some(name) = added.filter(|_| stored.deletion_timestamp().is_some()) {
        let sentence = format!("must not get `{}`: the object is being deleted", cut(name));
        problems.push(Problem::new("metadata.finalizers", sentence));
    }
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::change(stored, next, &mut problems),
        ("", "Service") => core::service_change(stored, next, &mut problems),
        ("", "Secret") => fixed(stored, next, &["type"], &mut problems),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            fixed(stored, next, &["spec", "selector"], &mut problems);
        }
        ("batch", "Job") => {
            for field in ["completions", "completionMode", "selector", "template"] {
                fixed(stored, next, &["spec", field], &mut problems);
            }
        }
        _ => {}
    }
    problems
}

/// A field that stays as it was when the object was made.
fn fixed(stored: &Object, next: &Object, path: &[&str], problems: &mut Vec<Problem>) {
    if stored.at(path) != next.at(path) {
        let problem = Problem::new(&path.join("."), "cannot be changed after creation");
        problems.push(problem.hint("delete the object and create it anew"));
    }
}

fn typed<T: DeserializeOwned>(object: &Object, problems: &mut Vec<Problem>, validate: fn(&T, &mut Vec<Problem>)) {
    match object.view::<T>() {
        Ok(view) => validate(&view, problems),
        Err(error) => problems.push(Problem { text: format!("the object cannot be read: {error}"), hint: None }),
    }
}

fn metadata(kind: &Kind, object: &Object, problems: &mut Vec<Problem>) {
    let name = object.name();
    let checked = match (kind.group, kind.kind) {
        ("", "Namespace") => names::label(name),
        ("", "Service") => names::label_1035(name),
        _ => names::subdomain(name),
    };
    if let Err(sentence) = checked {
        problems.push(Problem::new("metadata.name", sentence));
    }
    if let Some(Err(sentence)) = object.namespace().map(names::label) {
        problems.push(Problem::new("metadata.namespace", sentence));
    }
    labels("metadata.labels", object.labels(), problems);
    for key in object.strings(&["metadata", "annotations"]).into_keys() {
        if !is_label_name(&key.to_ascii_lowercase()) {
            let sentence = format!("has the key `{}`, which is no qualified name", cut(key));
            problems.push(Problem::new("metadata.annotations", sentence).hint(names::QUALIFIED));
        }
    }
    for name in object.finalizers() {
        if !name.contains('/') || !is_label_name(name) {
            let sentence = format!("has `{}`, which is no qualified name", cut(name));
            problems.push(Problem::new("metadata.finalizers", sentence).hint("write `example.com/cleanup`"));
        }
    }
    let owners = object.owners();
    if owners.iter().filter(|owner| owner.controller).count() > 1 {
        problems.push(Problem::new("metadata.ownerReferences", "has more than one owner with `controller: true`"));
    }
    if owners
        .iter()
        .any(|owner| [&owner.api_version, &owner.kind, &owner.name, &owner.uid].iter().any(|text| text.is_empty()))
    {
        problems.push(Problem::new(
            "metadata.ownerReferences",
            "needs `apiVersion`, `kind`, `name` and `uid` of each owner",
        ));
    }
}

fn labels<'a>(path: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>, problems: &mut Vec<Problem>) {
    for (key, value) in labels {
        if !is_label_name(key) {
            let sentence = format!("has the key `{}`, which is no qualified name", cut(key));
            problems.push(Problem::new(path, sentence).hint(names::QUALIFIED));
        }
        if !is_label_value(value) {
            let sentence = format!("has the value `{}` for `{}`, which is no label value", cut(value), cut(key));
            problems.push(Problem::new(path, sentence).hint(names::VALUE));
        }
    }
}
