//! What every runtime must do, told as one story each and run on both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Container, ContainerSpec, HolderSpec, PodRef, Role, Runtime, State,
    docker::tests::Engine,
    simulated::{self, Behaviour, Simulated},
};
use crate::{resources::Limits, testing::TestClock};

fn pod(name: &str) -> PodRef {
    PodRef { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn holder(name: &str) -> HolderSpec {
    HolderSpec {
        pod: pod(name),
        attempt: 0,
        grace: Duration::from_secs(7),
        host_network: false,
        hostname: name.into(),
        dns: None,
        hosts: vec![],
        sysctls: BTreeMap::new(),
        share_processes: false,
    }
}

fn container(image: &str, holder: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: "app".into(),
        namespace: "shop".into(),
        pod: "web".into(),
        uid: "uid-web".into(),
        hash: "0123abcd".into(),
        grace: Duration::from_secs(7),
        holder: holder.into(),
        image: image.into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        message_path: "/dev/termination-log".into(),
        limits: Limits { cpu_shares: 2, cpu_quota: None, memory: None, oom_score: 1000 },
        ..ContainerSpec::default()
    }
}

async fn only(runtime: &dyn Runtime, wanted: impl Fn(&Container) -> bool) -> Container {
    let mut found: Vec<Container> = runtime.list().await.unwrap().into_iter().filter(wanted).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Waits until the container ended; nothing but the runtime's events wakes it.
async fn ended(runtime: &dyn Runtime, id: &str) -> Container {
    tokio::time::timeout(Duration::from_secs(60), async {
        let mut events = runtime.events().await.unwrap();
        loop {
            let seen = only(runtime, |container| container.id == id).await;
            if matches!(seen.state, State::Exited { .. }) {
                return seen;
            }
            futures_util::StreamExt::next(&mut events).await.unwrap().unwrap();
        }
    })
    .await
    .unwrap()
}

/// `runs`: an image whose containers run until they are stopped; `fails`: one whose containers end with 3.
async fn conforms(runtime: &dyn Runtime, runs: (&str, &str), fails: (&str, &str)) {
    runtime.prepare().await.unwrap();
    runtime.prepare().await.unwrap();
    assert!(runtime.info().await.unwrap().memory > 0);
    assert!(runtime.list().await.unwrap().is_empty());

    // A holder gives its pod an address of its own.
    runtime.start_holder(&holder("web")).await.unwrap();
    runtime.start_holder(&holder("other")).await.unwrap();
    let first = only(runtime, |container| container.pod.name == "web").await;
    let second = only(runtime, |container| container.pod.name == "other").await;
    assert_eq!((&first.role, &first.pod, first.attempt), (&Role::Holder, &pod("web"), 0));
    assert!(first.address.is_some() && second.address.is_some() && first.address != second.address);
    assert_eq!(first.node, "n1");

    // A container is made, started, and shown with all it was made with.
    let spec = container(runs.0, &first.id, runs.1);
    let id = runtime.create(&spec).await.unwrap();
    let made = only(runtime, |container| container.id == id).await;
    assert_eq!(made.state, State::Created);
    // Made again before it was started, it is replaced.
    let again = runtime.create(&spec).await.unwrap();
    assert_ne!(id, again);
    runtime.start(&again).await.unwrap();
    let running = only(runtime, |container| container.id == again).await;
    assert!(matches!(running.state, State::Running { .. }));
    let role = Role::Container { name: "app".into(), hash: "0123abcd".into(), holder: first.id.clone() };
    assert_eq!((running.role, running.grace, running.image.as_str()), (role, Duration::from_secs(7), runs.0));
    assert!(runtime.create(&spec).await.is_err(), "what runs is not replaced");

    // One that ends is seen to, by an event, with its code; what it wrote is kept.
    let failing =
        runtime.create(&ContainerSpec { attempt: 1, ..container(fails.0, &first.id, fails.1) }).await.unwrap();
    runtime.start(&failing).await.unwrap();
    let seen = ended(runtime, &failing).await;
    assert!(matches!(seen.state, State::Exited { code: 3, out_of_memory: false, .. }), "{:?}", seen.state);
    let State::Exited { words, .. } = &seen.state else { panic!("it runs") };
    assert_eq!(words, "the disk is full\n", "its last words are kept");
    let parts: Vec<_> = futures_util::StreamExt::collect(
        runtime.logs(&failing, &super::LogLines { tail: Some(1), ..Default::default() }).await.unwrap(),
    )
    .await;
    let written: Vec<u8> = parts.into_iter().flat_map(|part: Result<bytes::Bytes, _>| part.unwrap().to_vec()).collect();
    assert_eq!(String::from_utf8(written).unwrap(), "two\n");

    // Stopping and removing may be repeated, and told to what is not there.
    for _ in 0..2 {
        runtime.stop(&again, Duration::from_secs(5)).await.unwrap();
    }
    assert!(matches!(ended(runtime, &again).await.state, State::Exited { code: 143, .. }));
    for container in runtime.list().await.unwrap() {
        runtime.remove(&container.id).await.unwrap();
        runtime.remove(&container.id).await.unwrap();
        runtime.stop(&container.id, Duration::ZERO).await.unwrap();
    }
    assert!(runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_docker_engine_conforms() {
    let engine = Engine::start().await;
    let runs = "trap 'exit 143' TERM; while :; do busybox sleep 0.1; done";
    conforms(
        &*engine.runtime,
        (&engine.image, runs),
        (&engine.image, "echo one; echo two; echo the disk is full > /dev/termination-log; exit 3"),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_simulated_runtime_conforms() {
    let config =
        simulated::Config { node: "n1".into(), pod_range: "10.214.1.0/24".parse().unwrap(), cpus: 4, memory: 8 << 30 };
    let runtime = Arc::new(Simulated::new(config, Arc::new(TestClock::new())));
    let fails = Behaviour {
        exits: Some((Duration::from_secs(2), 3)),
        writes: "one\ntwo\n".into(),
        says: "the disk is full\n".into(),
        ..Behaviour::default()
    };
    runtime.behave("fails", fails);
    conforms(&runtime, ("runs", ""), ("fails", "")).await;
}
