//! What a node tells of itself: its machine, its addresses, whether it can run pods. Pure.
//!
//! Invariant: what is told is told only when it changed; times in it are those of changes, never of the telling.

use std::net::IpAddr;

use quorate_proto::{
    object::Object,
    world::{Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::machine::Machine;

/// How many pods a node takes at most, as Kubernetes has it.
const MAX_PODS: u32 = 110;

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnState<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// Where the node can be reached, best first.
    pub addresses: &'a [IpAddr],
    /// The one port.
    pub port: u16,
    /// `docker://20.10.24`, `simulated://1`.
    pub runtime: &'a str,
    /// Why the node cannot run pods now, if it cannot.
    pub trouble: Option<&'a str>,
}

/// The merge patch of `status` that makes the node object say what is so; `None` if it says so already.
#[must_use]
pub fn patch(node: &Object, own: &OwnState<'_>, wall: Timestamp) -> Option<Value> {
    let resources = json!({
        "cpu": own.machine.cpus.to_string(),
        "memory": format!("{}Ki", own.machine.memory / 1024),
        "pods": MAX_PODS.to_string(),
    });
    let mut addresses: Vec<Value> =
        own.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": own.machine.hostname}));
    let wanted = json!({
        "addresses": addresses,
        "allocatable": resources,
        "capacity": resources,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": own.port}},
        "nodeInfo": {
            "architecture": own.machine.architecture,
            "containerRuntimeVersion": own.runtime,
            "kernelVersion": own.machine.kernel_version,
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION")),
            "operatingSystem": "linux",
            "osImage": own.machine.os_image,
        },
        "conditions": conditions(node, own.trouble, wall),
    });
    let mut changed = node.clone();
    changed.merge(&json!({ "status": wanted }));
    (changed != *node).then_some(wanted)
}

fn conditions(node: &Object, trouble: Option<&str>, wall: Timestamp) -> Vec<Value> {
    let (status, reason, message) = match trouble {
        None => ("True", "NodeReady", "the node can run pods"),
        Some(trouble) => ("False", "RuntimeNotReady", trouble),
    };
    let before = node.condition("Ready");
    let same = before.and_then(|condition| condition.get("status")).and_then(Value::as_str) == Some(status);
    let since = before
        .filter(|_| same)
        .and_then(|condition| condition.get("lastTransitionTime"))
        .cloned()
        .unwrap_or_else(|| rfc3339(wall).into());
    let ready =
        json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    let others = node.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let others = others.filter(|condition| condition.get("type").and_then(Value::as_str) != Some("Ready"));
    others.cloned().chain([ready]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            hostname: "box".to_owned(),
            os_image: "Debian".to_owned(),
            kernel_version: "6.1".to_owned(),
            architecture: "amd64",
            cpus: 4,
            memory: 8 << 30,
        }
    }

    fn node() -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_node_tells_itself_once_and_again_only_when_something_changed() {
        let (machine, mut node) = (machine(), node());
        let addresses = ["10.99.0.1".parse().unwrap()];
        let well = OwnState { machine: &machine, addresses: &addresses, port: 7443, runtime: "docker://20.10.24", trouble: None };
        let status = patch(&node, &well, at(0)).unwrap();
        node.merge(&json!({ "status": status }));
        assert!(node.is_true("Ready"));
        assert_eq!(node.text(&["status", "allocatable", "memory"]), Some("8388608Ki"));
        assert_eq!(patch(&node, &well, at(60)), None);

        let ill = OwnState { trouble: Some("the Docker Engine does not answer"), ..well };
        let status = patch(&node, &ill, at(90)).unwrap();
        node.merge(&json!({ "status": status }));
        let condition = node.condition("Ready").unwrap();
        assert_eq!(condition["message"], "the Docker Engine does not answer");
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:01:30Z");
    }

    #[test]
    fn what_others_say_of_the_node_stays() {
        let (machine, mut node) = (machine(), node());
        node.merge(&json!({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}]}}));
        let own = OwnState { machine: &machine, addresses: &[], port: 7443, runtime: "simulated://1", trouble: None };
        let status = patch(&node, &own, at(0)).unwrap();
        assert_eq!(status["conditions"][0]["type"], "DiskPressure");
    }
}
