//! What a node tells of itself: its machine, its addresses, whether it can run pods. Pure.
//!
//! Invariant: what is told is told only when it changed; times in it are those of changes, never of the telling.

use std::net::SocketAddr;

use quorate_agent::Info;
use quorate_proto::{
    object::Object,
    world::{Timestamp, rfc3339},
};
use serde_json::{Value, json};

/// How many pods a node takes at most, as Kubernetes has it.
const MAX_PODS: u32 = 110;

/// What a node knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnState<'a> {
    /// The host's name.
    pub hostname: &'a str,
    /// Where the node can be reached, best first; all on the one port.
    pub addresses: &'a [SocketAddr],
    /// What runs its containers and what the machine has; `None` before that was known.
    pub info: Option<&'a Info>,
    /// Why the node cannot run pods now, if it cannot.
    pub trouble: Option<&'a str>,
}

/// The merge patch of `status` that makes the node object say what is so; `None` if it says so already.
#[must_use]
pub(crate) fn patch(node: &Object, own: &OwnState<'_>, wall: Timestamp) -> Option<Value> {
    let mut wanted = json!({ "conditions": conditions(node, own.trouble, wall) });
    put_addresses(&mut wanted, own.addresses);
    if let Some(Value::Array(addresses)) = wanted.get_mut("addresses") {
        addresses.push(json!({"type": "Hostname", "address": own.hostname}));
    }
    if let Some(info) = own.info {
        let resources = json!({
            "cpu": info.cpus.to_string(),
            "memory": format!("{}Ki", info.memory / 1024),
            "pods": MAX_PODS.to_string(),
        });
        wanted["allocatable"] = resources.clone();
        wanted["capacity"] = resources;
        wanted["nodeInfo"] = json!({
            "architecture": info.architecture,
            "containerRuntimeVersion": info.version,
            "kernelVersion": info.kernel,
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION")),
            "operatingSystem": "linux",
            "osImage": info.os_image,
        });
    }
    let mut changed = node.clone();
    changed.merge(&json!({ "status": wanted }));
    (changed != *node).then_some(wanted)
}

/// Puts where a node can be reached into its status: its addresses, and the port they share.
pub(crate) fn put_addresses(status: &mut Value, addresses: &[SocketAddr]) {
    let entry = |address: &SocketAddr| json!({"type": "InternalIP", "address": address.ip().to_string()});
    status["addresses"] = addresses.iter().map(entry).collect();
    if let Some(address) = addresses.first() {
        status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": address.port()}});
    }
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

    fn info() -> Info {
        Info {
            version: "docker://20.10.24".to_owned(),
            kernel: "6.1".to_owned(),
            os_image: "Debian".to_owned(),
            architecture: "amd64".to_owned(),
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
        let (info, mut node) = (info(), node());
        let addresses = ["10.99.0.1:7443".parse().unwrap()];
        let well = OwnState { hostname: "box", addresses: &addresses, info: Some(&info), trouble: None };
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
        let mut node = node();
        node.merge(&json!({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}]}}));
        let own = OwnState { hostname: "box", addresses: &[], info: None, trouble: None };
        let status = patch(&node, &own, at(0)).unwrap();
        assert_eq!(status["conditions"][0]["type"], "DiskPressure");
    }
}
