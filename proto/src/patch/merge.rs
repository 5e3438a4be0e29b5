//! How the lists of the served kinds are merged.

use crate::kinds::Kind;

/// How a manifest's list or map is merged into what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Replace,
    ByKey(&'static str),
    ByKeyRetaining(&'static str),
    Set,
    RetainKeys,
}

pub(super) fn merge_key(_kind: &Kind, path: &[&str]) -> Merge {
    match path {
        [.., "containers" | "initContainers" | "env" | "imagePullSecrets"] => Merge::ByKey("name"),
        [.., "containers" | "initContainers", "ports"] => Merge::ByKey("containerPort"),
        [.., "volumes"] => Merge::ByKeyRetaining("name"),
        [.., "volumeMounts"] => Merge::ByKey("mountPath"),
        [.., "hostAliases"] => Merge::ByKey("ip"),
        ["spec", "ports"] => Merge::ByKey("port"),
        ["metadata", "ownerReferences"] => Merge::ByKey("uid"),
        ["metadata", "finalizers"] => Merge::Set,
        ["spec", "strategy"] => Merge::RetainKeys,
        _ => Merge::Replace,
    }
}
