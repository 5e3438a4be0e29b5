//! Lines of a description: `Name:  value`, nested fields, tables.
//!
//! Invariant: values that belong together stand under each other, and no line ends in a space.

use quorate_proto::{object::Object, world::Timestamp};
use serde_json::Value;

use crate::{age, commands::events, output::Aligned};

/// Where the values of top-level fields begin, as in `kubectl`.
const VALUES: usize = 18;

/// Where the values of fields further in begin.
const INNER_VALUES: usize = 20;

/// Fields whose keys are the user's words, not field names.
const MAPS: [&str; 8] =
    ["annotations", "binaryData", "data", "labels", "limits", "matchLabels", "nodeSelector", "requests"];

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    /// The text.
    pub(super) fn text(self) -> String {
        self.0
    }

    /// One line, some steps to the right.
    pub(super) fn line(&mut self, depth: usize, text: &str) {
        let line = format!("{}{text}", "  ".repeat(depth));
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    /// `Name:  value`, with the values of all such lines under each other.
    pub(super) fn pair(&mut self, depth: usize, name: &str, value: &str) {
        let width = if depth == 0 { VALUES } else { INNER_VALUES.saturating_sub(2 * depth) };
        let name = format!("{name}:");
        let mut values = value.lines();
        self.line(
            depth,
            &format!("{name:<width$}{}{}", if name.len() < width { "" } else { " " }, values.next().unwrap_or("")),
        );
        for more in values {
            self.line(depth, &format!("{:width$}{more}", ""));
        }
    }

    /// A map of strings, each on a line of its own.
    pub(super) fn map(&mut self, depth: usize, name: &str, value: Option<&Value>, separator: &str) {
        let pairs: Vec<_> = value
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration")
            .map(|(key, value)| format!("{key}{separator}{}", scalar(value)))
            .collect();
        self.pair(depth, name, &if pairs.is_empty() { "<none>".to_owned() } else { pairs.join("\n") });
    }

    /// What all objects have.
    pub(super) fn metadata(&mut self, object: &Object) {
        self.pair(0, "Name", object.name());
        if let Some(namespace) = object.namespace() {
            self.pair(0, "Namespace", namespace);
        }
        self.map(0, "Labels", object.at(&["metadata", "labels"]), "=");
        self.map(0, "Annotations", object.at(&["metadata", "annotations"]), ": ");
        if let Some(created) = object.creation_timestamp() {
            self.pair(0, "Created", created);
        }
        self.deletion(object);
        if let Some(owner) = object.controller() {
            self.pair(0, "Controlled By", &format!("{}/{}", owner.kind, owner.name));
        }
        if !object.finalizers().is_empty() {
            self.pair(0, "Finalizers", &object.finalizers().join("\n"));
        }
    }

    /// That an object is being deleted.
    pub(super) fn deletion(&mut self, object: &Object) {
        if let Some(since) = object.deletion_timestamp() {
            self.pair(0, "Status", &format!("Terminating (since {since})"));
        }
    }

    /// A field and all in it.
    pub(super) fn field(&mut self, name: &str, value: &Value) {
        self.within(0, name, value);
    }

    fn within(&mut self, depth: usize, field: &str, value: &Value) {
        let words = |map: &serde_json::Map<String, Value>| map.values().all(Value::is_string);
        let is_map = MAPS.contains(&field) || field == "selector";
        match value.as_object().filter(|map| is_map && words(map)) {
            Some(_) => self.map(depth, &title(field), Some(value), "="),
            None => self.nested(depth, &title(field), value),
        }
    }

    fn nested(&mut self, depth: usize, name: &str, value: &Value) {
        match value {
            Value::Object(map) if map.is_empty() => self.pair(depth, name, "{}"),
            Value::Object(map) => {
                self.line(depth, &format!("{name}:"));
                for (field, value) in map {
                    self.within(depth + 1, field, value);
                }
            }
            Value::Array(items) if items.is_empty() => self.pair(depth, name, "<none>"),
            Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
                self.pair(depth, name, &items.iter().map(scalar).collect::<Vec<_>>().join("\n"));
            }
            Value::Array(items) => {
                self.line(depth, &format!("{name}:"));
                for item in items {
                    self.item(depth + 1, item);
                }
            }
            value => self.pair(depth, name, &scalar(value)),
        }
    }

    /// An item of a list: under its name if it has one.
    fn item(&mut self, depth: usize, item: &Value) {
        match item {
            Value::Object(map) => {
                let name = map.get("name").map_or_else(|| "-".to_owned(), |name| format!("{}:", scalar(name)));
                self.line(depth, &name);
                for (field, value) in map.iter().filter(|(field, _)| *field != "name") {
                    self.within(depth + 1, field, value);
                }
            }
            item => self.line(depth, &scalar(item)),
        }
    }

    /// How large each value of a map is, and nothing else about it.
    pub(super) fn sizes(&mut self, name: &str, value: &Value) {
        self.line(0, &format!("{}:", title(name)));
        for (key, value) in value.as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let bytes = if name == "data" { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
            self.pair(1, key, &format!("{bytes} bytes"));
        }
    }

    /// The status: its conditions as a table, the rest as fields.
    pub(super) fn status(&mut self, status: &Value, now: Timestamp) {
        let fields = status.as_object().into_iter().flatten().filter(|(field, _)| *field != "conditions");
        let rest: serde_json::Map<_, _> = fields.map(|(field, value)| (field.clone(), value.clone())).collect();
        if !rest.is_empty() {
            self.nested(0, "Status", &Value::Object(rest));
        }
        self.conditions(status.get("conditions"), now);
    }

    /// Conditions, one a line.
    pub(super) fn conditions(&mut self, conditions: Option<&Value>, now: Timestamp) {
        let Some(Value::Array(conditions)) = conditions else { return };
        let mut rows = vec![["Type", "Status", "Since", "Reason", "Message"].map(str::to_owned).to_vec()];
        for condition in conditions {
            let text = |field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let since = match condition.get("lastTransitionTime") {
                Some(time) => age::since(time.as_str(), now),
                None => String::new(),
            };
            rows.push(vec![text("type"), text("status"), since, text("reason"), text("message")]);
        }
        self.line(0, "Conditions:");
        self.table(1, &rows);
    }

    /// What happened, oldest first.
    pub(super) fn events(&mut self, about: &[Object], now: Timestamp) {
        if about.is_empty() {
            return self.pair(0, "Events", "<none>");
        }
        let mut rows = vec![
            ["Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec(),
            ["----", "------", "----", "----", "-------"].map(str::to_owned).to_vec(),
        ];
        for event in about {
            let text = |path: &[&str]| event.text(path).unwrap_or_default().trim_end().to_owned();
            let from = event.text(&["source", "component"]).or_else(|| event.text(&["reportingComponent"]));
            let from = from.unwrap_or_default().to_owned();
            rows.push(vec![text(&["type"]), text(&["reason"]), events::seen(event, now), from, text(&["message"])]);
        }
        self.line(0, "Events:");
        self.table(1, &rows);
    }

    /// Rows, aligned.
    pub(super) fn table(&mut self, depth: usize, rows: &[Vec<String>]) {
        let mut bytes = Vec::new();
        // Writing to memory does not fail.
        if Aligned::default().print(rows, &mut bytes).is_ok() {
            for line in String::from_utf8_lossy(&bytes).lines() {
                self.line(depth, line);
            }
        }
    }
}

/// A value on one line.
pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        value => value.to_string(),
    }
}

/// `minReadySeconds` → `Min Ready Seconds`; what is no field name stays as it is.
fn title(field: &str) -> String {
    if !field.chars().all(char::is_alphanumeric) {
        return field.to_owned();
    }
    let mut title = String::new();
    let mut before = ' ';
    for (index, letter) in field.chars().enumerate() {
        if index == 0 {
            title.extend(letter.to_uppercase());
        } else {
            if letter.is_uppercase() && before.is_lowercase() {
                title.push(' ');
            }
            title.push(letter);
        }
        before = letter;
    }
    title
}
