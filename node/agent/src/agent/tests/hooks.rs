//! What is called when a container was started, and before it is stopped.

use super::*;

#[tokio::test]
async fn on_docker_hooks_are_called_after_the_start_and_before_the_signal() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    let told = tempfile::tempdir().unwrap();
    let tell = |word: &str| json!({"exec": {"command": ["/bin/sh", "-c", format!("echo {word} >> /told/order")]}});
    store.pod(
        "web",
        json!({
            "terminationGracePeriodSeconds": 20,
            "volumes": [{"name": "told", "hostPath": {"path": told.path(), "type": "Directory"}}],
            "containers": [{
                "name": "web", "image": engine.image,
                "command": ["/bin/sh", "-c", "trap 'echo signal >> /told/order; exit 0' TERM; while :; do busybox sleep 0.1; done"],
                "volumeMounts": [{"name": "told", "mountPath": "/told"}],
                "lifecycle": {"postStart": tell("started"), "preStop": tell("stopping")},
            }],
        }),
    );
    store.until_ready("web").await;
    let order = || std::fs::read_to_string(told.path().join("order")).unwrap();
    assert_eq!(order(), "started\n", "a pod that is ready has begun");
    store.delete("web", 20);
    store.until("it is gone", |store| store.status("web").is_none()).await;
    assert_eq!(order(), "started\nstopping\nsignal\n");
    running.stop().await;
}

#[tokio::test]
async fn on_docker_a_container_whose_hook_fails_is_killed_says_why_and_is_started_again() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    store.pod(
        "web",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "web", "image": engine.image, "command": ["/bin/sh", "-c", SERVE],
            "lifecycle": {
                "postStart": {"exec": {"command": ["/bin/sh", "-c", "echo no database; exit 3"]}},
                "preStop": {"httpGet": {"port": 9}},
            },
        }]}),
    );
    store.until("it was started again", |store| restarts(store, "web") >= 1).await;
    let events = store.events();
    for expected in
        ["FailedPostStartHook PostStartHook failed: exit code 3: no database", "Killing FailedPostStartHook"]
    {
        assert!(events.iter().any(|event| event == expected), "no `{expected}` in {events:#?}");
    }
    assert!(events.iter().any(|event| event.starts_with("FailedPreStopHook PreStopHook failed: Get")), "{events:#?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_takes_of_the_grace_and_leaves_two_seconds() {
    for (seconds, failed) in [(5, false), (60, true)] {
        let sim = sim();
        sim.runtime.behave("web:1", Behaviour { stop: Duration::from_secs(3600), ..Behaviour::default() });
        let mut spec = web();
        spec["terminationGracePeriodSeconds"] = json!(30);
        spec["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": seconds}}});
        sim.store.pod("web", spec);
        sim.store.until_ready("web").await;
        let asked = tokio::time::Instant::now();
        sim.store.delete("web", 30);
        sim.store.until("it is gone", |store| store.status("web").is_none()).await;
        let expected = if failed { 32 } else { 30 };
        assert!(asked.elapsed().as_secs().abs_diff(expected) <= 1, "{:?}", asked.elapsed());
        let told = sim.store.events().iter().any(|event| event.starts_with("FailedPreStopHook"));
        assert_eq!(told, failed, "{:?}", sim.store.events());
        sim.running.stop().await;
    }
}
