//! A pod bound to this node, read once per version of its object.
//!
//! Invariant: a fingerprint is made from the stored JSON, not from a typed view, so a newer binary does not restart what an older made.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    k8s::api::core::v1::{Container, Pod, PodSpec},
    snapshot::Stored,
    txn::Revision,
};
use serde_json::Value;

use crate::runtime::PodRef;

/// What a pod gets to stop if it does not say.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// A pod bound to this node.
#[derive(Debug, Clone)]
pub(crate) struct BoundPod {
    pub(crate) reference: PodRef,
    pub(crate) modified: Revision,
    pub(crate) pod: Pod,
    pub(crate) spec: PodSpec,
    /// `status` as the store has it.
    pub(crate) status: Value,
    hashes: BTreeMap<String, String>,
}

/// Which list of the pod's spec a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It must end well before the next one starts.
    Init,
    /// It is started in its turn and goes on beside the others (an init container with `restartPolicy: Always`).
    Sidecar,
    /// One of the pod's own.
    Main,
}

impl BoundPod {
    /// Reads a pod; `None` if it is bound elsewhere, or written by a version whose pods cannot be read here.
    pub(crate) fn read(stored: &Stored, node: &str) -> Option<Self> {
        let object = &stored.object;
        if object.text(&["spec", "nodeName"]) != Some(node) {
            return None;
        }
        let pod = match object.view::<Pod>() {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(key = %stored.key, %error, "a pod bound here cannot be read and is left alone");
                return None;
            }
        };
        let hashes = ["initContainers", "containers"]
            .into_iter()
            .filter_map(|list| object.at(&["spec", list])?.as_array())
            .flatten()
            .filter_map(|container| Some((container.get("name")?.as_str()?.to_owned(), fingerprint(container))))
            .collect();
        Some(Self {
            reference: PodRef {
                namespace: object.namespace()?.to_owned(),
                name: object.name().to_owned(),
                uid: object.uid().to_owned(),
            },
            modified: stored.modified,
            spec: pod.spec.clone()?,
            pod,
            status: object.at(&["status"]).cloned().unwrap_or(Value::Null),
            hashes,
        })
    }

    /// The containers in the order they start, each with its stage.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&Container, Stage)> {
        let init = self.spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            (container, if sidecar { Stage::Sidecar } else { Stage::Init })
        });
        init.chain(self.spec.containers.iter().map(|container| (container, Stage::Main)))
    }

    pub(crate) fn hash(&self, container: &str) -> &str {
        self.hashes.get(container).map_or("", String::as_str)
    }

    pub(crate) const fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// The pod ended for good: it is never started again.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.status.get("phase").and_then(Value::as_str), Some("Succeeded" | "Failed"))
    }

    /// What the pod gets to stop: the deletion's grace period, or else its own.
    pub(crate) fn grace(&self) -> Duration {
        let metadata = &self.pod.metadata;
        let asked = metadata.deletion_grace_period_seconds.filter(|_| self.deleting());
        let seconds = asked.or(self.spec.termination_grace_period_seconds);
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(GRACE, Duration::from_secs)
    }

    pub(crate) fn host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// Whether a container of this stage that ended is started again.
    pub(crate) fn restarts(&self, stage: Stage, code: i32) -> bool {
        match (self.spec.restart_policy.as_deref().unwrap_or("Always"), stage) {
            (_, Stage::Sidecar) => true,
            ("Never", _) => false,
            ("OnFailure", _) | (_, Stage::Init) => code != 0,
            _ => true,
        }
    }

    /// Whether the store knows the pod as ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

/// Tells whether a container is to be made anew: equal for equal JSON.
fn fingerprint(container: &Value) -> String {
    format!("{:08x}", crc32fast::hash(container.to_string().as_bytes()))
}

#[cfg(test)]
pub(crate) mod tests {
    use quorate_proto::{
        object::Object,
        txn::{Revision, Versioned},
    };
    use serde_json::json;

    use super::*;

    /// A pod as the API would store it, from its spec.
    pub(crate) fn stored(name: &str, spec: Value) -> Stored {
        with_metadata(name, spec, &json!({}), &json!({}))
    }

    pub(crate) fn with_metadata(name: &str, mut spec: Value, metadata: &Value, status: &Value) -> Stored {
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")}, "spec": spec, "status": status});
        let mut object = Object::from_value(pod).unwrap();
        object.merge(&json!({ "metadata": metadata }));
        let key = quorate_proto::kinds::PODS.key(Some("shop"), name).unwrap();
        let versioned = Versioned { document: object.to_document(), created: Revision(1), modified: Revision(1) };
        Stored::new(key, &versioned).unwrap()
    }

    pub(crate) fn bound(name: &str, spec: Value) -> BoundPod {
        BoundPod::read(&stored(name, spec), "n1").unwrap()
    }

    #[test]
    fn a_pod_bound_to_another_node_is_none_of_ours() {
        assert!(BoundPod::read(&stored("web", json!({"containers": []})), "n2").is_none());
    }

    #[test]
    fn a_changed_image_changes_the_fingerprint_and_a_changed_neighbour_does_not() {
        let pod = |image: &str| {
            bound("web", json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": image}]}))
        };
        let (one, two) = (pod("y:1"), pod("y:2"));
        assert_eq!(one.hash("a"), two.hash("a"));
        assert_ne!(one.hash("b"), two.hash("b"));
    }

    #[test]
    fn a_deletion_may_shorten_the_grace_period() {
        let spec = json!({"containers": [], "terminationGracePeriodSeconds": 60});
        assert_eq!(bound("web", spec.clone()).grace().as_secs(), 60);
        let metadata = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 1});
        let deleted = with_metadata("web", spec, &metadata, &json!({}));
        assert_eq!(BoundPod::read(&deleted, "n1").unwrap().grace().as_secs(), 1);
    }
}
