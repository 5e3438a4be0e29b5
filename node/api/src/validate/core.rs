//! The core group, other than pods.

use std::collections::BTreeSet;

use quorate_proto::{
    k8s::{
        ByteString,
        api::core::v1::{ConfigMap, Node, Secret, Service},
    },
    object::Object,
};

use super::{labels, names, rules};
use crate::{
    addresses::NODE_PORTS,
    message::{Problem, cut},
};

/// The most bytes of data in a config map or secret, as in Kubernetes.
const MAX_DATA: usize = 1 << 20;

pub(super) fn service(service: &Service, problems: &mut Vec<Problem>) {
    let Some(spec) = &service.spec else {
        problems.push(Problem::new("spec", "is missing"));
        return;
    };
    let service_type = spec.type_.as_deref().unwrap_or("ClusterIP");
    rules::one_of("spec.type", Some(service_type), &["ClusterIP", "NodePort", "ExternalName"], problems);
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if service_type == "ExternalName" {
        match spec.external_name.as_deref().map(|name| names::subdomain(name.trim_end_matches('.'))) {
            None => problems.push(Problem::new("spec.externalName", "is missing: the name this service stands for")),
            Some(Err(sentence)) => problems.push(Problem::new("spec.externalName", sentence)),
            Some(Ok(())) => {}
        }
        if spec.cluster_ip.as_deref().is_some_and(|address| !address.is_empty()) {
            problems.push(Problem::new("spec.clusterIP", "must not be there where the type is `ExternalName`"));
        }
    } else {
        if ports.is_empty() && !headless {
            problems.push(Problem::new("spec.ports", "must have at least one port, unless the service is headless"));
        }
        if spec.external_name.as_deref().is_some_and(|name| !name.is_empty()) {
            problems.push(Problem::new("spec.externalName", "needs the type `ExternalName`"));
        }
    }
    if service_type == "NodePort" && headless {
        problems.push(Problem::new("spec.clusterIP", "must not be `None` where the type is `NodePort`"));
    }
    if let Some([first, rest @ ..]) = spec.cluster_ips.as_deref()
        && (!rest.is_empty() || Some(first) != spec.cluster_ip.as_ref())
    {
        problems.push(Problem::new("spec.clusterIPs", "must hold `clusterIP` and nothing else"));
    }
    if let Some(selector) = &spec.selector {
        labels("spec.selector", selector.iter().map(|(key, value)| (key.as_str(), value.as_str())), problems);
    }
    let (mut names_seen, mut seen, mut nodes_seen) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        rules::number(&format!("{path}.port"), port.port, 1..=65_535, problems);
        rules::one_of(&format!("{path}.protocol"), Some(protocol), &["TCP", "UDP"], problems);
        if let Some(target) = &port.target_port {
            rules::target(&format!("{path}.targetPort"), target, problems);
        }
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => {
                problems.push(Problem::new(&format!("{path}.name"), "is missing: each of several ports needs one"));
            }
            None => {}
            Some(name) => {
                if let Err(sentence) = names::label(name) {
                    problems.push(Problem::new(&format!("{path}.name"), sentence));
                } else if !names_seen.insert(name) {
                    problems.push(Problem::new(&format!("{path}.name"), format!("`{}` is used twice", cut(name))));
                }
            }
        }
        if !seen.insert((port.port, protocol)) {
            problems.push(Problem::new(&path, format!("has port {} over {protocol} a second time", port.port)));
        }
        let Some(number) = port.node_port.filter(|number| *number != 0) else { continue };
        let path = format!("{path}.nodePort");
        if service_type != "NodePort" {
            problems.push(Problem::new(&path, "needs the type `NodePort`"));
        }
        rules::number(&path, number, i32::from(*NODE_PORTS.start())..=i32::from(*NODE_PORTS.end()), problems);
        if !nodes_seen.insert((number, protocol)) {
            problems.push(Problem::new(&path, format!("{number} is used twice over {protocol}")));
        }
    }
}

/// The address of a service stays, unless the service begins or ceases to be another name.
pub(super) fn service_change(stored: &Object, next: &Object, problems: &mut Vec<Problem>) {
    let external = |service: &Object| service.text(&["spec", "type"]) == Some("ExternalName");
    if !external(stored) && !external(next) {
        super::fixed(stored, next, &["spec", "clusterIP"], problems);
    }
}

pub(super) fn config_map(map: &ConfigMap, problems: &mut Vec<Problem>) {
    let (data, binary) = (map.data.iter().flatten(), map.binary_data.iter().flatten());
    let mut seen = BTreeSet::new();
    for (field, key) in
        data.clone().map(|(key, _)| ("data", key)).chain(binary.clone().map(|(key, _)| ("binaryData", key)))
    {
        keyed(field, key, problems);
        if !seen.insert(key) {
            problems.push(Problem::new("binaryData", format!("has the key `{}`, which `data` has too", cut(key))));
        }
    }
    size(data.map(|(_, text)| text.len()).chain(binary.map(|(_, ByteString(bytes))| bytes.len())).sum(), problems);
}

pub(super) fn secret(secret: &Secret, problems: &mut Vec<Problem>) {
    for key in secret.data.iter().flat_map(|data| data.keys()) {
        keyed("data", key, problems);
    }
    size(secret.data.iter().flatten().map(|(_, ByteString(bytes))| bytes.len()).sum(), problems);
}

pub(super) fn node(node: &Node, problems: &mut Vec<Problem>) {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    for (index, taint) in taints.enumerate() {
        let path = format!("spec.taints[{index}]");
        labels(&path, [(taint.key.as_str(), taint.value.as_deref().unwrap_or_default())], problems);
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        rules::one_of(&format!("{path}.effect"), Some(&taint.effect), &effects, problems);
    }
}

fn keyed(field: &str, key: &str, problems: &mut Vec<Problem>) {
    if let Err(sentence) = names::data_key(key) {
        problems.push(Problem::new(field, sentence));
    }
}

fn size(size: usize, problems: &mut Vec<Problem>) {
    if size > MAX_DATA {
        problems.push(Problem::new("data", format!("has {size} bytes, the limit is {MAX_DATA} (1 MiB)")));
    }
}
