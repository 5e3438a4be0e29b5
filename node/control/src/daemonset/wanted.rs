//! What a daemon set asks for, read once.
//!
//! Invariant: the revision of a template is the same in every release: another one would replace every pod that runs.

use std::time::Duration;

use quorate_proto::{
    k8s::{
        api::{apps::v1::RollingUpdateDaemonSet, core::v1::Toleration},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    object::Object,
};
use serde_json::{Value, json};

use super::new_pod::with_daemon_tolerations;
use crate::{
    affinity::Affinity,
    edit::{number, view},
    taint::tolerations,
};

/// A daemon set's spec.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Which nodes it means by their labels and names.
    pub(super) affinity: Affinity,
    /// The one node its template names, if it does.
    pub(super) node: Option<String>,
    /// What its pods tolerate.
    pub(super) tolerations: Vec<Toleration>,
    /// How many nodes may be without an available pod while it rolls out; `None`: old pods wait until a user deletes them.
    pub(super) unavailable: Option<IntOrString>,
    pub(super) min_ready: Duration,
    /// Tells pods of this template from those of another: `controller-revision-hash`.
    pub(super) revision: String,
}

impl Wanted {
    /// Reads a daemon set.
    ///
    /// # Errors
    /// In words, if something in it cannot be read.
    pub(super) fn of(set: &Object) -> Result<Self, String> {
        let template = set.at(&["spec", "template"]).cloned().unwrap_or_else(|| json!({}));
        let pod = Object::from_value(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": set.name()},
            "spec": template.get("spec"),
        }))
        .map_err(|error| format!("its template cannot be read: {error}"))?;
        let mut tolerant = pod.clone();
        with_daemon_tolerations(&mut tolerant);
        let min_ready = number(set, &["spec", "minReadySeconds"]).unwrap_or_default().max(0);
        Ok(Self {
            affinity: Affinity::of(&pod)?,
            node: pod.text(&["spec", "nodeName"]).filter(|node| !node.is_empty()).map(str::to_owned),
            tolerations: tolerations(&tolerant),
            unavailable: unavailable(set)?,
            min_ready: Duration::from_secs(min_ready.unsigned_abs()),
            revision: revision(&template),
        })
    }

    /// How many of so many nodes may be without an available pod while it rolls out. Percentages are rounded up, and there is always one,
    /// as in Kubernetes: otherwise nothing could ever be replaced.
    pub(super) fn most_unavailable(&self, nodes: usize) -> Option<usize> {
        let most = match self.unavailable.as_ref()? {
            IntOrString::Int(number) => usize::try_from(*number).unwrap_or_default(),
            IntOrString::String(text) => {
                let percentage = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok());
                nodes.saturating_mul(percentage.unwrap_or_default()).div_ceil(100)
            }
        };
        Some(most.max(1))
    }
}

fn unavailable(set: &Object) -> Result<Option<IntOrString>, String> {
    if set.text(&["spec", "updateStrategy", "type"]) == Some("OnDelete") {
        return Ok(None);
    }
    let rolling: Option<RollingUpdateDaemonSet> = view(set, &["spec", "updateStrategy", "rollingUpdate"])
        .map_err(|error| format!("its update strategy cannot be read: {error}"))?;
    Ok(Some(rolling.unwrap_or_default().max_unavailable.unwrap_or(IntOrString::Int(1))))
}

/// The revision of a template: FNV-1a, 64 bits, over its canonical JSON, in the letters that Kubernetes uses for names.
fn revision(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = template
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_a_template_is_the_same_in_every_release() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
        assert_eq!(revision(&template), "56bd9dc79f87644bd4d8");
    }

    #[test]
    fn percentages_of_nodes_are_rounded_up_and_one_may_always_be_replaced() {
        let most = |strategy: Value, nodes: usize| {
            let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": {"updateStrategy": strategy}});
            Wanted::of(&Object::from_value(set).unwrap()).unwrap().most_unavailable(nodes)
        };
        let rolling = |value: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": value}});
        assert_eq!(most(json!({}), 10), Some(1));
        assert_eq!(most(rolling(json!("25%")), 10), Some(3));
        assert_eq!(most(rolling(json!("1%")), 10), Some(1));
        assert_eq!(most(rolling(json!(0)), 10), Some(1));
        assert_eq!(most(rolling(json!(4)), 10), Some(4));
        assert_eq!(most(json!({"type": "OnDelete"}), 10), None);
    }
}
