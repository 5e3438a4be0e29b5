//! Events of a pod: what happened, in Kubernetes' reasons, and not too often (pure).
//!
//! Invariant: a pod that fails all the time tells so a few times, and then once in a while.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quorate_proto::{request::Fact, txn::Document, world::Instant};
use serde_json::{Value, json};

use crate::runtime::PodRef;

/// The most events of one pod in a row, as the kubelet allows.
const BURST: u32 = 25;
/// After that, one in so long.
const REFILL: Duration = Duration::from_secs(60);
/// The same event is not told again for so long.
const REPEAT: Duration = Duration::from_secs(300);

/// Something that happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Which part of the pod: `spec.containers{web}`; empty for the whole.
    pub(crate) field: String,
}

impl Event {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into(), field: String::new() }
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into(), field: String::new() }
    }

    pub(crate) fn of(mut self, field: &str) -> Self {
        field.clone_into(&mut self.field);
        self
    }

    /// As a fact about a pod of this node.
    pub(crate) fn fact(&self, pod: &PodRef, node: &str) -> Fact {
        let PodRef { namespace, name, uid } = pod;
        let mut object = json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid});
        if !self.field.is_empty() {
            object["fieldPath"] = json!(self.field);
        }
        let event: Value = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace},
            "involvedObject": object,
            "type": if self.warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "message": self.message,
            "source": {"component": "quorate-agent", "host": node},
            "reportingComponent": "quorate-agent",
            "reportingInstance": node,
        });
        Fact::Event { event: Document(Bytes::from(event.to_string())) }
    }
}

/// How much of a pod's events is still to be told.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: u32,
    refilled: Instant,
    told: BTreeMap<(&'static str, String), Instant>,
}

impl Budget {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, told: BTreeMap::new() }
    }

    /// Whether an event is to be told.
    pub(crate) fn allows(&mut self, event: &Event, now: Instant) -> bool {
        let refills = u32::try_from(now.since(self.refilled).as_secs() / REFILL.as_secs()).unwrap_or(BURST);
        if refills > 0 {
            self.left = self.left.saturating_add(refills).min(BURST);
            self.refilled = now;
        }
        self.told.retain(|_, at| now.since(*at) < REPEAT);
        let key = (event.reason, format!("{}{}", event.field, event.message));
        if self.left == 0 || self.told.contains_key(&key) {
            return false;
        }
        self.left -= 1;
        self.told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn the_same_event_is_told_once_in_five_minutes() {
        let mut budget = Budget::new(at(0));
        let event = Event::warning("BackOff", "Back-off restarting failed container");
        assert!(budget.allows(&event, at(0)));
        assert!(!budget.allows(&event, at(299)));
        assert!(budget.allows(&event, at(300)));
    }

    #[test]
    fn a_pod_that_never_stops_complaining_is_heard_once_a_minute() {
        let mut budget = Budget::new(at(0));
        let told = |budget: &mut Budget, now| {
            (0..100).filter(|n| budget.allows(&Event::warning("Unhealthy", format!("{n} at {now:?}")), now)).count()
        };
        assert_eq!(told(&mut budget, at(0)), 25);
        assert_eq!(told(&mut budget, at(59)), 0);
        assert_eq!(told(&mut budget, at(60)), 1);
    }
}
