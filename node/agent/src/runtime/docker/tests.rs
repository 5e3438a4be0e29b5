//! A real engine for tests: its own cluster, network, image and directory, all of which go when it is dropped.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bollard::{Docker as Client, query_parameters::RemoveImageOptions};
use quorate_proto::ids::ClusterId;

use super::{Config, Docker, describe, prepare::scratch};
use crate::runtime::Runtime as _;

const SOCKET: &str = "/var/run/docker.sock";
const BUSYBOX: &str = "/usr/bin/busybox";

pub(crate) struct Engine {
    pub(crate) runtime: Arc<Docker>,
    pub(crate) config: Config,
    /// An image with `sh` and `busybox`.
    pub(crate) image: String,
    _dir: tempfile::TempDir,
}

impl Engine {
    /// The engine of this machine, with busybox as an image.
    pub(crate) async fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId(u128::from(std::process::id()) << 8 | u128::from(number));
        let config = Config {
            socket: Path::new(SOCKET).to_owned(),
            cluster,
            node: "n1".to_owned(),
            dir: dir.path().to_owned(),
            network: format!("quorate-test-{}-{number}", std::process::id()),
            bridge: format!("qt{}-{number}", std::process::id()),
            // Two test runs at a time, or one that was killed before it could clear up, seldom meet.
            pod_range: format!("10.214.{}.0/24", 200 + (std::process::id() + u32::from(number)) % 50).parse().unwrap(),
        };
        let runtime = Arc::new(Docker::new(config.clone()));
        let busybox = std::fs::read(BUSYBOX).expect("the Debian package busybox-static is needed");
        let files = scratch(&[("/bin/busybox", &busybox), ("/bin/sh", &busybox)]).unwrap();
        let tag = format!("{}-{number}", std::process::id());
        let engine = Self { runtime, config, image: format!("quorate-test:{tag}"), _dir: dir };
        engine.runtime.import("quorate-test", &tag, files).await.unwrap();
        engine.runtime.prepare().await.unwrap();
        engine
    }

    /// An OOM score as this machine can have it.
    pub(crate) fn oom_score(&self, wanted: i64) -> i64 {
        wanted.max(self.runtime.oom_floor)
    }

    /// The engine, to ask what no runtime tells.
    pub(crate) async fn client(&self) -> Client {
        self.runtime.client().await.unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (config, image) = (self.config.clone(), self.image.clone());
        // Also when the test failed: on a thread of its own, since a test's runtime may be the one that is unwinding.
        let cleared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let docker = Docker::new(config.clone());
                for container in docker.list().await.unwrap() {
                    docker.remove(&container.id).await.unwrap();
                }
                for uid in docker.mounted().await.unwrap() {
                    docker.unmount(&uid).await.unwrap();
                }
                let client = docker.client().await.unwrap();
                // Both, even if the test never came to make the one.
                let network = client.remove_network(&config.network).await;
                client.remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
                network.unwrap();
            });
        });
        let cleared = cleared.join();
        assert!(cleared.is_ok() || std::thread::panicking(), "what the test made was not removed");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        socket: dir.path().join("docker.sock"),
        cluster: ClusterId(1),
        node: "n1".into(),
        dir: dir.path().to_owned(),
        network: "quorate".into(),
        bridge: "quorate0".into(),
        pod_range: "10.214.0.0/24".parse().unwrap(),
    };
    let refusal = Docker::new(config).info().await.unwrap_err().refusal("pod web was not started");
    assert!(refusal.because.contains("docker.sock does not answer: "), "{refusal}");
    assert!(refusal.hint.unwrap().contains("systemctl start docker"));
}

#[tokio::test]
async fn a_network_of_the_same_name_with_other_addresses_is_not_used() {
    let engine = Engine::start().await;
    let other = Docker::new(Config { pod_range: "10.214.250.0/24".parse().unwrap(), ..engine.config.clone() });
    let error = other.prepare().await.unwrap_err().to_string();
    let name = &engine.config.network;
    let range = engine.config.pod_range;
    assert_eq!(
        error,
        format!(
            "pods cannot get addresses: the Docker network `{name}` has {range}, this node's pods need 10.214.250.0/24; remove it with `docker network rm {name}`"
        )
    );
}

#[tokio::test]
async fn a_container_of_the_same_name_that_is_not_ours_is_left_alone() {
    let engine = Engine::start().await;
    let client = engine.client().await;
    let name = format!("quorate-test-foreign-{}", std::process::id());
    let body = || bollard::models::ContainerCreateBody {
        image: Some(engine.image.clone()),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        ..Default::default()
    };
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::new().name(&name).build();
    let foreign = client.create_container(Some(options), body()).await.unwrap().id;
    let refused = engine.runtime.make(&name, body()).await;
    let still_there = client.inspect_container(&foreign, None).await;
    engine.runtime.remove(&foreign).await.unwrap();
    assert_eq!(refused.unwrap_err().to_string(), format!("{name} exists and is not of this cluster"));
    assert!(still_there.is_ok());
    assert_eq!(describe::CLUSTER, "quorate.io/cluster", "containers of earlier versions are found by this label");
}
