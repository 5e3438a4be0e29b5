use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kinds::{DEPLOYMENTS, PODS, SERVICES};

fn deployment(containers: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

fn containers(value: &Value) -> &Value {
    &value["spec"]["template"]["spec"]["containers"]
}

#[test]
fn what_others_wrote_stays_and_what_the_manifest_no_longer_says_goes() {
    let last = json!({"metadata": {"labels": {"app": "web", "old": "1"}}, "spec": {"replicas": 3}});
    let manifest = json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"paused": true}});
    let live = json!({"metadata": {"labels": {"app": "web", "old": "1", "theirs": "x"}, "uid": "u"}, "spec": {"replicas": 5, "minReadySeconds": 4}});
    let expected = json!({"metadata": {"labels": {"app": "shop", "theirs": "x"}, "uid": "u"}, "spec": {"paused": true, "minReadySeconds": 4}});
    assert_eq!(three_way(&DEPLOYMENTS, Some(&last), &manifest, &live), expected);
}

#[test]
fn containers_are_merged_by_name_and_keep_their_defaults_and_the_manifests_order() {
    let last = deployment(&json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
    let live = deployment(&json!([
        {"name": "a", "image": "a:1", "imagePullPolicy": "IfNotPresent"},
        {"name": "injected", "image": "i"},
        {"name": "b", "image": "b:1"},
    ]));
    let manifest = deployment(&json!([{"name": "c", "image": "c:1"}, {"name": "a", "image": "a:2"}]));
    let merged = three_way(&DEPLOYMENTS, Some(&last), &manifest, &live);
    assert_eq!(
        containers(&merged),
        &json!([
            {"name": "c", "image": "c:1"},
            {"name": "a", "image": "a:2", "imagePullPolicy": "IfNotPresent"},
            {"name": "injected", "image": "i"},
        ])
    );
}

#[test]
fn a_null_removes_a_field_even_one_the_manifest_never_had() {
    let live = json!({"spec": {"replicas": 5, "paused": true}});
    let manifest = json!({"spec": {"paused": null}});
    assert_eq!(three_way(&DEPLOYMENTS, None, &manifest, &live), json!({"spec": {"replicas": 5}}));
}

#[test]
fn a_changed_strategy_or_volume_keeps_nothing_of_its_former_kind() {
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let manifest = json!({"spec": {"strategy": {"type": "Recreate"}}});
    assert_eq!(three_way(&DEPLOYMENTS, None, &manifest, &live), manifest);
    let same = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
    assert_eq!(three_way(&DEPLOYMENTS, None, &same, &live), live);

    let live = json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}]}});
    let manifest = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    assert_eq!(three_way(&PODS, None, &manifest, &live), manifest);
}

#[test]
fn items_that_share_a_merge_key_replace_the_list_instead_of_swallowing_each_other() {
    let manifest = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}});
    let live = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    assert_eq!(three_way(&SERVICES, None, &manifest, &live), manifest);
}

#[test]
fn finalizers_are_a_set_that_others_add_to() {
    let last = json!({"metadata": {"finalizers": ["a/1", "a/2"]}});
    let manifest = json!({"metadata": {"finalizers": ["a/1"]}});
    let live = json!({"metadata": {"finalizers": ["a/1", "a/2", "b/1"]}});
    let expected = json!({"metadata": {"finalizers": ["a/1", "b/1"]}});
    assert_eq!(three_way(&PODS, Some(&last), &manifest, &live), expected);
}

/// Documents like a deployment's, small enough to collide often.
fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!("x")), Just(json!(true))];
    let map = prop::collection::btree_map("[abc]", scalar.clone(), 0..3);
    let item = ("[abc]", "[xy]", map.clone())
        .prop_map(|(name, image, more)| json!({"name": name, "image": image, "resources": more}));
    let strategy = prop_oneof![
        Just(json!({"type": "Recreate"})),
        Just(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
        Just(json!({"type": "RollingUpdate"})),
    ];
    let containers = prop::collection::vec(item, 0..4);
    let finalizers = prop::collection::btree_set("[abc]", 0..3);
    (map, containers, strategy, finalizers, scalar).prop_map(|(labels, containers, strategy, finalizers, replicas)| {
        json!({
            "metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"replicas": replicas, "strategy": strategy, "template": {"spec": {"containers": containers}}},
        })
    })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(last in document(), manifest in document(), live in document()) {
        let once = three_way(&DEPLOYMENTS, Some(&last), &manifest, &live);
        prop_assert_eq!(&three_way(&DEPLOYMENTS, Some(&manifest), &manifest, &once), &once);
    }

    #[test]
    fn what_is_applied_over_nothing_else_is_the_manifest(last in document(), manifest in document()) {
        prop_assert_eq!(three_way(&DEPLOYMENTS, Some(&last), &manifest, &last), manifest);
    }
}
