//! The kinds of the core group, with the columns `kubectl` shows for them.

use super::{AGE, Access, Cell, Kind, NAME, computed, path, wide};

/// Namespaces.
pub const NAMESPACES: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    access: Access::Full,
    columns: &[NAME, path("STATUS", &["status", "phase"], "Active"), AGE],
};

/// Nodes: made when a machine joins.
pub const NODES: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short: &["no"],
    namespaced: false,
    access: Access::Adopted,
    columns: &[
        NAME,
        computed("STATUS", "node_status"),
        computed("ROLES", "node_roles"),
        AGE,
        path("VERSION", &["status", "nodeInfo", "kubeletVersion"], "<unknown>"),
        wide("INTERNAL-IP", Cell::Computed("node_internal_ip")),
        wide("OS-IMAGE", Cell::Path(&["status", "nodeInfo", "osImage"], "<unknown>")),
        wide("KERNEL-VERSION", Cell::Path(&["status", "nodeInfo", "kernelVersion"], "<unknown>")),
        wide("CONTAINER-RUNTIME", Cell::Path(&["status", "nodeInfo", "containerRuntimeVersion"], "<unknown>")),
    ],
};

/// Config maps.
pub const CONFIGMAPS: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short: &["cm"],
    namespaced: true,
    access: Access::Full,
    columns: &[NAME, computed("DATA", "data_count"), AGE],
};

/// Secrets.
pub const SECRETS: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short: &[],
    namespaced: true,
    access: Access::Full,
    columns: &[NAME, path("TYPE", &["type"], "Opaque"), computed("DATA", "data_count"), AGE],
};

/// Services.
pub const SERVICES: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["svc"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        path("TYPE", &["spec", "type"], "ClusterIP"),
        path("CLUSTER-IP", &["spec", "clusterIP"], "<none>"),
        computed("EXTERNAL-IP", "service_external_ip"),
        computed("PORT(S)", "service_ports"),
        AGE,
        wide("SELECTOR", Cell::Computed("service_selector")),
    ],
};

/// Pods.
pub const PODS: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        computed("READY", "pod_ready"),
        computed("STATUS", "pod_status"),
        computed("RESTARTS", "pod_restarts"),
        AGE,
        wide("IP", Cell::Path(&["status", "podIP"], "<none>")),
        wide("NODE", Cell::Path(&["spec", "nodeName"], "<none>")),
    ],
};

/// Events: what happened to an object; kept for an hour.
pub const EVENTS: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    namespaced: true,
    access: Access::Observed,
    columns: &[
        computed("LAST SEEN", "event_last_seen"),
        path("TYPE", &["type"], ""),
        path("REASON", &["reason"], ""),
        computed("OBJECT", "event_object"),
        path("MESSAGE", &["message"], ""),
        wide("SOURCE", Cell::Path(&["source", "component"], "")),
        wide("COUNT", Cell::Path(&["count"], "1")),
    ],
};
