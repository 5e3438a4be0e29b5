//! What a container may use: Kubernetes' requests and limits as the numbers a cgroup takes (pure).
//!
//! The rules are the kubelet's (`pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`).
//!
//! Invariant: whole numbers throughout; what is rounded is rounded as the kubelet does.

use quorate_proto::k8s::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use quorate_proto::quantity::Quantity;

/// One scheduling period of a CPU limit, in microseconds.
pub(crate) const CPU_PERIOD: i64 = 100_000;
/// The least quota per period that the kernel accepts, in microseconds.
const LEAST_QUOTA: i64 = 1_000;
/// The least CPU shares that the kernel accepts, and the most.
const SHARES: (i64, i64) = (2, 262_144);
/// Of a holder: about the last to be killed when the machine runs out of memory.
pub(crate) const HOLDER_OOM_SCORE: i64 = -998;

/// What a container may use, as a cgroup has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Its weight against others when cores are short.
    pub cpu_shares: i64,
    /// Microseconds of CPU per [`CPU_PERIOD`].
    pub cpu_quota: Option<i64>,
    /// Bytes of memory, without any swap.
    pub memory: Option<i64>,
    /// −1000 (never killed when memory runs out) to 1000 (first).
    pub oom_score: i64,
}

/// How dependable a pod's resources are (Kubernetes' quality of service classes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Every container has CPU and memory limits, and requests equal to them.
    Guaranteed,
    /// Some container has a request or a limit.
    Burstable,
    /// None has any.
    BestEffort,
}

impl Quality {
    /// As in `status.qosClass`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The limits of a container of a pod, on a node with so many bytes of memory.
#[must_use]
pub(crate) fn limits(pod: &PodSpec, container: &Container, node_memory: u64) -> Limits {
    let cpu_limit = limit(container, "cpu").map(Quantity::millis);
    let memory_limit = limit(container, "memory").map(Quantity::units).filter(|bytes| *bytes > 0);
    let cpu_weight = request(container, "cpu").map(Quantity::millis).or(cpu_limit).unwrap_or(0);
    Limits {
        cpu_shares: (i128::from(cpu_weight) * 1024 / 1000).try_into().unwrap_or(SHARES.1).clamp(SHARES.0, SHARES.1),
        cpu_quota: cpu_limit
            .filter(|milli| *milli > 0)
            .map(|milli| milli.saturating_mul(CPU_PERIOD / 1000).max(LEAST_QUOTA)),
        memory: memory_limit,
        oom_score: oom_score(quality(pod), memory_request(container), node_memory),
    }
}

/// The quality of service class of a pod.
#[must_use]
pub(crate) fn quality(pod: &PodSpec) -> Quality {
    let containers = || pod.init_containers.iter().flatten().chain(&pod.containers);
    let some = |container: &Container, resource: &str| {
        [limit(container, resource), request(container, resource)]
            .into_iter()
            .flatten()
            .any(|amount| amount > Quantity::ZERO)
    };
    if !containers().any(|container| some(container, "cpu") || some(container, "memory")) {
        return Quality::BestEffort;
    }
    let guaranteed = containers().all(|container| {
        ["cpu", "memory"].into_iter().all(|resource| match limit(container, resource) {
            Some(limit) => limit > Quantity::ZERO && request(container, resource).is_none_or(|asked| asked == limit),
            None => false,
        })
    });
    if guaranteed { Quality::Guaranteed } else { Quality::Burstable }
}

/// The quality of service class of a whole pod object; of one without a spec, the least.
#[must_use]
pub(crate) fn quality_of(pod: &Pod) -> Quality {
    pod.spec.as_ref().map_or(Quality::BestEffort, quality)
}

fn oom_score(quality: Quality, memory_request: i64, node_memory: u64) -> i64 {
    match quality {
        Quality::Guaranteed => -997,
        Quality::BestEffort => 1000,
        Quality::Burstable => {
            let used = 1000 * i128::from(memory_request) / i128::from(node_memory.max(1));
            i64::try_from(1000 - used).unwrap_or(3).clamp(3, 999)
        }
    }
}

fn memory_request(container: &Container) -> i64 {
    request(container, "memory").or_else(|| limit(container, "memory")).map_or(0, Quantity::units)
}

/// A limit of a container.
#[must_use]
pub(crate) fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref()?.get(resource))
}

/// A request of a container, as it was written.
#[must_use]
pub(crate) fn request(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.requests.as_ref()?.get(resource))
}

/// What is no quantity was not let in by the API; from a newer version it counts as not given.
fn amount(written: Option<&Written>) -> Option<Quantity> {
    written?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: &[Value]) -> PodSpec {
        let containers: Vec<_> =
            resources.iter().map(|resources| json!({"name": "c", "resources": resources})).collect();
        serde_json::from_value(json!({ "containers": containers })).unwrap()
    }

    fn limits_of(resources: Value) -> Limits {
        let pod = pod(&[resources]);
        limits(&pod, &pod.containers[0], 16 << 30)
    }

    #[test]
    fn a_guaranteed_container_gets_exactly_what_it_asks_for() {
        let limits = limits_of(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let expected = Limits { cpu_shares: 512, cpu_quota: Some(50_000), memory: Some(67_108_864), oom_score: -997 };
        assert_eq!(limits, expected);
    }

    #[test]
    fn a_container_that_asks_for_nothing_is_the_first_to_go() {
        let expected = Limits { cpu_shares: 2, cpu_quota: None, memory: None, oom_score: 1000 };
        assert_eq!(limits_of(json!({})), expected);
    }

    #[test]
    fn what_a_burstable_container_asks_for_protects_it() {
        let limits = limits_of(json!({"requests": {"cpu": "1500m", "memory": "4Gi"}}));
        assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory, limits.oom_score), (1536, None, None, 750));
        assert_eq!(limits_of(json!({"requests": {"memory": "16Gi"}})).oom_score, 3);
        assert_eq!(limits_of(json!({"requests": {"memory": "1"}})).oom_score, 999);
    }

    #[test]
    fn the_kernels_least_and_most_are_kept() {
        assert_eq!(limits_of(json!({"limits": {"cpu": "1m"}})).cpu_quota, Some(1_000));
        assert_eq!(limits_of(json!({"requests": {"cpu": "1m"}})).cpu_shares, 2);
        assert_eq!(limits_of(json!({"requests": {"cpu": "10000"}})).cpu_shares, 262_144);
    }

    #[test]
    fn one_container_without_limits_makes_the_pod_burstable() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(quality(&pod(&[full.clone(), full.clone()])), Quality::Guaranteed);
        assert_eq!(quality(&pod(&[full, json!({})])), Quality::Burstable);
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(quality(&pod(&[less])), Quality::Burstable);
        assert_eq!(quality(&pod(&[json!({"requests": {"cpu": "0"}})])), Quality::BestEffort);
    }
}
