//! How a namespace ends.

use serde_json::json;

use crate::cluster::{Cluster, deployment, pod};

#[test]
fn a_namespace_ends_contents_first() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    let mut web = deployment("web", 2, "web:1");
    web["metadata"]["namespace"] = "shop".into();
    cluster.apply(web);
    for number in 0..100 {
        cluster.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{number}"), "namespace": "shop"}}));
    }
    cluster.apply(pod("elsewhere"));
    cluster.run();
    cluster.patch(&key, &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    let decision = cluster.settle();
    assert_eq!(decision.reasons[&key], "waits for 2 pods to end");
    cluster.run();
    assert_eq!(cluster.objects.all().filter(|stored| stored.key.namespace() == Some("shop")).count(), 0);
    assert!(cluster.objects.get(&key).is_none());
    assert_eq!(cluster.show(), ["elsewhere n1 Ready"]);
}
