//! What is to be made for a pod: its volumes, its holder, its containers, each complete (pure).
//!
//! Invariant: a runtime needs nothing but what is returned here; what is missing in the cluster is an error that names it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use bytes::Bytes;
use quorate_proto::{
    k8s::api::core::v1::{self as core, Capabilities, Container, KeyToPath},
    kinds::{CONFIGMAPS, SECRETS},
    quantity::Quantity,
    snapshot::Snapshot,
};
use serde_json::Value;

use crate::{
    config::Config,
    environment::{self, Place},
    pod::BoundPod,
    resources,
    runtime::{ContainerSpec, Credentials, DnsConfig, File, HolderSpec, Mount, Volume, VolumeSource},
};

/// The longest hostname, in bytes (`HOST_NAME_MAX` less its end).
const MAX_HOSTNAME: usize = 63;
/// Permission bits of files for which none are given, as in Kubernetes.
const FILE_MODE: u32 = 0o644;

/// The holder of a pod.
pub(crate) fn holder(bound: &BoundPod, config: &Config, attempt: u32) -> HolderSpec {
    let spec = &bound.spec;
    let mut hostname = spec.hostname.clone().unwrap_or_else(|| bound.reference.name.clone());
    hostname.truncate(MAX_HOSTNAME);
    let hostname = hostname.trim_end_matches(['-', '.']).to_owned();
    let aliases = spec.host_aliases.iter().flatten();
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    HolderSpec {
        pod: bound.reference.clone(),
        attempt,
        grace: bound.grace(),
        host_network: bound.host_network(),
        hostname,
        dns: dns(bound, config),
        hosts: aliases
            .flat_map(|alias| alias.hostnames.iter().flatten().map(|name| (name.clone(), alias.ip.clone())))
            .collect(),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        share_processes: spec.share_process_namespace == Some(true),
    }
}

/// How a pod resolves names: `dnsPolicy`, then what `dnsConfig` adds.
fn dns(bound: &BoundPod, config: &Config) -> Option<DnsConfig> {
    let spec = &bound.spec;
    let namespace = &bound.reference.namespace;
    let zone = &config.zone;
    let cluster = || DnsConfig {
        servers: vec![config.dns.to_string()],
        searches: vec![format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone.clone()],
        options: ["ndots:2", "timeout:2", "attempts:2"].map(str::to_owned).to_vec(),
    };
    let base = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if !bound.host_network() => Some(cluster()),
        "ClusterFirstWithHostNet" => Some(cluster()),
        "None" => Some(DnsConfig::default()),
        _ => None,
    };
    let Some(more) = &spec.dns_config else { return base };
    let mut dns = base.unwrap_or_default();
    dns.servers.extend(more.nameservers.iter().flatten().cloned());
    dns.searches.extend(more.searches.iter().flatten().cloned());
    for option in more.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        dns.options.retain(|given| given.split(':').next() != Some(name));
        dns.options.push(option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
    }
    Some(dns)
}

/// What a container is joined to and made with, beyond the pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) holder: &'a str,
    pub(crate) attempt: u32,
    /// Where each volume of the pod is on the node.
    pub(crate) volumes: &'a BTreeMap<String, String>,
    pub(crate) place: Place<'a>,
    /// Bytes.
    pub(crate) node_memory: u64,
}

/// Where a container writes why it ended, unless it says otherwise.
const MESSAGE_PATH: &str = "/dev/termination-log";

/// A container of a pod.
///
/// # Errors
/// With what is missing, in the kubelet's words.
pub(crate) fn container(
    bound: &BoundPod,
    container: &Container,
    snapshot: &Snapshot,
    around: Around<'_>,
) -> Result<ContainerSpec, String> {
    let env = environment::variables(bound, container, snapshot, around.place)?;
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| environment::expand(text, &known)).collect()
    };
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let source = around
            .volumes
            .get(&mount.name)
            .ok_or_else(|| format!("volumeMounts names `{}`, which is no volume of the pod", mount.name))?;
        let below = match (&mount.sub_path, &mount.sub_path_expr) {
            (_, Some(expression)) => Some(environment::expand(expression, &known)),
            (Some(path), None) => Some(path.clone()),
            (None, None) => None,
        };
        let files = is_files(bound, &mount.name);
        let source = match below.filter(|below| !below.is_empty()) {
            // What a container can write to it could turn into a link that leads out of the volume.
            Some(_) if !files => {
                return Err("subPath is supported only in configMap, secret and downwardAPI volumes".to_owned());
            }
            Some(below) if below.starts_with('/') || below.split('/').any(|part| part == "..") => {
                return Err(format!("subPath `{below}` leads out of the volume `{}`", mount.name));
            }
            Some(below) => format!("{source}/{below}"),
            None => source.clone(),
        };
        let read_only = files || mount.read_only == Some(true);
        mounts.push(Mount { source, target: mount.mount_path.clone(), read_only });
    }
    let own = container.security_context.clone().unwrap_or_default();
    let pod = bound.spec.security_context.clone().unwrap_or_default();
    let (user, group) = (own.run_as_user.or(pod.run_as_user), own.run_as_group.or(pod.run_as_group));
    let user = match (user, group) {
        (Some(0), _) if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) => {
            return Err("container's runAsUser breaks non-root policy".to_owned());
        }
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(_)) => return Err("runAsGroup is specified without runAsUser".to_owned()),
        (None, None) => None,
    };
    let privileged = own.privileged == Some(true);
    let Capabilities { add, drop } = own.capabilities.unwrap_or_default();
    Ok(ContainerSpec {
        name: container.name.clone(),
        namespace: bound.reference.namespace.clone(),
        pod: bound.reference.name.clone(),
        uid: bound.reference.uid.clone(),
        attempt: around.attempt,
        hash: bound.hash(&container.name).to_owned(),
        grace: bound.grace(),
        holder: around.holder.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        command: expand(&container.command),
        args: expand(&container.args),
        env,
        working_dir: container.working_dir.clone(),
        user,
        groups: pod.supplemental_groups.unwrap_or_default().into_iter().chain(pod.fs_group).collect(),
        mounts,
        limits: resources::limits(&bound.spec, container, around.node_memory),
        read_only_root: own.read_only_root_filesystem == Some(true),
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        add_capabilities: add.unwrap_or_default(),
        drop_capabilities: drop.unwrap_or_default(),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        message_path: container.termination_message_path.clone().unwrap_or_else(|| MESSAGE_PATH.to_owned()),
        message_from_log: container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        share_processes: bound.spec.share_process_namespace == Some(true),
        host_processes: bound.spec.host_pid == Some(true),
    })
}

/// Whether a volume holds files of the cluster's, which no container changes.
fn is_files(bound: &BoundPod, name: &str) -> bool {
    let volume = bound.spec.volumes.iter().flatten().find(|volume| volume.name == name);
    volume.is_some_and(|volume| volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some())
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// `imagePullPolicy`, or Kubernetes' default: `Always` for `latest` or no tag, else `IfNotPresent`.
pub(crate) fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None => {
            let image = container.image.as_deref().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            let fixed = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if fixed { PullPolicy::IfNotPresent } else { PullPolicy::Always }
        }
    }
}

/// What `imagePullSecrets` hold for registries. A secret that is missing or of another kind is left out, as in Kubernetes.
pub(crate) fn credentials(bound: &BoundPod, snapshot: &Snapshot) -> Vec<Credentials> {
    let names = bound.spec.image_pull_secrets.iter().flatten().map(|reference| &reference.name);
    names
        .filter_map(|name| snapshot.find(&SECRETS, Some(&bound.reference.namespace), name))
        .filter_map(|stored| stored.object.view::<core::Secret>().ok()?.data?.remove(".dockerconfigjson"))
        .filter_map(|config| serde_json::from_slice::<Value>(&config.0).ok())
        .flat_map(|config| {
            let registries = config.get("auths").and_then(Value::as_object).cloned().unwrap_or_default();
            registries.into_iter().filter_map(|(registry, entry)| {
                let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
                let registry = registry.trim_start_matches("https://").split('/').next().unwrap_or_default().to_owned();
                Some(Credentials { registry, username: text("username")?, password: text("password")? })
            })
        })
        .collect()
}

/// Tells whether a start that failed is worth another try: changes when a container of the pod, or an object that the pod names does.
pub(crate) fn sources(bound: &BoundPod, snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    let namespace = Some(bound.reference.namespace.as_str());
    let version = |kind, name: &str| snapshot.find(kind, namespace, name).map(|stored| stored.modified);
    volumes_version(bound, snapshot).hash(&mut hasher);
    for secret in bound.spec.image_pull_secrets.iter().flatten() {
        version(&SECRETS, &secret.name).hash(&mut hasher);
    }
    for (container, _) in bound.containers() {
        bound.hash(&container.name).hash(&mut hasher);
        for source in container.env_from.iter().flatten() {
            source.config_map_ref.as_ref().map(|map| version(&CONFIGMAPS, &map.name)).hash(&mut hasher);
            source.secret_ref.as_ref().map(|secret| version(&SECRETS, &secret.name)).hash(&mut hasher);
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            source.config_map_key_ref.as_ref().map(|key| version(&CONFIGMAPS, &key.name)).hash(&mut hasher);
            source.secret_key_ref.as_ref().map(|key| version(&SECRETS, &key.name)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Tells whether a pod's volumes are to be brought up to date: changes when an object they are made from does.
pub(crate) fn volumes_version(bound: &BoundPod, snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    let version =
        |kind, name: &str| snapshot.find(kind, Some(&bound.reference.namespace), name).map(|stored| stored.modified);
    for volume in bound.spec.volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            version(&CONFIGMAPS, &map.name).hash(&mut hasher);
        } else if let Some(name) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) {
            version(&SECRETS, name).hash(&mut hasher);
        } else if volume.downward_api.is_some() {
            (&bound.pod.metadata.labels, &bound.pod.metadata.annotations).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The volumes of a pod, with what is in them.
///
/// # Errors
/// With the volume and what it lacks.
pub(crate) fn volumes(bound: &BoundPod, snapshot: &Snapshot, place: Place<'_>) -> Result<Vec<Volume>, String> {
    let volumes = bound.spec.volumes.iter().flatten();
    volumes
        .map(|volume| {
            let source = source(bound, snapshot, place, volume)
                .map_err(|why| format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))?;
            Ok(Volume { name: volume.name.clone(), source })
        })
        .collect()
}

fn source(
    bound: &BoundPod,
    snapshot: &Snapshot,
    place: Place<'_>,
    volume: &core::Volume,
) -> Result<VolumeSource, String> {
    let namespace = &bound.reference.namespace;
    if let Some(map) = &volume.config_map {
        let entries = environment::config_map(snapshot, namespace, &map.name, map.optional)?.unwrap_or_default();
        let files = files(entries, map.items.as_deref(), mode(map.default_mode), map.optional)?;
        return Ok(VolumeSource::Files { files, secret: false });
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let entries = environment::secret(snapshot, namespace, name, secret.optional)?.unwrap_or_default();
        let files = files(entries, secret.items.as_deref(), mode(secret.default_mode), secret.optional)?;
        return Ok(VolumeSource::Files { files, secret: true });
    }
    if let Some(fields) = &volume.downward_api {
        let mut files = BTreeMap::new();
        for item in fields.items.iter().flatten() {
            let Some(field) = &item.field_ref else {
                return Err("only fieldRef is supported in a downwardAPI volume".to_owned());
            };
            let content = Bytes::from(environment::field(bound, place, &field.field_path)?);
            let mode = item.mode.map_or_else(|| mode(fields.default_mode), |given| mode(Some(given)));
            files.insert(inside(&item.path)?, File { content, mode });
        }
        return Ok(VolumeSource::Files { files, secret: false });
    }
    if let Some(empty) = &volume.empty_dir {
        let size = empty.size_limit.as_ref().and_then(|size| size.0.parse::<Quantity>().ok());
        let size = size.and_then(|size| u64::try_from(size.units()).ok());
        return Ok(VolumeSource::Empty { memory: empty.medium.as_deref() == Some("Memory"), size });
    }
    if let Some(host) = &volume.host_path {
        return Ok(VolumeSource::Host { path: host.path.clone(), kind: host.type_.clone().unwrap_or_default() });
    }
    Err("this kind of volume is not supported".to_owned())
}

fn mode(given: Option<i32>) -> u32 {
    given.and_then(|mode| u32::try_from(mode).ok()).map_or(FILE_MODE, |mode| mode & 0o777)
}

fn files(
    mut entries: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: Option<bool>,
) -> Result<BTreeMap<String, File>, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file = |content: Vec<u8>| File { content: content.into(), mode: default };
        return entries.into_iter().map(|(name, content)| Ok((inside(&name)?, file(content)))).collect();
    };
    let mut files = BTreeMap::new();
    for item in items {
        match entries.remove(&item.key) {
            Some(content) => {
                let mode = item.mode.map_or(default, |given| mode(Some(given)));
                files.insert(inside(&item.path)?, File { content: content.into(), mode });
            }
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

/// A path below the volume: it does not lead out of it, nor into what the volume keeps for itself (`..data`).
fn inside(path: &str) -> Result<String, String> {
    let good = !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|part| !part.starts_with("..") && !part.is_empty());
    if good { Ok(path.to_owned()) } else { Err(format!("`{path}` is no path below a volume")) }
}

#[cfg(test)]
mod tests;
