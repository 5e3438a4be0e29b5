use insta::assert_snapshot;
use proptest::prelude::*;
use quorate_proto::{
    kinds::{ADDRESSES, SERVICES},
    schema,
};
use serde_json::json;

use super::*;
use crate::testing::{World, config_map, cronjob, daemonset, deployment, document, job, node, pod, service};

fn changes(plans: &[Plan]) -> Vec<ChangeKind> {
    plans.iter().map(|plan| plan.change).collect()
}

#[test]
fn a_new_object_gets_identity_time_generation_and_defaults() {
    let mut world = World::new();
    let plan = world.apply(&deployment("web")).unwrap();
    assert_eq!(plan.change, ChangeKind::Created);
    let stored = world.get("deploy", "web").unwrap();
    assert_eq!(stored, plan.object);
    assert_eq!((stored.generation(), stored.uid().len()), (1, 36));
    assert_eq!(stored.creation_timestamp(), Some("2027-01-15T08:00:00Z"));
    assert_eq!(stored.namespace(), Some("default"));
    assert_eq!(stored.text(&["spec", "strategy", "rollingUpdate", "maxSurge"]), Some("25%"));
    assert_eq!(stored.text(&["spec", "template", "spec", "restartPolicy"]), Some("Always"));
}

#[test]
fn applying_the_same_manifest_again_writes_nothing() {
    let mut world = World::new();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    for manifest in [
        deployment("web"),
        daemonset("agent"),
        pod("p"),
        service("web"),
        config_map("c", &json!({"a": "1"})),
        secret,
        namespace,
    ] {
        let first = world.apply(&manifest).unwrap();
        let revision = world.snapshot.revision();
        let again = world.apply(&manifest).unwrap();
        assert_eq!(changes(&[first, again]), [ChangeKind::Created, ChangeKind::Unchanged], "{manifest}");
        assert_eq!(world.snapshot.revision(), revision);
    }
}

#[test]
fn what_a_manifest_drops_goes_and_what_others_set_stays() {
    let mut world = World::new();
    let mut manifest = config_map("c", &json!({"a": "1", "b": "2"}));
    world.apply(&manifest).unwrap();
    world.patch("cm", "c", &json!({"data": {"theirs": "3"}})).unwrap();
    manifest["data"] = json!({"a": "4"});
    assert_eq!(world.apply(&manifest).unwrap().change, ChangeKind::Configured);
    assert_eq!(world.get("cm", "c").unwrap().at(&["data"]), Some(&json!({"a": "4", "theirs": "3"})));
}

#[test]
fn applying_over_an_object_that_was_created_otherwise_says_what_it_keeps() {
    let mut world = World::new();
    world.create(&config_map("c", &json!({"old": "1"}))).unwrap();
    let plan = world.apply(&config_map("c", &json!({"new": "2"}))).unwrap();
    assert_eq!(plan.warnings.len(), 1);
    assert_eq!(world.get("cm", "c").unwrap().at(&["data"]), Some(&json!({"old": "1", "new": "2"})));
    assert_eq!(world.apply(&config_map("c", &json!({"new": "2"}))).unwrap().warnings, [""; 0]);
}

#[test]
fn a_generation_rises_with_the_spec_and_not_with_labels() {
    let mut world = World::new();
    let mut manifest = deployment("web");
    world.apply(&manifest).unwrap();
    manifest["metadata"]["labels"] = json!({"team": "shop"});
    assert_eq!(world.apply(&manifest).unwrap().object.generation(), 1);
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    assert_eq!(world.apply(&manifest).unwrap().object.generation(), 2);
    assert_eq!(world.scale("deploy", "web", 5).unwrap().object.generation(), 3);
    assert_eq!(world.scale("deploy", "web", 5).unwrap().change, ChangeKind::Unchanged);
}

#[test]
fn what_only_the_cluster_sets_is_dropped_from_what_users_send() {
    let mut world = World::new();
    let mut manifest = pod("p");
    manifest["metadata"]["uid"] = json!("mine");
    manifest["metadata"]["generation"] = json!(9);
    manifest["metadata"]["creationTimestamp"] = Value::Null;
    manifest["status"] = json!({"phase": "Running"});
    let stored = world.create(&manifest).unwrap().object;
    assert_ne!(stored.uid(), "mine");
    assert_eq!((stored.generation(), stored.text(&["status", "phase"])), (1, Some("Pending")));

    let plan = world.patch("pod", "p", &json!({"status": {"phase": "Failed"}, "metadata": {"uid": "mine"}})).unwrap();
    assert_eq!(plan.change, ChangeKind::Unchanged);
    assert_eq!(plan.warnings, ["`status` is set by the cluster: it was left as it is"]);
}

#[test]
fn a_shown_object_can_be_sent_back_as_it_is() {
    let mut world = World::new();
    let mut node_port = service("np");
    node_port["spec"]["type"] = json!("NodePort");
    for (kind, name, manifest) in [
        ("deploy", "web", deployment("web")),
        ("ds", "agent", daemonset("agent")),
        ("job", "once", job("once")),
        ("cj", "nightly", cronjob("nightly")),
        ("pod", "p", pod("p")),
        ("svc", "web", service("web")),
        ("svc", "np", node_port),
    ] {
        world.apply(&manifest).unwrap();
        let stored = world.snapshot.find(Kind::named(kind).unwrap(), None, name).unwrap();
        let shown = stored.shown();
        assert_eq!(schema::check(&shown), Ok(Vec::new()), "the defaults of {name} are accepted in silence");
        let shown = shown.into_value();
        assert_eq!(world.replace(&shown).unwrap().change, ChangeKind::Unchanged);
        assert_eq!(world.apply(&shown).unwrap().change, ChangeKind::Configured, "its last manifest is another now");
        assert_eq!(world.apply(&shown).unwrap().change, ChangeKind::Unchanged);
    }
}

#[test]
fn a_replacement_keeps_the_addresses_it_does_not_name() {
    let mut world = World::new();
    let mut manifest = service("web");
    manifest["spec"]["type"] = json!("NodePort");
    let before = world.create(&manifest).unwrap().object;
    manifest["spec"]["selector"] = json!({"app": "other"});
    let after = world.replace(&manifest).unwrap().object;
    assert_eq!(before.at(&["spec", "clusterIP"]), after.at(&["spec", "clusterIP"]));
    assert_eq!(before.at(&["spec", "ports"]), after.at(&["spec", "ports"]));
}

#[test]
fn a_generated_name_is_made_once_for_a_request() {
    let mut world = World::new();
    let mut manifest = config_map("", &json!({"a": "1"}));
    manifest["metadata"] = json!({"generateName": "job-"});
    let first = world.create(&manifest).unwrap().object;
    let second = world.create(&manifest).unwrap().object;
    assert_eq!((first.name().len(), first.name() == second.name()), (9, false));
    manifest["metadata"] = json!({"generateName": format!("{}é", "x".repeat(57))});
    let third = world.create(&manifest).unwrap().object;
    assert_eq!(third.name().len(), 57 + 5, "not cut inside a character");
}

#[test]
fn a_request_planned_again_finds_what_it_made() {
    let world = World::new();
    let settings = crate::testing::settings();
    let moment = Moment { wall: world.wall, request: RequestId(99), settings: &settings };
    let manifest = document(&service("web"));
    for decide in [create, apply] {
        let mut snapshot = world.snapshot.clone();
        let first = decide(&manifest, &snapshot, &moment).unwrap();
        snapshot.commit(&first.txn).unwrap();
        let again = decide(&manifest, &snapshot, &moment).unwrap();
        assert_eq!(changes(&[first, again]), [ChangeKind::Created; 2]);
        let other = Moment { request: RequestId(100), ..moment };
        let by_another = decide(&manifest, &snapshot, &other).map(|plan| plan.change);
        assert!(matches!(by_another, Ok(ChangeKind::Unchanged) | Err(Refusal { reason: Reason::AlreadyExists, .. })));
    }
}

#[test]
fn service_addresses_are_given_once_and_freed() {
    let mut world = World::new();
    let first = world.apply(&service("a")).unwrap().object;
    let address = first.text(&["spec", "clusterIP"]).unwrap().to_owned();
    let record = world.snapshot.find(&ADDRESSES, None, &address).unwrap().object.clone();
    assert_eq!(record.text(&["spec", "owner", "uid"]), Some(first.uid()));

    let mut second = service("b");
    second["spec"]["clusterIP"] = json!(address);
    let refusal = world.apply(&second).unwrap_err();
    assert!(refusal.because.contains("which is service default/a's"), "{refusal}");

    world.delete("svc", "a", None).unwrap();
    assert!(world.snapshot.find(&ADDRESSES, None, &address).is_none());
    assert_eq!(world.apply(&second).unwrap().object.text(&["spec", "clusterIP"]), Some(address.as_str()));
}

#[test]
fn an_address_whose_service_is_gone_without_freeing_it_is_free() {
    let mut world = World::new();
    let first = world.apply(&service("a")).unwrap().object;
    let key = SERVICES.key(None, "a").unwrap();
    world.snapshot.commit(&Txn::new().delete(key)).unwrap();
    let mut second = service("b");
    second["spec"]["clusterIP"] = first.at(&["spec", "clusterIP"]).unwrap().clone();
    assert_eq!(world.apply(&second).unwrap().change, ChangeKind::Created);
}

#[test]
fn a_service_changes_its_type_and_its_addresses_follow() {
    let mut world = World::new();
    let records = |world: &World| world.snapshot.list(&ADDRESSES).count();
    let mut manifest = service("web");
    manifest["spec"]["type"] = json!("NodePort");
    let stored = world.apply(&manifest).unwrap().object;
    let port = stored.at(&["spec", "ports"]).unwrap()[0]["nodePort"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port));
    assert_eq!(records(&world), 2);

    manifest["spec"]["type"] = json!("ClusterIP");
    let stored = world.apply(&manifest).unwrap().object;
    assert_eq!(stored.at(&["spec", "ports"]).unwrap()[0].get("nodePort"), None);
    assert_eq!(records(&world), 1);

    manifest["spec"] = json!({"type": "ExternalName", "externalName": "shop.example.com"});
    let stored = world.apply(&manifest).unwrap().object;
    assert_eq!((stored.at(&["spec", "clusterIP"]), records(&world)), (None, 0));

    manifest["spec"] = json!({"clusterIP": "None", "selector": {"app": "web"}});
    world.delete("svc", "web", None).unwrap();
    let stored = world.apply(&manifest).unwrap().object;
    assert_eq!((stored.text(&["spec", "clusterIP"]), records(&world)), (Some("None"), 0));
}

#[test]
fn a_range_that_is_used_up_says_so() {
    let mut world = World::new();
    world.settings_mut().service_range = (std::net::Ipv4Addr::new(10, 0, 0, 0), 29);
    let mut seen = std::collections::BTreeSet::new();
    for name in ["a", "b", "c", "d", "e"] {
        let stored = world.apply(&service(name)).unwrap().object;
        seen.insert(stored.text(&["spec", "clusterIP"]).unwrap().to_owned());
    }
    let expected = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    let refusal = world.apply(&service("f")).unwrap_err();
    assert_eq!(refusal.because, "all addresses of the service range 10.0.0.0/29 are taken");
}

#[test]
fn a_bound_pod_gets_its_grace_and_a_waiting_one_goes_at_once() {
    let mut world = World::new();
    world.create(&pod("waiting")).unwrap();
    world.delete("pod", "waiting", None).unwrap();
    assert_eq!(world.get("pod", "waiting"), None);

    let mut manifest = pod("bound");
    manifest["spec"]["nodeName"] = json!("n1");
    world.create(&manifest).unwrap();
    let grace = |world: &World| {
        let pod = world.get("pod", "bound").unwrap();
        let seconds = pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
        (pod.deletion_timestamp().unwrap_or_default().to_owned(), seconds)
    };
    world.delete("pod", "bound", None).unwrap();
    assert_eq!(grace(&world), ("2027-01-15T08:00:30Z".to_owned(), Some(30)));
    world.delete("pod", "bound", Some(5)).unwrap();
    assert_eq!(grace(&world), ("2027-01-15T08:00:05Z".to_owned(), Some(5)));
    world.delete("pod", "bound", Some(60)).unwrap();
    assert_eq!(grace(&world).1, Some(5), "the grace only shrinks");
    world.delete("pod", "bound", Some(0)).unwrap();
    assert_eq!(grace(&world).1, Some(1), "its node still has to stop it");

    world.put(node("n1", quorate_proto::ids::NodeId(1), "Unknown"));
    world.delete("node", "n1", None).unwrap();
    world.delete("pod", "bound", None).unwrap();
    assert_eq!(world.get("pod", "bound"), None, "nobody is left to stop it");
}

#[test]
fn finalizers_are_waited_for() {
    let mut world = World::new();
    let mut manifest = config_map("c", &json!({"a": "1"}));
    manifest["metadata"]["finalizers"] = json!(["example.com/a"]);
    world.create(&manifest).unwrap();
    world.delete("cm", "c", None).unwrap();
    assert!(world.get("cm", "c").unwrap().deletion_timestamp().is_some());
    let added = json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}});
    assert!(world.patch("cm", "c", &added).is_err());
    world.patch("cm", "c", &json!({"metadata": {"finalizers": null}})).unwrap();
    assert_eq!(world.get("cm", "c"), None);
}

#[test]
fn nothing_appears_in_a_namespace_that_ends() {
    let mut world = World::new();
    world.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).unwrap();
    let mut manifest = config_map("c", &json!({"a": "1"}));
    manifest["metadata"]["namespace"] = json!("shop");
    let early = world.try_out(|snapshot, moment| create(&document(&manifest), snapshot, moment)).unwrap();
    world.delete("ns", "shop", None).unwrap();
    assert_eq!(world.get("ns", "shop").unwrap().text(&["status", "phase"]), Some("Terminating"));
    assert!(world.snapshot.commit(&early.txn).is_err(), "what was admitted before comes too late");
    assert_eq!(world.create(&manifest).unwrap_err().reason, Reason::Forbidden);
}

#[test]
fn a_node_is_cordoned_by_a_patch_and_stays_who_it_is() {
    let mut world = World::new();
    let plan = world.patch("node", "n1", &json!({"spec": {"unschedulable": true, "providerID": "other"}})).unwrap();
    assert_eq!(plan.object.at(&["spec", "unschedulable"]), Some(&json!(true)));
    assert_eq!(
        plan.object.at(&["spec", "providerID"]),
        node("n1", quorate_proto::ids::NodeId(1), "True").pointer("/spec/providerID")
    );
    let plan = world.patch("node", "n1", &json!({"spec": {"unschedulable": null}})).unwrap();
    assert_eq!(plan.object.at(&["spec", "unschedulable"]), None);
}

#[test]
fn a_job_selects_its_pods_by_its_uid_and_can_still_be_paused_and_given_more_time() {
    let mut world = World::new();
    let stored = world.apply(&job("once")).unwrap().object;
    let uid = stored.uid().to_owned();
    assert_eq!(stored.text(&["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"]), Some(&*uid));
    assert_eq!(stored.text(&["spec", "template", "metadata", "labels", "job-name"]), Some("once"));
    assert_eq!(stored.at(&["spec", "completions"]), Some(&json!(1)));
    let changes = json!({"spec": {"suspend": true, "parallelism": 4, "backoffLimit": 9, "activeDeadlineSeconds": 60}});
    assert_eq!(world.patch("job", "once", &changes).unwrap().change, ChangeKind::Configured);
    let queue = json!({"spec": {"parallelism": 2}});
    let mut manifest = job("queue");
    manifest["spec"]["parallelism"] = queue["spec"]["parallelism"].clone();
    assert_eq!(world.apply(&manifest).unwrap().object.at(&["spec", "completions"]), None, "a queue of work");
}

#[test]
fn a_secret_keeps_its_texts_as_data() {
    let mut world = World::new();
    let mut manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"user": "anna", "pass": "x"}});
    let stored = world.apply(&manifest).unwrap().object;
    assert_eq!(stored.at(&["data"]), Some(&json!({"user": "YW5uYQ==", "pass": "eA=="})));
    assert_eq!((stored.at(&["stringData"]), stored.text(&["type"])), (None, Some("Opaque")));
    manifest["stringData"] = json!({"user": "anna"});
    let stored = world.apply(&manifest).unwrap().object;
    assert_eq!(stored.at(&["data"]), Some(&json!({"user": "YW5uYQ=="})), "what the manifest drops goes");
}

/// A change to a good object, and how it is refused.
fn refused(kind: &str, path: &str, value: Value) -> String {
    let mut world = World::new();
    let mut manifest = match kind {
        "Deployment" => deployment("web"),
        "DaemonSet" => daemonset("web"),
        "Job" => job("web"),
        "CronJob" => cronjob("web"),
        "Pod" => pod("web"),
        "Service" => service("web"),
        "ConfigMap" => config_map("web", &json!({"a": "1"})),
        other => json!({"apiVersion": "v1", "kind": other, "metadata": {"name": "web"}}),
    };
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(parent).unwrap();
    parent[field] = value;
    match world.apply(&manifest) {
        Ok(plan) => format!("accepted: {}", plan.object),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn refusals_say_what_because_and_what_next() {
    let container = "/spec/containers/0";
    let bad = |path: &str| format!("{container}/{path}");
    let cases = [
        ("Pod", "/metadata/name".to_owned(), json!("Web_1")),
        ("Pod", "/metadata/name".to_owned(), json!("x".repeat(254))),
        ("Pod", "/metadata/namespace".to_owned(), json!("nowhere")),
        ("Pod", "/metadata/labels".to_owned(), json!({"a b": "c", "d": "e f"})),
        ("Pod", "/apiVersion".to_owned(), json!("v2")),
        ("Pod", "/kind".to_owned(), json!("Pot")),
        ("Pod", "/kind".to_owned(), json!("Gateway")),
        ("Pod", "/kind".to_owned(), json!("JoinToken")),
        ("Pod", "/spec/containers".to_owned(), json!([])),
        ("Pod", "/spec/restartPolicy".to_owned(), json!("Sometimes")),
        ("Pod", "/spec/schedulerName".to_owned(), json!("mine")),
        ("Pod", "/spec/dnsPolicy".to_owned(), json!("None")),
        ("Pod", "/spec/hostAliases".to_owned(), json!([{"ip": "10.0.0", "hostnames": ["a b"]}])),
        ("Pod", "/spec/tolerations".to_owned(), json!([{"effect": "Never"}, {"key": "a", "tolerationSeconds": 3}])),
        ("Pod", "/spec/volumes".to_owned(), json!([{"name": "v", "hostPath": {"path": "../etc"}, "emptyDir": {}}])),
        ("Pod", bad("restartPolicy"), json!("Always")),
        ("Pod", bad("env"), json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.image"}}}])),
        ("Pod", bad("imagePolicy"), json!("Always")),
        ("Pod", bad("image"), json!("")),
        ("Pod", bad("name"), json!("Web")),
        ("Pod", bad("ports"), json!([{"containerPort": 0}, {"containerPort": 80, "name": "HTTP"}])),
        ("Pod", bad("env"), json!([{"name": "a=b"}, {"name": "c", "valueFrom": {}}])),
        ("Pod", bad("volumeMounts"), json!([{"name": "v", "mountPath": "data"}])),
        ("Pod", bad("resources"), json!({"requests": {"cpu": "2", "memory": "lots"}, "limits": {"cpu": "1"}})),
        ("Pod", bad("readinessProbe"), json!({"periodSeconds": 0})),
        (
            "Pod",
            bad("lifecycle"),
            json!({"preStop": {"sleep": {"seconds": -1}}, "postStart": {"exec": {}, "httpGet": {"port": 0}}}),
        ),
        ("Deployment", "/spec/replicas".to_owned(), json!(-1)),
        ("Deployment", "/spec/selector".to_owned(), json!({})),
        ("Deployment", "/spec/selector".to_owned(), json!({"matchLabels": {"app": "other"}})),
        ("Deployment", "/spec/strategy".to_owned(), json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})),
        ("Deployment", "/spec/strategy".to_owned(), json!({"rollingUpdate": {"maxUnavailable": "200%"}})),
        ("Deployment", "/spec/template/spec/restartPolicy".to_owned(), json!("Never")),
        ("DaemonSet", "/spec/replicas".to_owned(), json!(3)),
        ("DaemonSet", "/spec/template/spec/restartPolicy".to_owned(), json!("OnFailure")),
        ("DaemonSet", "/spec/updateStrategy".to_owned(), json!({"type": "Recreate"})),
        ("DaemonSet", "/spec/updateStrategy".to_owned(), json!({"rollingUpdate": {"maxUnavailable": 0}})),
        ("DaemonSet", "/spec/updateStrategy".to_owned(), json!({"rollingUpdate": {"maxSurge": 1}})),
        ("DaemonSet", "/spec/updateStrategy".to_owned(), json!({"type": "OnDelete", "rollingUpdate": {}})),
        ("Job", "/metadata/name".to_owned(), json!("x".repeat(64))),
        ("Job", "/spec/template/spec/restartPolicy".to_owned(), json!("Always")),
        ("Job", "/spec/parallelism".to_owned(), json!(100_001)),
        ("Job", "/spec/backoffLimit".to_owned(), json!(-1)),
        ("Job", "/spec/completionMode".to_owned(), json!("Numbered")),
        ("Job", "/spec/selector".to_owned(), json!({"matchLabels": {"app": "web"}})),
        ("Job", "/spec/manualSelector".to_owned(), json!(true)),
        ("Job", "/spec/backoffLimitPerIndex".to_owned(), json!(1)),
        ("Job", "/spec/podFailurePolicy".to_owned(), json!({"rules": [{"action": "Ignore"}]})),
        ("Job", "/spec/template/metadata".to_owned(), json!({"labels": {"job-name": "other", "controller-uid": "u"}})),
        ("Job", "/spec".to_owned(), json!({"completionMode": "Indexed", "parallelism": 2, "template": {}})),
        ("CronJob", "/metadata/name".to_owned(), json!("x".repeat(53))),
        ("CronJob", "/spec/schedule".to_owned(), json!("0 25 * * *")),
        ("CronJob", "/spec/schedule".to_owned(), json!("0 0 L * *")),
        ("CronJob", "/spec/schedule".to_owned(), json!("0 0 30 2 *")),
        ("CronJob", "/spec/timeZone".to_owned(), json!("Europe/Atlantis")),
        ("CronJob", "/spec/concurrencyPolicy".to_owned(), json!("Queue")),
        ("CronJob", "/spec/startingDeadlineSeconds".to_owned(), json!(-1)),
        ("CronJob", "/spec/jobTemplate".to_owned(), json!({})),
        ("CronJob", "/spec/jobTemplate/spec/selector".to_owned(), json!({"matchLabels": {"a": "b"}})),
        ("CronJob", "/spec/jobTemplate/spec/template/spec/restartPolicy".to_owned(), json!("Always")),
        ("Service", "/metadata/name".to_owned(), json!("1web")),
        ("Service", "/spec/ports".to_owned(), json!([])),
        ("Service", "/spec/ports".to_owned(), json!([{"port": 80}, {"port": 80}])),
        ("Service", "/spec/ports".to_owned(), json!([{"port": 80, "nodePort": 30080}])),
        ("Service", "/spec/type".to_owned(), json!("LoadBalancer")),
        ("Service", "/spec/type".to_owned(), json!("ExternalName")),
        ("Service", "/spec/clusterIP".to_owned(), json!("192.168.0.1")),
        ("Service", "/spec/clusterIP".to_owned(), json!("10.213.0.10")),
        ("ConfigMap", "/data".to_owned(), json!({"a/b": "1"})),
        ("ConfigMap", "/metadata/generateName".to_owned(), json!("web-")),
        ("Namespace", "/metadata/namespace".to_owned(), json!("default")),
        ("Node", "/metadata/name".to_owned(), json!("n9")),
        ("Event", "/metadata/name".to_owned(), json!("e")),
    ];
    let texts = cases.map(|(kind, path, value)| {
        let shown: String = value.to_string().chars().take(60).collect();
        format!("{kind} {path}: {shown}\n{}\n", refused(kind, &path, value))
    });
    assert_snapshot!(texts.join("\n"));
}

#[test]
fn changes_that_cannot_be_made_say_why() {
    let mut world = World::new();
    world.apply(&deployment("web")).unwrap();
    world.apply(&daemonset("agent")).unwrap();
    world.apply(&job("once")).unwrap();
    world.apply(&service("web")).unwrap();
    world.apply(&pod("p")).unwrap();
    world.apply(&config_map("c", &json!({"a": "1"}))).unwrap();
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}});
    let mut other_revision = config_map("c", &json!({"a": "2"}));
    other_revision["metadata"]["resourceVersion"] = json!("3");
    let texts = [
        world.patch("deploy", "web", &selector).unwrap_err(),
        world.patch("ds", "agent", &selector).unwrap_err(),
        world.scale("ds", "agent", 3).unwrap_err(),
        world.patch("job", "once", &json!({"spec": {"completions": 3}})).unwrap_err(),
        world.patch("job", "once", &json!({"spec": {"template": {"spec": {"hostname": "x"}}}})).unwrap_err(),
        world.patch("deploy", "web", &json!({"metadata": {"name": "other"}})).unwrap_err(),
        world.patch("deploy", "web", &json!({"spec": {"replica": 3}})).unwrap_err(),
        world.patch("deploy", "web", &json!([1])).unwrap_err(),
        world.patch("svc", "web", &json!({"spec": {"clusterIP": "10.213.0.99"}})).unwrap_err(),
        world.patch("pod", "p", &json!({"spec": {"nodeName": "n1"}})).unwrap_err(),
        world.patch("pots", "p", &json!({})).unwrap_err(),
        world.replace(&other_revision).unwrap_err(),
        world.replace(&config_map("d", &json!({}))).unwrap_err(),
        world.create(&config_map("c", &json!({}))).unwrap_err(),
        world.scale("pod", "p", 3).unwrap_err(),
        world.delete("ns", "default", None).unwrap_err(),
        world.delete("node", "n1", None).unwrap_err(),
        world.delete("pod", "q", None).unwrap_err(),
        world.delete("event", "e", None).unwrap_err(),
        world.delete("jointoken", "t", None).unwrap_err(),
    ];
    assert_snapshot!(texts.map(|refusal| refusal.to_string()).join("\n\n"));
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let mut world = World::new();
    let huge = config_map("c", &json!({"a": "x".repeat(MAX_OBJECT)}));
    let large = config_map("c", &json!({"a": "x".repeat(300 << 10)}));
    let many = config_map("c", &json!({"a": "x".repeat((1 << 20) + 1)}));
    let texts = [world.apply(&huge).unwrap_err(), world.apply(&large).unwrap_err(), world.create(&many).unwrap_err()];
    assert_snapshot!(texts.map(|refusal| refusal.to_string()).join("\n\n"));
    assert_eq!(world.create(&large).unwrap().change, ChangeKind::Created);
}

fn manifests() -> impl Strategy<Value = Value> {
    let containers = prop::collection::btree_map("[abc]", ("[xy]:[12]", prop::option::of(1_u32..60)), 1..4);
    let labels = prop::collection::btree_map("[a-c]", "[12]", 0..3);
    let volumes = prop::collection::btree_set("[vw]", 0..3);
    (containers, labels, volumes, prop::option::of(0_u32..5), any::<bool>()).prop_map(
        |(containers, labels, volumes, replicas, recreate)| {
            let mut manifest = deployment("web");
            manifest["metadata"]["labels"] = json!(labels);
            let spec = &mut manifest["spec"];
            match replicas {
                Some(replicas) => spec["replicas"] = json!(replicas),
                None => drop(spec.as_object_mut().and_then(|spec| spec.remove("replicas"))),
            }
            if recreate {
                spec["strategy"] = json!({"type": "Recreate"});
            }
            let containers: Vec<_> = containers
                .into_iter()
                .map(|(name, (image, port))| match port {
                    Some(port) => json!({"name": name, "image": image, "ports": [{"containerPort": port}]}),
                    None => json!({"name": name, "image": image, "env": [{"name": "A", "value": image}]}),
                })
                .collect();
            spec["template"]["spec"]["containers"] = json!(containers);
            if !volumes.is_empty() {
                let volumes: Vec<_> = volumes.into_iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
                spec["template"]["spec"]["volumes"] = json!(volumes);
            }
            manifest
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_applied_over_another_leads_where_it_leads_alone(first in manifests(), second in manifests()) {
        let mut both = World::new();
        both.apply(&first).unwrap();
        both.apply(&second).unwrap();
        let revision = both.snapshot.revision();
        both.apply(&second).unwrap();
        prop_assert_eq!(both.snapshot.revision(), revision, "twice is as once");
        let mut alone = World::new();
        alone.apply(&second).unwrap();
        let spec = |world: &World| world.get("deploy", "web").unwrap().at(&["spec"]).cloned();
        // What only defaults filled in may stay as it was: only that can differ, and only in its own field.
        let (mut both, mut alone) = (spec(&both).unwrap(), spec(&alone).unwrap());
        for spec in [&mut both, &mut alone] {
            for defaulted in ["strategy", "replicas"] {
                if second["spec"].get(defaulted).is_none() {
                    spec.as_object_mut().unwrap().remove(defaulted);
                }
            }
            for container in spec["template"]["spec"]["containers"].as_array_mut().unwrap() {
                container.as_object_mut().unwrap().remove("imagePullPolicy");
            }
        }
        prop_assert_eq!(both, alone);
    }
}
