//! A container's environment variables: written, taken from config maps, secrets and the pod itself, and one set per service (pure).
//!
//! Order and rules are the kubelet's (`pkg/kubelet/kubelet_pods.go`): service variables first, then `envFrom`, then `env`; the last of
//! a name wins; `$(NAME)` is replaced by what was set before it.
//!
//! Invariant: what a container gets is decided by the snapshot alone; a missing source is an error that names it.

use std::{collections::BTreeMap, fmt::Write as _};

use quorate_proto::k8s::{
    ByteString,
    api::core::v1::{ConfigMap, Secret, Service},
};
use quorate_proto::{
    k8s::api::core::v1::{Container, EnvVarSource},
    kinds::{CONFIGMAPS, SECRETS, SERVICES},
    quantity::Quantity,
    snapshot::Snapshot,
};

use crate::{pod::BoundPod, resources};

/// What is true of the pod only once it is placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a str,
    pub(crate) host: &'a str,
    /// The pod's address; empty before it has one.
    pub(crate) address: &'a str,
}

/// The environment variables of a container.
///
/// # Errors
/// With what is missing, in the kubelet's words.
pub(crate) fn variables(
    bound: &BoundPod,
    container: &Container,
    snapshot: &Snapshot,
    place: Place<'_>,
) -> Result<Vec<(String, String)>, String> {
    let namespace = &bound.reference.namespace;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    if bound.spec.enable_service_links != Some(false) {
        for stored in snapshot.list_in(&SERVICES, namespace) {
            if let Ok(service) = stored.object.view::<Service>() {
                known.extend(of_service(stored.object.name(), &service));
            }
        }
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut entries = BTreeMap::new();
        if let Some(from) = &source.config_map_ref {
            entries = config_map(snapshot, namespace, &from.name, from.optional)?.unwrap_or_default();
        } else if let Some(from) = &source.secret_ref {
            entries = secret(snapshot, namespace, &from.name, from.optional)?.unwrap_or_default();
        }
        for (name, value) in entries {
            known.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) => Some(expand(text, &known)),
            (None, Some(source)) => from(bound, container, snapshot, place, source)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            known.insert(variable.name.clone(), value);
        }
    }
    Ok(known.into_iter().collect())
}

/// `$(NAME)` in a text becomes the variable's value, `$$` becomes `$`; an unknown name stays as it is written.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => _ = write!(result, "$({name})"),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

fn from(
    bound: &BoundPod,
    container: &Container,
    snapshot: &Snapshot,
    place: Place<'_>,
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    let namespace = &bound.reference.namespace;
    let entry =
        |entries: Option<BTreeMap<String, Vec<u8>>>, kind: &str, name: &str, key: &str, optional: Option<bool>| {
            match entries.and_then(|mut entries| entries.remove(key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
                None if optional == Some(true) => Ok(None),
                None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
            }
        };
    if let Some(key) = &source.config_map_key_ref {
        let entries = config_map(snapshot, namespace, &key.name, key.optional)?;
        return entry(entries, "ConfigMap", &key.name, &key.key, key.optional);
    }
    if let Some(key) = &source.secret_key_ref {
        let entries = secret(snapshot, namespace, &key.name, key.optional)?;
        return entry(entries, "Secret", &key.name, &key.key, key.optional);
    }
    if let Some(field) = &source.field_ref {
        return self::field(bound, place, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        let named = resource.container_name.as_deref().unwrap_or(&container.name);
        let of = bound.containers().map(|(container, _)| container).find(|container| container.name == named);
        let of = of.ok_or_else(|| format!("container {named} not found in pod {}", bound.reference.name))?;
        return self::resource(of, &resource.resource, resource.divisor.as_ref().map(|divisor| divisor.0.as_str()))
            .map(Some);
    }
    Err("unsupported source of an environment variable".to_owned())
}

/// The pod's own field at a path such as `metadata.labels['app']`.
pub(crate) fn field(bound: &BoundPod, place: Place<'_>, path: &str) -> Result<String, String> {
    let metadata = &bound.pod.metadata;
    let subscript = |list: &str| path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']");
    let value = |map: &Option<BTreeMap<String, String>>, name: &str| {
        map.as_ref().and_then(|map| map.get(name)).cloned().unwrap_or_default()
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(name, value)| format!("{name}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => bound.reference.name.clone(),
        "metadata.namespace" => bound.reference.namespace.clone(),
        "metadata.uid" => bound.reference.uid.clone(),
        "metadata.labels" => lines(&metadata.labels),
        "metadata.annotations" => lines(&metadata.annotations),
        "spec.nodeName" => place.node.to_owned(),
        "spec.serviceAccountName" => bound.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => place.host.to_owned(),
        "status.podIP" | "status.podIPs" => place.address.to_owned(),
        _ => match (subscript("metadata.labels"), subscript("metadata.annotations")) {
            (Some(name), _) => value(&metadata.labels, name),
            (_, Some(name)) => value(&metadata.annotations, name),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        },
    })
}

/// A request or limit, divided and rounded up, as `resourceFieldRef` has it.
fn resource(container: &Container, path: &str, divisor: Option<&str>) -> Result<String, String> {
    let (list, name) = path.split_once('.').ok_or_else(|| format!("unsupported container resource: {path}"))?;
    let amount = match list {
        "limits" => resources::limit(container, name),
        "requests" => resources::request(container, name),
        _ => return Err(format!("unsupported container resource: {path}")),
    }
    .unwrap_or(Quantity::ZERO);
    let divisor: Quantity =
        divisor.filter(|text| *text != "0").unwrap_or("1").parse().map_err(|error| format!("{error}"))?;
    let (amount, divisor) =
        if name == "cpu" { (amount.millis(), divisor.millis()) } else { (amount.units(), divisor.units()) };
    let divisor = divisor.max(1);
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

/// The entries of a config map; `None` if it is not there and need not be.
pub(crate) fn config_map(
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let Some(stored) = snapshot.find(&CONFIGMAPS, Some(namespace), name) else {
        return missing("configmap", name, optional);
    };
    let map: ConfigMap = stored.object.view().map_err(|error| format!("configmap {name:?} cannot be read: {error}"))?;
    let mut entries: BTreeMap<String, Vec<u8>> =
        map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
    entries.extend(map.binary_data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value)));
    Ok(Some(entries))
}

/// The entries of a secret; `None` if it is not there and need not be.
pub(crate) fn secret(
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let Some(stored) = snapshot.find(&SECRETS, Some(namespace), name) else {
        return missing("secret", name, optional);
    };
    let secret: Secret = stored.object.view().map_err(|error| format!("secret {name:?} cannot be read: {error}"))?;
    Ok(Some(secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value)).collect()))
}

fn missing<T>(kind: &str, name: &str, optional: Option<bool>) -> Result<Option<T>, String> {
    if optional == Some(true) { Ok(None) } else { Err(format!("{kind} {name:?} not found")) }
}

/// The variables Kubernetes makes of a service with an address: its own (`WEB_SERVICE_HOST`) and those of Docker's links.
fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let (Some(address), Some(ports)) = (spec.cluster_ip.as_deref(), spec.ports.as_deref()) else { return Vec::new() };
    let Some(first) = ports.first().filter(|_| !address.is_empty() && address != "None") else { return Vec::new() };
    let variable = |name: &str| name.to_ascii_uppercase().replace('-', "_");
    let prefix = variable(name);
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{}", protocol.to_ascii_lowercase(), port.port);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((format!("{prefix}_SERVICE_PORT_{}", variable(name)), port.port.to_string()));
        }
        if index == 0 {
            variables.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
        variables.push((format!("{port_prefix}_PROTO"), protocol.to_ascii_lowercase()));
        variables.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{port_prefix}_ADDR"), address.to_owned()));
        variables.push((port_prefix, url));
    }
    variables
}

#[cfg(test)]
mod tests {
    use quorate_proto::{object::Object, txn::Txn};
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::tests::bound;

    pub(crate) fn snapshot(objects: &[Value]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for value in objects {
            let object = Object::from_value(value.clone()).unwrap();
            let kind = quorate_proto::kinds::Kind::of(object.api_version(), object.kind()).unwrap();
            let key = kind.key(object.namespace(), object.name()).unwrap();
            snapshot.commit(&Txn::new().create(key, object.to_document())).unwrap();
        }
        snapshot
    }

    fn of(container: &Value, objects: &[Value]) -> Result<BTreeMap<String, String>, String> {
        let bound = bound("web-1", json!({ "containers": [container] }));
        let place = Place { node: "n1", host: "192.0.2.1", address: "10.214.0.2" };
        variables(&bound, &bound.spec.containers[0], &snapshot(objects), place).map(|list| list.into_iter().collect())
    }

    fn config(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": data})
    }

    #[test]
    fn every_source_of_a_variable_is_followed() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}, "data": {"token": "czNjcjN0"}});
        let container = json!({"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "APP_"}],
        "env": [
            {"name": "PLAIN", "value": "a"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "MADE", "value": "$(PLAIN)-$(APP_colour) $$(PLAIN) $(NOPE)"},
        ]});
        let found = of(&container, &[config(&json!({"colour": "red"})), secret]).unwrap();
        let expected = [
            ("ADDRESS", "10.214.0.2"),
            ("APP_colour", "red"),
            ("COLOUR", "red"),
            ("CPUS", "2"),
            ("MADE", "a-red $(PLAIN) $(NOPE)"),
            ("MEMORY", "64"),
            ("NODE", "n1"),
            ("PLAIN", "a"),
            ("TOKEN", "s3cr3t"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_missing_source_is_named_unless_it_is_optional() {
        let env = |optional: bool| json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x", "optional": optional}}}]});
        assert_eq!(of(&env(false), &[]).unwrap_err(), "configmap \"settings\" not found");
        let error = of(&env(false), &[config(&json!({"y": "1"}))]).unwrap_err();
        assert_eq!(error, "couldn't find key x in ConfigMap shop/settings");
        assert_eq!(of(&env(true), &[]), Ok(BTreeMap::new()));
    }

    #[test]
    fn a_service_is_announced_the_way_docker_links_were() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-db", "namespace": "shop"},
            "spec": {"clusterIP": "10.213.0.7", "ports": [{"name": "sql", "port": 5432}]}});
        let found = of(&json!({"name": "c"}), &[service]).unwrap();
        let expected = [
            ("MY_DB_PORT", "tcp://10.213.0.7:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.213.0.7:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.213.0.7"),
            ("MY_DB_PORT_5432_TCP_PORT", "5432"),
            ("MY_DB_PORT_5432_TCP_PROTO", "tcp"),
            ("MY_DB_SERVICE_HOST", "10.213.0.7"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
