//! What a pod is made from: it waits for what is missing, and not a moment longer.

use serde_json::Value;

use super::*;

fn object(kind: &str, name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "data": data})
}

fn message(store: &Store, pod: &str) -> String {
    let status = store.status(pod).unwrap_or_default();
    status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned()
}

/// How long it takes from now until a pod is ready.
async fn ready_after(store: &Store, pod: &str) -> Duration {
    let begin = tokio::time::Instant::now();
    store.until_ready(pod).await;
    begin.elapsed()
}

/// A start takes 0.3 s; every pause after a failure is longer than this.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_pod_says_what_it_lacks_and_starts_at_once_when_that_appears() {
    let of = |field: &str, value: Value| json!({"containers": [{"name": "web", "image": "web:1", field: value}]});
    let volume = |source: Value| {
        let mut spec = of("volumeMounts", json!([{"name": "settings", "mountPath": "/etc/web"}]));
        spec["volumes"] = json!([source]);
        spec
    };
    let volume_of_map = volume(json!({"name": "settings", "configMap": {"name": "settings"}}));
    let volume_of_secret = volume(json!({"name": "settings", "secret": {"secretName": "keys"}}));
    let item = json!({"name": "settings", "items": [{"key": "new", "path": "new"}]});
    let volume_of_key = volume(json!({"name": "settings", "configMap": item}));
    let all = of("envFrom", json!([{"configMapRef": {"name": "settings"}}]));
    let key =
        |field: &str, name: &str| of("env", json!([{"name": "X", "valueFrom": {field: {"name": name, "key": "new"}}}]));
    let map = |data: Value| object("ConfigMap", "settings", &data);
    let secret = |data: Value| object("Secret", "keys", &data);
    let (old, new) = (json!({"old": "MQ=="}), json!({"new": "MQ=="}));
    let no_map = "configmap \"settings\" not found";
    let no_volume = "MountVolume.SetUp failed for volume \"settings\" : ";
    let no_key = "references non-existent config key: new";
    let cases = [
        (volume_of_map, None, map(new.clone()), format!("{no_volume}{no_map}")),
        (volume_of_secret, None, secret(new.clone()), format!("{no_volume}secret \"keys\" not found")),
        (volume_of_key, Some(map(old.clone())), map(new.clone()), format!("{no_volume}{no_key}")),
        (all, None, map(new.clone()), no_map.to_owned()),
        (
            key("configMapKeyRef", "settings"),
            Some(map(old.clone())),
            map(new.clone()),
            "couldn't find key new in ConfigMap shop/settings".to_owned(),
        ),
        (
            key("secretKeyRef", "keys"),
            Some(secret(old)),
            secret(new),
            "couldn't find key new in Secret shop/keys".to_owned(),
        ),
    ];
    for (spec, before, after, lacks) in cases {
        let sim = sim();
        before.into_iter().for_each(|object| sim.store.put(object));
        sim.store.pod("web", spec);
        sim.store.until(&lacks, |store| message(store, "web") == lacks).await;
        assert_eq!(waiting(&sim.store, "web"), "CreateContainerConfigError");
        assert_eq!(sim.store.status("web").unwrap()["phase"], "Pending");
        let reason = if lacks.starts_with("MountVolume") { "FailedMount " } else { "Failed Error: " };
        let event = format!("{reason}{lacks}");
        sim.store.until("an event says so", |store| store.events().contains(&event)).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        sim.store.put(after);
        let took = ready_after(&sim.store, "web").await;
        assert!(took < AT_ONCE, "{took:?} after what it lacked: {lacks}");
        sim.running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_nobody_has_is_asked_for_again_and_again_ever_more_slowly() {
    let sim = sim();
    sim.runtime.lack("web:1", false);
    sim.store.pod("web", web());
    sim.store.until("the first try failed", |store| waiting(store, "web") == "ErrImagePull").await;
    sim.store.until("the second failed", |store| waiting(store, "web") == "ImagePullBackOff").await;
    sim.runtime.lack("web:1", true);
    let took = ready_after(&sim.store, "web").await;
    assert!(took > Duration::from_secs(15), "nothing the pod names changed, and it was tried again after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_image_is_asked_for_at_once_when_its_name_or_the_secret_for_its_registry_was_put_right() {
    let sim = sim();
    let (refused, corrected) = ("registry.example.com/web:1", "web:2");
    sim.runtime.lack(refused, false);
    let spec = |image: &str| json!({"imagePullSecrets": [{"name": "registry"}], "containers": [{"name": "web", "image": image}]});
    for name in ["secret", "image"] {
        sim.store.pod(name, spec(refused));
        sim.store.until("it failed twice", |store| waiting(store, name) == "ImagePullBackOff").await;
    }
    sim.store.pod("image", spec(corrected));
    let took = ready_after(&sim.store, "image").await;
    assert!(took < AT_ONCE, "{took:?} after its image was corrected");

    sim.runtime.lack(refused, true);
    sim.store.put(object("Secret", "registry", &json!({".dockerconfigjson": "e30="})));
    let took = ready_after(&sim.store, "secret").await;
    assert!(took < AT_ONCE, "{took:?} after its secret appeared");
}
