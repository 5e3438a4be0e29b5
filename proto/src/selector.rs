//! Which objects are meant: by label (`app=web,tier in (a,b),!x`, or a `LabelSelector`) and by field (`spec.nodeName=n1`).
//!
//! Grammar and meaning are those of `k8s.io/apimachinery/pkg/labels` and `pkg/fields`: requirements are joined by "and"; `!=` and `notin`
//! also hold for what has no such label; a selector without requirements selects everything.
//!
//! Invariant: parsing takes time and memory in proportion to a text of at most [`MAX_LENGTH`] bytes.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use thiserror::Error;

use crate::{kinds::Kind, object::Object};

mod parse;

/// The longest selector as text, in bytes.
pub const MAX_LENGTH: usize = 16 << 10;

/// Selects by label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    label: String,
    operator: Operator,
}

/// What must hold for a label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// Selects by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    equal: bool,
    value: String,
}

/// Why a text or a `LabelSelector` is no selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Too long.
    #[error("a selector has at most {MAX_LENGTH} bytes, this one has {0}")]
    Length(usize),
    /// Something else was expected.
    #[error("at character {position} of `{text}`: expected {expected}, found {found}")]
    Expected {
        /// The whole text.
        text: String,
        /// Where, counted in characters from 1.
        position: usize,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// The label's name cannot be one.
    #[error(
        "`{0}` is no label name: at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends, and perhaps a DNS name and `/` before"
    )]
    Label(String),
    /// The value cannot be one of a label.
    #[error(
        "`{value}` is no value of the label `{label}`: at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends"
    )]
    Value {
        /// The label.
        label: String,
        /// The value.
        value: String,
    },
    /// The value to compare with is no whole number.
    #[error("`{value}` cannot be compared with the label `{label}`: it is no whole number")]
    Number {
        /// The label.
        label: String,
        /// The value.
        value: String,
    },
    /// There is no such operator.
    #[error("`{0}` is no operator: use In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// An operator got too many or too few values.
    #[error("{operator} on the label `{label}` takes {takes}")]
    Values {
        /// The label.
        label: String,
        /// The operator.
        operator: String,
        /// How many values it takes.
        takes: &'static str,
    },
    /// Objects of this kind cannot be selected by this field.
    #[error("{kind} cannot be selected by `{field}`: use one of {known}")]
    Field {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// The fields that can be used.
        known: String,
    },
}

impl Selector {
    /// Reads a selector as users write it: `app=web,tier in (a,b),!x`. The empty text selects everything.
    ///
    /// # Errors
    /// If it is longer than [`MAX_LENGTH`] or no selector; the error names the position.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = parse::labels(text)?;
        Ok(Self { requirements })
    }

    /// Selects what has all these labels, as a service's `spec.selector` does.
    #[must_use]
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equals = |(label, value): (&str, &str)| Requirement {
            label: label.to_owned(),
            operator: Operator::In(vec![value.to_owned()]),
        };
        Self { requirements: labels.into_iter().map(equals).collect() }
    }

    /// Takes a `LabelSelector`, as the `spec.selector` of a deployment is one. An empty one selects everything; a missing one nothing, which
    /// is the caller's to know.
    ///
    /// # Errors
    /// If an expression has an unknown operator, the wrong number of values, or an impossible label.
    pub fn of_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (label, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(label, "In", std::slice::from_ref(value))?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.as_deref().unwrap_or_default();
            if !matches!(expression.operator.as_str(), "In" | "NotIn" | "Exists" | "DoesNotExist") {
                return Err(SelectorError::Operator(expression.operator.clone()));
            }
            requirements.push(Requirement::new(&expression.key, &expression.operator, values)?);
        }
        Ok(Self { requirements })
    }

    /// Whether it selects whatever has these labels: `label` looks one up by its name.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(label(&requirement.label)))
    }

    /// Whether it selects an object.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        self.matches(|name| object.label(name))
    }

    /// Whether it has no requirement, and so selects everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl Requirement {
    /// A requirement in the words of `matchExpressions`: `In`, `NotIn`, `Exists`, `DoesNotExist`, and node affinity's `Gt` and `Lt`.
    ///
    /// # Errors
    /// If the operator is unknown, has the wrong number of values, or the label or a value cannot be one.
    pub fn new(label: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        let wrong = |takes| SelectorError::Values { label: label.to_owned(), operator: operator.to_owned(), takes };
        if !is_label_name(label) {
            return Err(SelectorError::Label(label.to_owned()));
        }
        if let Some(value) = values.iter().find(|value| !is_label_value(value)) {
            return Err(SelectorError::Value { label: label.to_owned(), value: value.clone() });
        }
        let number = || match values {
            [value] => {
                value.parse().map_err(|_| SelectorError::Number { label: label.to_owned(), value: value.clone() })
            }
            _ => Err(wrong("one value")),
        };
        let operator = match operator {
            "In" | "NotIn" if values.is_empty() => return Err(wrong("at least one value")),
            "Exists" | "DoesNotExist" if !values.is_empty() => return Err(wrong("no values")),
            "In" => Operator::In(values.to_vec()),
            "NotIn" => Operator::NotIn(values.to_vec()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan(number()?),
            "Lt" => Operator::LessThan(number()?),
            _ => return Err(SelectorError::Operator(operator.to_owned())),
        };
        Ok(Self { label: label.to_owned(), operator })
    }

    /// The label it looks at.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it holds for a label's value, or for its absence.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|allowed| allowed == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|forbidden| forbidden != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let label = &requirement.label;
            formatter.write_str(if index == 0 { "" } else { "," })?;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => write!(formatter, "{label}={}", values.concat()),
                Operator::NotIn(values) if values.len() == 1 => write!(formatter, "{label}!={}", values.concat()),
                Operator::In(values) => write!(formatter, "{label} in ({})", values.join(",")),
                Operator::NotIn(values) => write!(formatter, "{label} notin ({})", values.join(",")),
                Operator::Exists => formatter.write_str(label),
                Operator::DoesNotExist => write!(formatter, "!{label}"),
                Operator::GreaterThan(bound) => write!(formatter, "{label}>{bound}"),
                Operator::LessThan(bound) => write!(formatter, "{label}<{bound}"),
            }?;
        }
        Ok(())
    }
}

impl FieldSelector {
    /// Reads a selector as users write it: `metadata.name=x,spec.nodeName!=y`; `\` before `,`, `=` or `\` takes it as it is. The empty text
    /// selects everything.
    ///
    /// # Errors
    /// If it is longer than [`MAX_LENGTH`] or no selector; the error names the position.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = parse::fields(text)?;
        Ok(Self { requirements })
    }

    /// Checks that objects of this kind can be selected by these fields, as Kubernetes would.
    ///
    /// # Errors
    /// With the first field they cannot be selected by.
    pub fn check(&self, kind: &Kind) -> Result<(), SelectorError> {
        let known = selectable(kind);
        match self.requirements.iter().find(|requirement| !known.contains(&requirement.path.as_str())) {
            None => Ok(()),
            Some(requirement) => Err(SelectorError::Field {
                kind: kind.plural.to_owned(),
                field: requirement.path.clone(),
                known: known.join(", "),
            }),
        }
    }

    /// Whether it selects an object. A field that is missing counts as empty.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        self.requirements.iter().all(|requirement| {
            let path: Vec<&str> = requirement.path.split('.').collect();
            let found = match object.at(&path) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            (found == requirement.value) == requirement.equal
        })
    }
}

/// The fields by which objects of a kind can be selected, as in Kubernetes.
#[must_use]
pub fn selectable(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.plural) {
        ("", "pods") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.hostNetwork",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.nominatedNodeName",
            "status.phase",
            "status.podIP",
        ],
        ("", "events") => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.apiVersion",
            "involvedObject.fieldPath",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.resourceVersion",
            "involvedObject.uid",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "nodes") => &["metadata.name", "spec.unschedulable"],
        ("", "namespaces") => &["metadata.name", "status.phase"],
        ("", "secrets") => &["metadata.name", "metadata.namespace", "type"],
        ("", "services") => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        ("apps", "replicasets") => &["metadata.name", "metadata.namespace", "status.replicas"],
        _ if kind.namespaced => &["metadata.name", "metadata.namespace"],
        _ => &["metadata.name"],
    }
}

/// Whether a text can name a label: `[dns-name/]name`.
#[must_use]
pub fn is_label_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_dns_name = |prefix: &str| {
        let fits = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(fits) && !part.starts_with('-') && !part.ends_with('-')
            })
    };
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_name)
}

/// Whether a text can be a label's value.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let ends = |letter: &u8| letter.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_none_or(ends)
        && bytes.last().is_none_or(ends)
        && bytes.iter().all(|letter| ends(letter) || b"-_.".contains(letter))
}

#[cfg(test)]
mod tests;
