//! The kinds of the group `apps`, with the columns `kubectl` shows for them.

use super::{AGE, Access, Cell, Kind, NAME, computed, path, wide};

/// Deployments.
pub const DEPLOYMENTS: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short: &["deploy"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        computed("READY", "deployment_ready"),
        path("UP-TO-DATE", &["status", "updatedReplicas"], "0"),
        path("AVAILABLE", &["status", "availableReplicas"], "0"),
        AGE,
        wide("CONTAINERS", Cell::Computed("template_containers")),
        wide("IMAGES", Cell::Computed("template_images")),
        wide("SELECTOR", Cell::Computed("label_selector")),
    ],
};

/// Replica sets.
pub const REPLICASETS: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short: &["rs"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        path("DESIRED", &["spec", "replicas"], "1"),
        path("CURRENT", &["status", "replicas"], "0"),
        path("READY", &["status", "readyReplicas"], "0"),
        AGE,
        wide("CONTAINERS", Cell::Computed("template_containers")),
        wide("IMAGES", Cell::Computed("template_images")),
        wide("SELECTOR", Cell::Computed("label_selector")),
    ],
};

/// Daemon sets.
pub const DAEMONSETS: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short: &["ds"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        path("DESIRED", &["status", "desiredNumberScheduled"], "0"),
        path("CURRENT", &["status", "currentNumberScheduled"], "0"),
        path("READY", &["status", "numberReady"], "0"),
        path("UP-TO-DATE", &["status", "updatedNumberScheduled"], "0"),
        path("AVAILABLE", &["status", "numberAvailable"], "0"),
        computed("NODE SELECTOR", "template_node_selector"),
        AGE,
        wide("CONTAINERS", Cell::Computed("template_containers")),
        wide("IMAGES", Cell::Computed("template_images")),
        wide("SELECTOR", Cell::Computed("label_selector")),
    ],
};
