//! Rules that many fields share. Each adds a problem that names the field.

use std::ops::RangeInclusive;

use quorate_proto::k8s::apimachinery::pkg::util::intstr::IntOrString;

use super::names;
use crate::message::{Problem, cut};

/// A port, by number or by name.
pub(super) fn target(path: &str, port: &IntOrString, problems: &mut Vec<Problem>) {
    match port {
        IntOrString::Int(port) => number(path, *port, 1..=65_535, problems),
        IntOrString::String(name) => {
            if let Err(sentence) = names::port(name) {
                problems.push(Problem::new(path, sentence));
            }
        }
    }
}

pub(super) fn one_of(path: &str, value: Option<&str>, known: &[&str], problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| !known.contains(value)) {
        let known = known.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        problems.push(Problem::new(path, format!("must be one of {known}, not `{}`", cut(value))));
    }
}

pub(super) fn not_negative(path: &str, value: Option<i64>, problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| *value < 0) {
        problems.push(Problem::new(path, format!("must not be negative, but is {value}")));
    }
}

pub(super) fn number(path: &str, value: i32, range: RangeInclusive<i32>, problems: &mut Vec<Problem>) {
    if !range.contains(&value) {
        problems.push(Problem::new(path, format!("must be from {} to {}, not {value}", range.start(), range.end())));
    }
}

/// Exactly one of the fields must be there.
pub(super) fn exactly_one(path: &str, fields: &[(&str, bool)], problems: &mut Vec<Problem>) {
    if fields.iter().filter(|(_, given)| *given).count() != 1 {
        let names = fields.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        problems.push(Problem::new(path, format!("needs exactly one of {names}")));
    }
}

/// A path below a directory that is not left again.
pub(super) fn relative(path: &str, value: &str, problems: &mut Vec<Problem>) {
    if value.is_empty() || value.starts_with('/') || value.split('/').any(|part| part == "..") {
        let sentence = format!("has the path `{}`: it must be relative and not contain `..`", cut(value));
        problems.push(Problem::new(path, sentence));
    }
}

/// A field of a pod that can be passed to its containers.
pub(super) fn pod_field(path: &str, field: &str, problems: &mut Vec<Problem>) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let keyed = ["metadata.labels", "metadata.annotations"].iter().any(|map| {
        let key =
            field.strip_prefix(map).and_then(|rest| rest.strip_prefix("['")).and_then(|rest| rest.strip_suffix("']"));
        field == *map || key.is_some_and(|key| !key.is_empty())
    });
    if !keyed && !FIELDS.contains(&field) {
        let problem = Problem::new(path, format!("is `{}`, which is no field that can be passed on", cut(field)));
        problems.push(problem.hint(format!(
            "the fields are {}, metadata.labels['KEY'], metadata.annotations['KEY']",
            FIELDS.join(", ")
        )));
    }
}
