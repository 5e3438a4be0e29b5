//! What each field of a manifest leads to, and that the two tables are whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    kinds::{CLUSTERS, CONFIGMAPS, DEPLOYMENTS, EVENTS, NODES, PODS, SERVICES},
    object::Object,
};

use super::{table::Table, *};

const LABELS: &str = include_str!("labels.txt");

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn pod(spec: &Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}))
}

/// A pod of one container that has these fields besides its name.
fn container(mut fields: Value) -> Object {
    fields["name"] = json!("web");
    pod(&json!({"containers": [fields]}))
}

fn problems(object: &Object) -> Vec<String> {
    let problems = check(object).expect_err("it was accepted");
    problems
        .into_iter()
        .map(|problem| match problem.hint {
            Some(hint) => format!("{}\n  hint: {hint}", problem.message),
            None => problem.message,
        })
        .collect()
}

fn warnings(object: &Object) -> Vec<String> {
    check(object).unwrap().into_iter().map(|warning| warning.message).collect()
}

/// All rules that are reached from a kind, by type and field.
fn rules() -> BTreeMap<(&'static str, &'static str), Rule> {
    fn below(row: &'static TypeRow, seen: &mut BTreeSet<&'static str>, rules: &mut BTreeMap<(&str, &str), Rule>) {
        if !seen.insert(row.name) {
            return;
        }
        for (name, field) in &row.fields {
            rules.insert((row.name, name), field.rule.clone());
            if field.rule.label == Label::Honoured
                && let Some((name, _)) = field.type_.innermost()
            {
                below(TABLE.types.get(name).unwrap(), seen, rules);
            }
        }
    }
    let (mut seen, mut rules) = (BTreeSet::new(), BTreeMap::new());
    for kind in kinds() {
        below(TABLE.of(kind).unwrap(), &mut seen, &mut rules);
    }
    rules
}

#[test]
fn every_field_of_every_kind_has_a_label_and_every_label_a_field() {
    let rules = rules();
    let unlabelled: Vec<_> = rules.iter().filter(|(_, rule)| rule.reason == "it has no label").collect();
    assert!(unlabelled.is_empty(), "write labels for {unlabelled:?}");

    let (_, idle) = Table::read(include_str!("fields.txt"), LABELS);
    assert!(idle.is_empty(), "lines of labels.txt that name no field: {idle:?}");

    let reached: BTreeSet<_> = rules.keys().map(|(name, _)| *name).collect();
    let sections = LABELS.lines().filter(|line| !line.is_empty() && !line.starts_with([' ', '#']));
    let unreached: Vec<_> = sections.filter(|name| !reached.contains(name)).collect();
    assert!(unreached.is_empty(), "types of labels.txt that no honoured field leads to: {unreached:?}");
}

#[test]
fn every_label_is_one_of_four_words_and_what_is_not_honoured_says_why() {
    for line in LABELS.lines().filter_map(|line| line.strip_prefix("  ")) {
        let mut words = line.split_whitespace();
        let label = words.by_ref().nth(1).unwrap_or_default();
        match label {
            "honoured" | "server" => assert_eq!(words.next(), None, "{line}"),
            "warned" | "refused" => assert!(line.contains(" :: "), "{line}"),
            _ => panic!("`{label}` is no label: {line}"),
        }
        if let Some(next) = words.next() {
            assert!(["unless", "::"].contains(&next), "{line}");
        }
    }
}

#[test]
fn every_type_a_field_names_is_in_the_table() {
    for row in TABLE.types.values() {
        for (name, field) in &row.fields {
            if let Some((type_name, _)) = field.type_.innermost() {
                assert!(TABLE.types.contains_key(type_name), "{}.{name} is of type {type_name}", row.name);
            }
        }
    }
}

#[test]
fn security_fields_are_honoured_or_refused_and_never_only_warned_about() {
    let names = [
        "securityContext",
        "hostPID",
        "hostIPC",
        "hostUsers",
        "hostNetwork",
        "serviceAccountName",
        "serviceAccount",
        "automountServiceAccountToken",
        "runtimeClassName",
        "imagePullSecrets",
        "externalIPs",
        "loadBalancerSourceRanges",
        "shareProcessNamespace",
        "mountPropagation",
        "hostPort",
        "hostIP",
    ];
    let types = ["SecurityContext", "PodSecurityContext", "SeccompProfile", "Capabilities"];
    let mut found = 0;
    for ((type_name, field), rule) in rules() {
        if names.contains(&field) || types.contains(&type_name) {
            found += 1;
            assert!(matches!(rule.label, Label::Honoured | Label::Refused), "{type_name}.{field} is {:?}", rule.label);
        }
    }
    assert!(found > names.len() + types.len(), "the names above are no longer those of the table");
}

#[test]
fn a_misspelt_field_is_refused_with_the_one_that_was_meant() {
    assert_eq!(
        problems(&container(json!({"imagePolicy": "Always"}))),
        ["`spec.containers[0].imagePolicy` is not a field of Container\n  hint: did you mean `imagePullPolicy`?"]
    );
    assert_eq!(
        problems(&container(json!({"Image": "nginx"}))),
        ["`spec.containers[0].Image` is not a field of Container\n  hint: did you mean `image`?"]
    );
    assert_eq!(problems(&container(json!({"zzz": 1}))), ["`spec.containers[0].zzz` is not a field of Container"]);
}

#[test]
fn a_field_at_the_wrong_indentation_is_sent_where_it_belongs() {
    assert_eq!(
        problems(&container(json!({"volumes": []}))),
        [
            "`spec.containers[0].volumes` is not a field of Container\n  hint: `volumes` is a field of PodSpec: check the indentation"
        ]
    );
    let deployment = object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {}, "matchLabels": {"app": "web"}, "template": {}},
    }));
    assert_eq!(
        problems(&deployment),
        [
            "`spec.matchLabels` is not a field of DeploymentSpec\n  hint: `matchLabels` stands below `selector`: check the indentation"
        ]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_to_write_instead() {
    assert_eq!(
        problems(&container(json!({"env": [{"name": "DEBUG", "value": true}, {"name": "PORT", "value": 80}]}))),
        [
            "`spec.containers[0].env[0].value` must be a string, not true or false\n  hint: put it in quotes: without them YAML takes y, yes, on and true for true, and n, no, off and false for false",
            "`spec.containers[0].env[1].value` must be a string, not a number\n  hint: put it in quotes",
        ]
    );
    assert_eq!(
        problems(&pod(&json!({"containers": {"name": "web"}, "terminationGracePeriodSeconds": "30"}))),
        [
            "`spec.containers` must be a list, not a map\n  hint: begin each item with `- `",
            "`spec.terminationGracePeriodSeconds` must be an integer, not a string\n  hint: write it without quotes: 30",
        ]
    );
    assert_eq!(
        problems(&container(json!({"ports": [{"containerPort": 4_294_967_376_i64}, {"containerPort": 80.5}]}))),
        [
            "`spec.containers[0].ports[0].containerPort: 4294967376` is beyond 32 bits\n  hint: the least is -2147483648, the greatest 2147483647",
            "`spec.containers[0].ports[1].containerPort` must be an integer, not a fraction\n  hint: write a whole number, without quotes: 3",
        ]
    );
}

#[test]
fn a_number_or_a_string_does_where_kubernetes_takes_either() {
    let probe = json!({"httpGet": {"port": "http"}});
    let limits = json!({"cpu": 1.5, "memory": "64Mi"});
    assert_eq!(warnings(&container(json!({"livenessProbe": probe, "resources": {"limits": limits}}))), [""; 0]);
}

#[test]
fn an_amount_that_is_none_is_refused() {
    let told = problems(&container(json!({"resources": {"requests": {"cpu": "500mb", "memory": "lots"}}})));
    let [cpu, memory] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        cpu.starts_with(
            "`spec.containers[0].resources.requests[cpu]` must be a quantity: `mb` in `500mb` is no suffix"
        ),
        "{cpu}"
    );
    assert!(
        memory.starts_with("`spec.containers[0].resources.requests[memory]` must be a quantity: `lots`"),
        "{memory}"
    );
}

#[test]
fn what_a_kind_requires_must_be_there() {
    assert_eq!(
        problems(&pod(&json!({"containers": [{"image": "nginx"}], "volumes": null, "nodeName": null}))),
        ["`spec.containers[0].name` is missing: Container requires it\n  hint: add `name`"]
    );
    assert_eq!(
        problems(&pod(&json!({"containers": null}))),
        ["`spec.containers` is missing: PodSpec requires it\n  hint: add `containers`"]
    );
}

#[test]
fn a_secret_that_is_not_base64_is_refused_before_it_is_stored() {
    let secret = |data| object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data}));
    assert_eq!(warnings(&secret(json!({"password": "aHVudGVyMg=="}))), [""; 0]);
    assert_eq!(
        problems(&secret(json!({"password": "hunter2"}))),
        [
            "`data[password]` must be base64\n  hint: plain text goes into `stringData` of a Secret, or `data` of a ConfigMap"
        ]
    );
}

#[test]
fn what_is_not_honoured_and_matters_is_refused_with_a_reason() {
    let refused = container(json!({"securityContext": {"runAsNonRoot": true}, "lifecycle": {"stopSignal": "SIGINT"}}));
    assert_eq!(
        problems(&refused),
        [
            "`spec.containers[0].lifecycle.stopSignal` is refused: containers are stopped by the signal of their image",
            "`spec.containers[0].securityContext.runAsNonRoot: true` is refused: the user of an image is not checked\n  hint: set `runAsUser` beside it",
        ]
    );
    let service =
        |spec| object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}));
    assert_eq!(
        problems(&service(json!({"type": "LoadBalancer"}))),
        [
            "`spec.type: LoadBalancer` is refused: there are no load balancers to ask for\n  hint: use type `NodePort`: the port is open on every node"
        ]
    );
    assert_eq!(
        problems(&service(json!({"ipFamilies": ["IPv4", "IPv6"]}))),
        ["`spec.ipFamilies: IPv6` is refused: service addresses are IPv4"]
    );
    assert_eq!(
        problems(&container(json!({"resources": {"limits": {"cpu": 1, "nvidia.com/gpu": 1}}}))),
        ["`spec.containers[0].resources.limits: nvidia.com/gpu` is refused: only cpu and memory are limited"]
    );
}

#[test]
fn a_promise_that_holds_only_beside_another_field_is_taken_there() {
    let context = json!({"runAsNonRoot": true, "runAsUser": 1000});
    assert_eq!(warnings(&container(json!({"securityContext": context}))), [""; 0]);
    let context = json!({"runAsNonRoot": "yes", "runAsUser": 1000});
    assert_eq!(
        problems(&container(json!({"securityContext": context}))),
        [
            "`spec.containers[0].securityContext.runAsNonRoot` must be true or false, not a string\n  hint: write true or false, without quotes"
        ]
    );
}

#[test]
fn what_is_stored_and_does_nothing_is_warned_about() {
    let config = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "immutable": true}));
    assert_eq!(warnings(&config), ["`immutable: true` is stored but not honoured: it can still be changed"]);
}

#[test]
fn what_kubernetes_writes_by_itself_passes_without_a_word() {
    let pod = object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "creationTimestamp": null,
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:x": {}}}]},
        "spec": {
            "containers": [{"name": "web", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "stdin": false, "securityContext": {}}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
            "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "serviceAccount": "default", "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
            "tolerations": [{"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300}],
        },
        "status": {"phase": "Running", "something": "newer"},
    }));
    assert_eq!(warnings(&pod), [""; 0]);
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.213.0.9", "clusterIPs": ["10.213.0.9"], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"app": "web"},
            "sessionAffinity": "None", "type": "ClusterIP"},
        "status": {"loadBalancer": {}},
    }));
    assert_eq!(warnings(&service), [""; 0]);
}

#[test]
fn pod_security_labels_are_not_taken_for_a_promise() {
    let namespace = |labels| {
        object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))
    };
    assert_eq!(
        problems(&namespace(json!({"team": "x", "pod-security.kubernetes.io/enforce": "restricted"}))),
        [
            "`metadata.labels[pod-security.kubernetes.io/enforce]: restricted` is refused: the pod security standards are not enforced"
        ]
    );
    assert_eq!(
        warnings(&namespace(json!({"pod-security.kubernetes.io/audit": "baseline"}))),
        [
            "`metadata.labels[pod-security.kubernetes.io/audit]: baseline` is stored but not honoured: pods are not measured against the pod security standards"
        ]
    );
    assert_eq!(warnings(&namespace(json!({"pod-security.kubernetes.io/enforce": "privileged"}))), [""; 0]);
}

#[test]
fn a_kind_that_is_not_served_is_refused_with_the_one_that_was_meant() {
    let kind = |version: &str, kind: &str| {
        problems(&object(json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})))
    };
    assert_eq!(
        kind("extensions/v1beta1", "Deployment"),
        [
            "kind `Deployment` of apiVersion `extensions/v1beta1` is not served here\n  hint: did you mean kind `Deployment` of apiVersion `apps/v1`?"
        ]
    );
    assert_eq!(
        kind("v1", "Servce"),
        [
            "kind `Servce` of apiVersion `v1` is not served here\n  hint: did you mean kind `Service` of apiVersion `v1`?"
        ]
    );
    assert_eq!(
        kind("networking.k8s.io/v1", "Ingress"),
        [
            "kind `Ingress` of apiVersion `networking.k8s.io/v1` is not served here\n  hint: the kinds are Namespace, Node, ConfigMap, Secret, Service, Pod, ReplicaSet, Deployment, DaemonSet, Job, CronJob, Event"
        ]
    );
    assert_eq!(kind(&CLUSTERS.api_version(), CLUSTERS.kind).len(), 1);
}

#[test]
fn an_object_full_of_nonsense_gets_a_bounded_answer() {
    let nonsense: serde_json::Map<_, _> = (0..100_000).map(|index| (format!("field{index}"), json!(1))).collect();
    let problems = check(&pod(&Value::Object(nonsense))).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS);
    let long = "x".repeat(1 << 20);
    let problems = check(&pod(&json!({"containers": [], (long): 1}))).unwrap_err();
    assert!(problems[0].message.len() < 1000, "{} bytes", problems[0].message.len());
}

#[test]
fn a_field_is_merged_as_kubernetes_merges_it() {
    let template = ["spec", "template", "spec"];
    let of = |kind, path: &[&str]| merge_key(kind, path);
    let in_template = |path: &[&str]| merge_key(&DEPLOYMENTS, &[&template, path].concat());
    assert_eq!(in_template(&["containers"]), Merge::ByKey("name"));
    assert_eq!(in_template(&["containers", "ports"]), Merge::ByKey("containerPort"));
    assert_eq!(in_template(&["containers", "env"]), Merge::ByKey("name"));
    assert_eq!(in_template(&["containers", "volumeMounts"]), Merge::ByKey("mountPath"));
    assert_eq!(in_template(&["containers", "command"]), Merge::Replace);
    assert_eq!(in_template(&["volumes"]), Merge::ByKeyRetainKeys("name"));
    assert_eq!(in_template(&["tolerations"]), Merge::Replace);
    assert_eq!(of(&DEPLOYMENTS, &["spec", "strategy"]), Merge::RetainKeys);
    assert_eq!(of(&SERVICES, &["spec", "ports"]), Merge::ByKey("port"));
    assert_eq!(of(&SERVICES, &["spec", "selector"]), Merge::Fields);
    assert_eq!(of(&SERVICES, &["spec", "selector", "app"]), Merge::Replace);
    assert_eq!(of(&PODS, &["metadata", "finalizers"]), Merge::Set);
    assert_eq!(of(&PODS, &["metadata", "ownerReferences"]), Merge::ByKey("uid"));
    assert_eq!(of(&PODS, &["status", "conditions"]), Merge::ByKey("type"));
    assert_eq!(of(&NODES, &["spec", "taints"]), Merge::Replace);
    assert_eq!(of(&CONFIGMAPS, &[]), Merge::Fields);
    assert_eq!(of(&CONFIGMAPS, &["data"]), Merge::Fields);
    assert_eq!(of(&CONFIGMAPS, &["unheard", "of"]), Merge::Replace);
    assert_eq!(of(&CLUSTERS, &["spec"]), Merge::Replace);
}

#[test]
fn all_fields_of_a_kind_are_listed_down_to_the_first_that_is_not_honoured() {
    let listed: BTreeMap<_, _> = fields(&PODS).into_iter().map(|field| (field.path.clone(), field)).collect();
    assert_eq!(listed["spec.containers[].image"].label, Label::Honoured);
    assert_eq!(listed["spec.containers"].type_name, "[Container]");
    assert!(listed["spec.containers"].required);
    assert_eq!(listed["spec.schedulerName"].unless, ["default-scheduler"]);
    assert_eq!(listed["spec.securityContext.runAsNonRoot"].beside, Some("runAsUser"));
    assert_eq!(listed["spec.containers[].volumeDevices"].reason, "there are no block devices to attach");
    assert!(!listed.contains_key("spec.containers[].volumeDevices[].name"));
    assert_eq!(listed["metadata.labels[pod-security.kubernetes.io/enforce…]"].label, Label::Refused);
    for kind in kinds() {
        assert!(fields(kind).iter().any(|field| field.path == "metadata.name"), "{}", kind.kind);
    }
    assert!(fields(&EVENTS).iter().any(|field| field.label == Label::Server));
    assert_eq!(fields(&CLUSTERS), []);
}
