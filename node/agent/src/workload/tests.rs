use serde_json::json;

use super::*;
use crate::pod::tests::bound;

fn config() -> Config {
    Config {
        cluster: quorate_proto::ids::ClusterId(1),
        node: "n1".into(),
        host_address: [192, 0, 2, 1].into(),
        dns: [10, 213, 0, 10].into(),
        zone: "cluster.local".into(),
        drain: Config::DRAIN,
        parallel_starts: 1,
    }
}

fn made(spec: Value) -> Result<ContainerSpec, String> {
    let bound = bound("web", spec);
    let volumes = [("data".to_owned(), "/v/data".to_owned()), ("site".to_owned(), "/v/site".to_owned())].into();
    let place = Place { node: "n1", host: "192.0.2.1", address: "10.214.0.2" };
    let around = Around { holder: "h", attempt: 0, volumes: &volumes, place, node_memory: 1 << 30 };
    container(&bound, &bound.spec.containers[0], &Snapshot::default(), around)
}

#[test]
fn a_pod_resolves_names_in_its_namespace_first_and_outside_ones_at_once() {
    let dns = holder(&bound("web", json!({"containers": []})), &config(), 0).dns.unwrap();
    assert_eq!(dns.servers, ["10.213.0.10"]);
    assert_eq!(dns.searches, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    assert_eq!(dns.options, ["ndots:2", "timeout:2", "attempts:2"]);
}

#[test]
fn a_pods_own_resolver_settings_win() {
    let options = json!({"options": [{"name": "ndots", "value": "5"}], "searches": ["example.com"]});
    let dns = holder(&bound("web", json!({"containers": [], "dnsConfig": options})), &config(), 0).dns.unwrap();
    assert_eq!(dns.options, ["timeout:2", "attempts:2", "ndots:5"]);
    assert_eq!(dns.searches.last().unwrap(), "example.com");
    let host = holder(&bound("web", json!({"containers": [], "hostNetwork": true})), &config(), 0);
    assert!(host.host_network && host.dns.is_none());
}

#[test]
fn a_hostname_is_no_longer_than_a_kernel_takes() {
    let name = format!("{}-web", "a".repeat(62));
    assert_eq!(holder(&bound(&name, json!({"containers": []})), &config(), 0).hostname, "a".repeat(62));
}

#[test]
fn an_image_without_a_fixed_tag_is_always_fetched() {
    let policy =
        |image: &str| pull_policy(&serde_json::from_value::<Container>(json!({"name": "c", "image": image})).unwrap());
    for image in ["web", "web:latest", "registry:5000/web"] {
        assert_eq!(policy(image), PullPolicy::Always, "{image}");
    }
    for image in ["web:1", "registry:5000/web:1", "web@sha256:00"] {
        assert_eq!(policy(image), PullPolicy::IfNotPresent, "{image}");
    }
}

#[test]
fn a_sub_path_never_leads_out_of_its_volume() {
    let spec = |volume: &str, path: &str| {
        json!({
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "site", "configMap": {"name": "site"}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": volume, "mountPath": "/m", "subPath": path}]}]})
    };
    let mount = Mount { source: "/v/site/index.html".into(), target: "/m".into(), read_only: true };
    assert_eq!(made(spec("site", "index.html")).unwrap().mounts, [mount]);
    assert_eq!(made(spec("site", "a/../../b")).unwrap_err(), "subPath `a/../../b` leads out of the volume `site`");
    assert!(made(spec("data", "x")).unwrap_err().starts_with("subPath is supported only in configMap"));
    assert_eq!(made(spec("other", "")).unwrap_err(), "volumeMounts names `other`, which is no volume of the pod");
}

#[test]
fn a_containers_own_security_settings_win_over_its_pods() {
    let spec = |own: Value| json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]}, "containers": [{"name": "c", "securityContext": own}]});
    let made_with = |own| made(spec(own)).unwrap();
    let plain = made_with(json!({}));
    assert_eq!((plain.user.as_deref(), plain.groups), (Some("1000:2000"), vec![4000, 3000]));
    let tight = made_with(
        json!({"runAsUser": 7, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
    );
    assert_eq!(tight.user.as_deref(), Some("7:2000"));
    assert!(tight.read_only_root && tight.no_new_privileges && !tight.privileged);
    assert_eq!(tight.drop_capabilities, ["ALL"]);
    let root = made(spec(json!({"runAsUser": 0, "runAsNonRoot": true})));
    assert_eq!(root.unwrap_err(), "container's runAsUser breaks non-root policy");
}
