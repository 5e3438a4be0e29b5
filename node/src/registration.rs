//! Which objects a machine's joining makes: its node, its part of the pod range, one use less of its token. Pure.
//!
//! Invariant: all of it is one transaction on what was read: two machines that race for the last use, a name or a range cannot both
//! win, and a retry of a join that went through changes nothing.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use quorate_mesh::join::refuse;
use quorate_proto::{
    ids::{ClusterId, NodeId},
    kinds::{ADDRESSES, JOINTOKENS, NAMESPACES, NODES},
    object::Object,
    refusal::{Reason, Refusal},
    snapshot::{Snapshot, Stored},
    txn::Txn,
    world::{Random, Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::{
    node_status,
    settings::{ClusterSettings, NODE_PREFIX},
};

/// The annotation that names the token a node joined with, and the hash of the request it joined by.
const JOINED_WITH: &str = "quorate.dev/joined-with";

/// What is refused when a machine does not join.
pub const NOT_JOINED: &str = "this machine did not join the cluster";

/// A machine that asks to join.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its node id.
    pub node: NodeId,
    /// The name it would like, usually its host's.
    pub wanted_name: &'a str,
    /// The id of the token it proved to know.
    pub token: &'a str,
    /// The hash of its request, key included: a retry has the same, and nobody else can.
    pub request: &'a str,
    /// Where it says it can be reached: the others must find it before it can tell them anything more.
    pub addresses: &'a [SocketAddr],
}

impl Candidate<'_> {
    fn joined_with(&self) -> String {
        format!("{} {}", self.token, self.request)
    }
}

/// A machine's place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Who it is.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its part of the pod range.
    pub pod_range: Ipv4Net,
    /// What makes it so; empty if it is so already.
    pub txn: Txn,
}

/// What new objects need of the world.
pub struct Moment<'a> {
    /// The time they are made.
    pub wall: Timestamp,
    /// Where their uids come from.
    pub random: &'a dyn Random,
}

/// Finds the token a candidate may join with.
///
/// # Errors
/// If there is no such token, it is spent or its time is over. Whether its secret was known is to be checked before.
pub fn usable_token<'a>(snapshot: &'a Snapshot, id: &str, wall: Timestamp) -> Result<&'a Stored, Refusal> {
    let stored = snapshot.find(&JOINTOKENS, None, id).ok_or_else(refuse::unknown_token)?;
    let expires = stored.object.text(&["spec", "expires"]).unwrap_or_default();
    match expires.parse::<Timestamp>() {
        Ok(time) if time > wall => {}
        _ => return Err(refuse::expired(expires)),
    }
    if uses_left(stored) == 0 {
        return Err(refuse::spent());
    }
    Ok(stored)
}

fn uses_left(token: &Stored) -> u64 {
    token.object.at(&["spec", "usesLeft"]).and_then(Value::as_u64).unwrap_or_default()
}

/// Finds the registration of a machine whose request went through already: what a retry is answered with.
#[must_use]
pub fn registered(snapshot: &Snapshot, candidate: &Candidate<'_>) -> Option<Registration> {
    let joined_with = candidate.joined_with();
    let node = snapshot.list(&NODES).find(|stored| stored.object.annotation(JOINED_WITH) == Some(&joined_with))?;
    let pod_range = node.object.text(&["spec", "podCIDR"])?.parse().ok()?;
    Some(Registration { node: node_id(&node.object)?, name: node.object.name().to_owned(), pod_range, txn: Txn::new() })
}

/// Registers a machine and spends one use of its token.
///
/// # Errors
/// If the token cannot be used, the name is taken or no name, or the pod range is used up.
pub fn register(
    snapshot: &Snapshot,
    settings: &ClusterSettings,
    candidate: &Candidate<'_>,
    moment: &Moment<'_>,
) -> Result<Registration, Refusal> {
    let token = usable_token(snapshot, candidate.token, moment.wall)?;
    let mut spent = token.object.clone();
    spent.set(&["spec", "usesLeft"], uses_left(token) - 1);
    let mut registration = place(snapshot, settings, candidate, moment)?;
    registration.txn = registration.txn.update(token.key.clone(), token.modified, spent.to_document());
    Ok(registration)
}

/// Registers the first machine, and makes what every cluster has: its own object and the namespaces.
///
/// # Errors
/// If the name is no name.
pub fn found(
    settings: &ClusterSettings,
    secrets: &Value,
    node: NodeId,
    name: &str,
    moment: &Moment<'_>,
) -> Result<Registration, Refusal> {
    let candidate = Candidate { node, wanted_name: name, token: "", request: "", addresses: &[] };
    let mut registration = place(&Snapshot::default(), settings, &candidate, moment)?;
    let cluster = settings.to_object(secrets).ok_or_else(|| internal("the cluster's settings are no object"))?;
    let namespaces = ["default", "kube-system"].map(|name| {
        json!({"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"name": name}, "status": {"phase": "Active"}})
    });
    let namespaces = namespaces.into_iter().map(|value| (&NAMESPACES, value));
    let mut txn = registration.txn;
    for (kind, value) in namespaces.chain([(&quorate_proto::kinds::CLUSTERS, cluster.into_value())]) {
        txn = create(txn, kind, value, moment)?;
    }
    registration.txn = txn;
    Ok(registration)
}

/// Gives a machine its place: its node object, under a name and with a part of the pod range that nobody has.
///
/// # Errors
/// If the name is taken or no name, or the pod range is used up.
pub(crate) fn place(
    snapshot: &Snapshot,
    settings: &ClusterSettings,
    candidate: &Candidate<'_>,
    moment: &Moment<'_>,
) -> Result<Registration, Refusal> {
    let name = candidate.wanted_name;
    check_name(name)?;
    if snapshot.find(&NODES, None, name).is_some() {
        return Err(refuse::name_taken(name));
    }
    let pod_range = free_range(snapshot, settings)?;
    let txn = Txn::new();
    let txn = create(txn, &ADDRESSES, address(&range_name(pod_range), &json!({"kind": "Node", "name": name})), moment)?;
    let mut node = json!({
        "apiVersion": "v1",
        "kind": NODES.kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {JOINED_WITH: candidate.joined_with()},
        },
        "spec": {"podCIDR": pod_range.to_string(), "providerID": provider_id(settings.cluster_id, candidate.node)},
        "status": {"conditions": [{
            "type": "Ready", "status": "False", "reason": "NodeStarting", "message": "the node has not reported yet",
            "lastTransitionTime": rfc3339(moment.wall),
        }]},
    });
    node_status::put_addresses(&mut node["status"], candidate.addresses);
    let txn = create(txn, &NODES, node, moment)?;
    Ok(Registration { node: candidate.node, name: name.to_owned(), pod_range, txn })
}

fn free_range(snapshot: &Snapshot, settings: &ClusterSettings) -> Result<Ipv4Net, Refusal> {
    let taken = |range: &Ipv4Net| snapshot.find(&ADDRESSES, None, &range_name(*range)).is_some();
    settings.node_ranges().find(|range| !taken(range)).ok_or_else(|| {
        let because = format!("the pod range {} has no free /{NODE_PREFIX} for another node", settings.pod_range);
        Refusal::new(Reason::TooLarge, NOT_JOINED, because).hint("remove nodes that are gone: quorate delete node NAME")
    })
}

/// The record of an address, or range of them, that is taken. Its name is the address.
fn address(name: &str, owner: &Value) -> Value {
    json!({"apiVersion": ADDRESSES.api_version(), "kind": ADDRESSES.kind, "metadata": {"name": name}, "spec": {"owner": owner}})
}

pub(crate) fn range_name(range: Ipv4Net) -> String {
    format!("{}-{}", range.network(), range.prefix_len())
}

fn create(txn: Txn, kind: &quorate_proto::kinds::Kind, mut value: Value, moment: &Moment<'_>) -> Result<Txn, Refusal> {
    value["metadata"]["uid"] = moment.random.uid().into();
    value["metadata"]["creationTimestamp"] = rfc3339(moment.wall).into();
    value["metadata"]["generation"] = 1.into();
    let object = Object::from_value(value).map_err(|error| internal(&error.to_string()))?;
    let key = kind.key(None, object.name()).map_err(|error| internal(&error.to_string()))?;
    Ok(txn.create(key, object.to_document()))
}

fn internal(because: &str) -> Refusal {
    Refusal::new(Reason::Internal, NOT_JOINED, because)
}

/// Checks that a node can have this name: an RFC 1123 label, since it is part of names that are resolved.
///
/// # Errors
/// If it cannot.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label =
        (1..=63).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') && !name.ends_with('-');
    if is_label {
        return Ok(());
    }
    let because = format!(
        "`{name}` is no node name: up to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit"
    );
    Err(Refusal::new(Reason::Invalid, NOT_JOINED, because).hint("give it one: --name n2"))
}

/// What `spec.providerID` of a node object says.
#[must_use]
pub fn provider_id(cluster: ClusterId, node: NodeId) -> String {
    format!("quorate://{cluster}/{node}")
}

/// The node id in a node object's `spec.providerID`.
#[must_use]
pub fn node_id(node: &Object) -> Option<NodeId> {
    node.text(&["spec", "providerID"])?.rsplit('/').next()?.parse().ok()
}

/// The name of the node with an id.
#[must_use]
pub fn name_of(snapshot: &Snapshot, id: NodeId) -> Option<String> {
    let node = snapshot.list(&NODES).find(|stored| node_id(&stored.object) == Some(id))?;
    Some(node.object.name().to_owned())
}

/// The address of the node object's machine that was told first, with its port.
#[must_use]
pub fn addresses(node: &Object) -> Vec<SocketAddr> {
    let port = node.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let listed = node.at(&["status", "addresses"]).and_then(Value::as_array).into_iter().flatten();
    listed
        .filter(|entry| entry.get("type").and_then(Value::as_str) == Some("InternalIP"))
        .filter_map(|entry| entry.get("address")?.as_str()?.parse().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

/// The first address of a node that is an IPv4 address: what `<node>.node.<zone>` resolves to.
#[must_use]
pub fn ipv4(node: &Object) -> Option<Ipv4Addr> {
    addresses(node).into_iter().find_map(|address| match address.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU8);

    impl Random for Counting {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn settings() -> ClusterSettings {
        ClusterSettings {
            cluster_id: ClusterId(7),
            service_range: "10.213.0.0/16".parse().unwrap(),
            pod_range: "10.214.0.0/22".parse().unwrap(),
            zone: "cluster.local".to_owned(),
        }
    }

    fn founded(uses: u64) -> Snapshot {
        let random = Counting(0.into());
        let moment = Moment { wall: at(0), random: &random };
        let mut snapshot = Snapshot::default();
        snapshot.commit(&found(&settings(), &json!({}), NodeId(1), "n1", &moment).unwrap().txn).unwrap();
        let token = json!({"apiVersion": "quorate.dev/v1", "kind": "JoinToken", "metadata": {"name": "tok"},
            "spec": {"usesLeft": uses, "expires": "1970-01-01T01:00:00Z"}});
        let txn = create(Txn::new(), &JOINTOKENS, token, &moment).unwrap();
        snapshot.commit(&txn).unwrap();
        snapshot
    }

    fn join(snapshot: &mut Snapshot, node: u128, name: &str, second: i64) -> Result<Registration, String> {
        let random = Counting(9.into());
        let addresses = ["10.99.0.2:7443".parse().unwrap()];
        let candidate =
            Candidate { node: NodeId(node), wanted_name: name, token: "tok", request: name, addresses: &addresses };
        let moment = Moment { wall: at(second), random: &random };
        let registration = register(snapshot, &settings(), &candidate, &moment).map_err(|refusal| refusal.because)?;
        snapshot.commit(&registration.txn).unwrap();
        Ok(registration)
    }

    #[test]
    fn each_machine_gets_a_name_and_a_pod_range_of_its_own() {
        let mut snapshot = founded(2);
        assert_eq!(join(&mut snapshot, 2, "n2", 0).unwrap().pod_range.to_string(), "10.214.2.0/24");
        assert_eq!(join(&mut snapshot, 3, "n3", 0).unwrap().pod_range.to_string(), "10.214.3.0/24");
        let ids: Vec<_> = snapshot.list(&NODES).filter_map(|stored| node_id(&stored.object)).collect();
        assert_eq!(ids, [NodeId(1), NodeId(2), NodeId(3)]);
    }

    #[test]
    fn the_others_know_at_once_where_a_new_machine_is() {
        let mut snapshot = founded(1);
        join(&mut snapshot, 2, "n2", 0).unwrap();
        let node = snapshot.find(&NODES, None, "n2").unwrap();
        assert_eq!(addresses(&node.object), ["10.99.0.2:7443".parse().unwrap()]);
    }

    #[test]
    fn a_token_is_good_for_its_uses_and_its_time() {
        let mut snapshot = founded(1);
        assert_eq!(join(&mut snapshot, 2, "n2", 3600).unwrap_err(), "the token expired at 1970-01-01T01:00:00Z");
        join(&mut snapshot, 2, "n2", 0).unwrap();
        assert_eq!(join(&mut snapshot, 3, "n3", 0).unwrap_err(), "the token was used up by another join");
    }

    #[test]
    fn a_retry_of_a_join_that_went_through_is_answered_and_changes_nothing() {
        let mut snapshot = founded(1);
        let first = join(&mut snapshot, 2, "n2", 0).unwrap();
        let candidate = Candidate { node: NodeId(22), wanted_name: "n2", token: "tok", request: "n2", addresses: &[] };
        let again = registered(&snapshot, &candidate).unwrap();
        assert_eq!(again, Registration { txn: Txn::new(), ..first });
        assert_eq!(registered(&snapshot, &Candidate { request: "another key's", ..candidate }), None);
    }

    #[test]
    fn a_name_that_is_taken_or_no_name_is_refused() {
        let mut snapshot = founded(1);
        assert_eq!(join(&mut snapshot, 2, "n1", 0).unwrap_err(), "a node named `n1` is already a member");
        assert!(join(&mut snapshot, 2, "N_2", 0).unwrap_err().starts_with("`N_2` is no node name"));
    }

    #[test]
    fn two_machines_that_race_for_the_last_use_cannot_both_win() {
        let mut snapshot = founded(1);
        let random = Counting(9.into());
        let moment = Moment { wall: at(0), random: &random };
        let [one, two] = [(2, "n2"), (3, "n3")].map(|(node, name)| {
            let candidate =
                Candidate { node: NodeId(node), wanted_name: name, token: "tok", request: name, addresses: &[] };
            register(&snapshot, &settings(), &candidate, &moment).unwrap().txn
        });
        snapshot.commit(&one).unwrap();
        assert!(snapshot.commit(&two).is_err());
    }
}
