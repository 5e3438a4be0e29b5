//! What runs on a node, and how much of it that takes, as `kubectl describe node` lays it out.
//!
//! Invariant: a pod counts with what it requests until it has ended, as it does for the scheduler.

use std::collections::BTreeMap;

use quorate_proto::{object::Object, quantity::Quantity, world::Timestamp};
use serde_json::Value;

use super::fields::Lines;
use crate::age;

/// What is added up, in this order.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Whether a pod has ended, and takes nothing any more.
fn has_ended(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), Some("Succeeded" | "Failed"))
}

/// The pods of a node, and what they request and may take.
pub(super) fn describe(node: &Object, pods: &[Object], now: Timestamp, lines: &mut Lines) {
    let mut pods: Vec<_> = pods.iter().filter(|pod| !has_ended(pod)).collect();
    pods.sort_by_key(|pod| (pod.namespace().unwrap_or_default().to_owned(), pod.name().to_owned()));
    let mut rows = vec![
        ["Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut totals = BTreeMap::new();
    for pod in &pods {
        let mut row = vec![pod.namespace().unwrap_or_default().to_owned(), pod.name().to_owned()];
        for resource in RESOURCES {
            for field in ["requests", "limits"] {
                let amount = taken(pod, field, resource);
                let total: &mut i64 = totals.entry((resource, field)).or_default();
                *total = total.saturating_add(amount);
                row.push(share(node, resource, amount));
            }
        }
        row.push(age::since(pod.creation_timestamp(), now));
        rows.push(row);
    }
    lines.pair(0, "Pods", &format!("{} in total", pods.len()));
    if !pods.is_empty() {
        lines.table(1, &rows);
    }
    let total = |resource, field| share(node, resource, totals.get(&(resource, field)).copied().unwrap_or_default());
    let amounts =
        RESOURCES.map(|resource| vec![resource.to_owned(), total(resource, "requests"), total(resource, "limits")]);
    lines.line(0, "Allocated resources:");
    let headings = ["Resource", "Requests", "Limits"].map(str::to_owned).to_vec();
    lines.table(1, &std::iter::once(headings).chain(amounts).collect::<Vec<_>>());
}

/// What a pod takes of a resource, in thousandths of a core or in bytes. Containers that run at once are added up; those that run before
/// the others may take more than these together.
fn taken(pod: &Object, field: &str, resource: &str) -> i64 {
    let amounts = |containers: &str, stays: bool| -> Vec<i64> {
        let all = pod.at(&["spec", containers]).and_then(Value::as_array).into_iter().flatten();
        let all = all.filter(|container| (container["restartPolicy"] == "Always") == stays);
        all.map(|container| amount(&container["resources"][field][resource], resource)).collect()
    };
    let beside: i64 = amounts("initContainers", true).into_iter().sum();
    let regular: i64 = amounts("containers", false).into_iter().sum();
    let before = amounts("initContainers", false).into_iter().max().unwrap_or_default();
    regular.max(before).saturating_add(beside)
}

fn amount(value: &Value, resource: &str) -> i64 {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return 0,
    };
    let quantity = text.parse().unwrap_or(Quantity::ZERO);
    if resource == "cpu" { quantity.millis() } else { quantity.units() }
}

/// `250m (12%)`: an amount, and how much of what the node has to give it is.
fn share(node: &Object, resource: &str, amount: i64) -> String {
    let quantity = if resource == "cpu" { Quantity::from_millis(amount) } else { Quantity::from_bytes(amount) };
    let allocatable = node.at(&["status", "allocatable", resource]).map_or(0, |value| self::amount(value, resource));
    let percent = i128::from(amount) * 100 / i128::from(allocatable.max(1));
    format!("{quantity} ({}%)", if allocatable > 0 { percent } else { 0 })
}
