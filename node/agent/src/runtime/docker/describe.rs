//! Between our words and the engine's: what a container is made from, and what inspection tells of it (pure).
//!
//! Invariant: everything needed to adopt a container is in its labels.

use std::{collections::HashMap, time::Duration};

use bollard::{
    auth::DockerCredentials,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HealthConfig, HostConfig,
        HostConfigLogConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum, SystemInfo,
    },
};
use quorate_proto::world::Timestamp;

use super::{Config, prepare};
use crate::{
    resources::{CPU_PERIOD, HOLDER_OOM_SCORE},
    runtime::{Container, ContainerSpec, Credentials, HolderSpec, Info, PodRef, Role, State},
};

/// Labels that other tools know.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Labels of ours.
pub(super) const CLUSTER: &str = "quorate.io/cluster";
const NODE: &str = "quorate.io/node";
const TYPE: &str = "quorate.io/type";
const ATTEMPT: &str = "quorate.io/attempt";
const GRACE: &str = "quorate.io/grace-seconds";
const HASH: &str = "quorate.io/hash";
/// It has a file for its last words; if that stays empty, its log may stand for it.
const MESSAGE: &str = "quorate.io/termination-message";
const MESSAGE_FILE: &str = "File";
const MESSAGE_LOG: &str = "FallbackToLogsOnError";
const HOLDER: &str = "quorate.io/holder";

/// How a holder names itself where a container's name is expected, as Kubernetes' tools know it.
const POD_CONTAINER: &str = "POD";
/// Seconds after which a holder that does not end is killed.
const HOLDER_STOP: i64 = 10;
/// The least CPU shares: a holder waits.
const HOLDER_SHARES: i64 = 2;
/// A container's log, at most: the engine keeps it without bound unless told otherwise.
const LOG: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

fn labels(config: &Config, pod: &PodRef, attempt: u32, grace: Duration) -> HashMap<String, String> {
    let labels = [
        (CLUSTER, config.cluster.to_string()),
        (NODE, config.node.clone()),
        (POD_NAME, pod.name.clone()),
        (POD_NAMESPACE, pod.namespace.clone()),
        (POD_UID, pod.uid.clone()),
        (ATTEMPT, attempt.to_string()),
        (GRACE, grace.as_secs().to_string()),
    ];
    labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
}

fn host_config() -> HostConfig {
    let log = LOG.map(|(option, value)| (option.to_owned(), value.to_owned()));
    HostConfig {
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log.into()) }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

fn no_health_check() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

/// A list, unless it is empty: the engine then takes its own default.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

pub(super) fn holder(holder: &HolderSpec, config: &Config, oom_floor: i64) -> ContainerCreateBody {
    let mut labels = labels(config, &holder.pod, holder.attempt, holder.grace);
    labels.insert(TYPE.to_owned(), "holder".to_owned());
    labels.insert(CONTAINER_NAME.to_owned(), POD_CONTAINER.to_owned());
    let dns = holder.dns.clone().unwrap_or_default();
    let sysctls: HashMap<String, String> = holder.sysctls.clone().into_iter().collect();
    ContainerCreateBody {
        hostname: Some(holder.hostname.clone()),
        image: Some(prepare::holder_image()),
        entrypoint: Some(vec![prepare::HOLDER_PATH.to_owned()]),
        healthcheck: Some(no_health_check()),
        labels: Some(labels),
        stop_timeout: Some(HOLDER_STOP),
        host_config: Some(HostConfig {
            network_mode: Some(if holder.host_network { "host".to_owned() } else { config.network.clone() }),
            dns: some(dns.servers),
            dns_search: some(dns.searches),
            dns_options: some(dns.options),
            extra_hosts: some(holder.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
            ipc_mode: Some("shareable".to_owned()),
            sysctls: Some(sysctls).filter(|sysctls| !sysctls.is_empty()),
            cpu_shares: Some(HOLDER_SHARES),
            oom_score_adj: Some(HOLDER_OOM_SCORE.max(oom_floor)),
            readonly_rootfs: Some(true),
            ..host_config()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Where the last words of a container that ended are: in a file, or also at the end of its log; `None` for one made without.
pub(super) fn message_from_log(inspected: &ContainerInspectResponse) -> Option<bool> {
    let policy = inspected.config.as_ref()?.labels.as_ref()?.get(MESSAGE)?;
    Some(policy == MESSAGE_LOG)
}

/// `message`: the file of the node that the container writes its last words to.
pub(super) fn creation(
    container: &ContainerSpec,
    config: &Config,
    oom_floor: i64,
    message: Option<String>,
) -> ContainerCreateBody {
    let mut labels = labels(config, &container.pod_ref(), container.attempt, container.grace);
    labels.insert(TYPE.to_owned(), "container".to_owned());
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels.insert(HASH.to_owned(), container.hash.clone());
    labels.insert(HOLDER.to_owned(), container.holder.clone());
    if message.is_some() {
        let policy = if container.message_from_log { MESSAGE_LOG } else { MESSAGE_FILE };
        labels.insert(MESSAGE.to_owned(), policy.to_owned());
    }
    let joined = format!("container:{}", container.holder);
    let processes = match (container.host_processes, container.share_processes) {
        (true, _) => Some("host".to_owned()),
        (false, true) => Some(joined.clone()),
        (false, false) => None,
    };
    let message = message.map(|source| crate::runtime::Mount {
        source,
        target: container.message_path.clone(),
        read_only: false,
    });
    let mounts = container.mounts.iter().chain(&message).map(|mount| Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    });
    let limits = container.limits;
    ContainerCreateBody {
        user: container.user.clone(),
        tty: Some(container.tty),
        open_stdin: Some(container.stdin),
        env: Some(container.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: some(container.command.clone()),
        cmd: some(container.args.clone()),
        image: Some(container.image.clone()),
        working_dir: container.working_dir.clone(),
        healthcheck: Some(no_health_check()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            network_mode: Some(joined.clone()),
            ipc_mode: Some(joined),
            pid_mode: processes,
            cpu_shares: Some(limits.cpu_shares),
            cpu_period: limits.cpu_quota.map(|_| CPU_PERIOD),
            cpu_quota: limits.cpu_quota,
            memory: limits.memory,
            memory_swap: limits.memory,
            oom_score_adj: Some(limits.oom_score.max(oom_floor)),
            mounts: some(mounts.collect()),
            group_add: some(container.groups.iter().map(ToString::to_string).collect()),
            privileged: Some(container.privileged),
            readonly_rootfs: Some(container.read_only_root),
            cap_add: some(container.add_capabilities.clone()),
            cap_drop: some(container.drop_capabilities.clone()),
            security_opt: container.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
            ..host_config()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A container of ours, from what inspection tells; `None` if its labels are not those we give.
pub(super) fn container(inspected: &ContainerInspectResponse, network: &str) -> Option<Container> {
    let config = inspected.config.as_ref()?;
    let labels = config.labels.as_ref()?;
    let label = |name: &str| labels.get(name).cloned();
    let role = match label(TYPE)?.as_str() {
        "holder" => Role::Holder,
        "container" => Role::Container { name: label(CONTAINER_NAME)?, hash: label(HASH)?, holder: label(HOLDER)? },
        _ => return None,
    };
    let networks = inspected.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let address = networks.and_then(|networks| networks.get(network)?.ip_address.as_ref()?.parse().ok());
    let state = state(inspected);
    Some(Container {
        id: inspected.id.clone()?,
        node: label(NODE)?,
        pod: PodRef { namespace: label(POD_NAMESPACE)?, name: label(POD_NAME)?, uid: label(POD_UID)? },
        address: address.filter(|_| role == Role::Holder && matches!(state, State::Running { .. })),
        role,
        attempt: label(ATTEMPT)?.parse().ok()?,
        grace: Duration::from_secs(label(GRACE)?.parse().ok()?),
        image: config.image.clone().unwrap_or_default(),
        image_id: inspected.image.clone().unwrap_or_default(),
        state,
    })
}

fn state(inspected: &ContainerInspectResponse) -> State {
    let state = inspected.state.clone().unwrap_or_default();
    let time = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let started = time(state.started_at.as_ref());
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        Some(
            ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING,
        ) => State::Exited {
            started,
            finished: time(state.finished_at.as_ref()),
            code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1),
            out_of_memory: state.oom_killed == Some(true),
            message: state.error.unwrap_or_default(),
            words: String::new(),
        },
        _ => State::Running { started },
    }
}

pub(super) fn info(info: SystemInfo) -> Info {
    let architecture = match info.architecture.as_deref() {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => other.unwrap_or_default(),
    };
    Info {
        architecture: architecture.to_owned(),
        version: format!("docker://{}", info.server_version.unwrap_or_default()),
        kernel: info.kernel_version.unwrap_or_default(),
        os_image: info.operating_system.unwrap_or_default(),
        cpus: info.ncpu.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        memory: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
    }
}

/// The registry an image comes from, as it is named in credentials.
pub(super) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "index.docker.io",
    }
}

/// The reference with a tag: the engine would fetch every tag there is of a reference without one.
pub(super) fn tagged(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or_default();
    if reference.contains('@') || name.contains(':') { reference.to_owned() } else { format!("{reference}:latest") }
}

pub(super) fn login(credentials: &Credentials) -> DockerCredentials {
    DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.clone()),
        serveraddress: Some(credentials.registry.clone()),
        ..DockerCredentials::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest_and_one_with_a_port_has_none() {
        let tags = ["web", "web:1", "r.example:5000/web", "r.example/web@sha256:00"].map(tagged);
        assert_eq!(tags, ["web:latest", "web:1", "r.example:5000/web:latest", "r.example/web@sha256:00"]);
    }

    #[test]
    fn credentials_go_to_the_registry_they_are_for() {
        let registries = ["web", "team/web", "r.example:5000/web", "localhost/web"].map(registry);
        assert_eq!(registries, ["index.docker.io", "index.docker.io", "r.example:5000", "localhost"]);
    }
}
