//! What every pod needs of the engine: the pods' network, and the image of the holder.
//!
//! Invariant: a network of the same name is used as it is or not at all; it is never changed or removed.

use bollard::{
    body_full,
    models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect},
    query_parameters::CreateImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Config, Docker, LOOK_UP, MAKE};
use crate::runtime::{Runtime as _, RuntimeError};

/// The holder: compiled apart, static, embedded.
const HOLDER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holder"));
/// Where it is in its image.
pub(super) const HOLDER_PATH: &str = "/holder";
const HOLDER_REPOSITORY: &str = "quorate/holder";

/// The holder's image: its tag changes when the program does.
pub(super) fn holder_image() -> String {
    format!("{HOLDER_REPOSITORY}:{}", holder_tag())
}

fn holder_tag() -> String {
    format!("{:08x}", crc32fast::hash(HOLDER))
}

impl Docker {
    pub(super) async fn prepare_network(&self) -> Result<(), RuntimeError> {
        let name = &self.config.network;
        let look_up = self.call("looking for the pods' network", LOOK_UP, async |client| {
            client.inspect_network(name, None::<bollard::query_parameters::InspectNetworkOptions>).await
        });
        match look_up.await {
            Ok(network) => self.fits(&network),
            Err(RuntimeError::NotFound(_)) => {
                let request = network(&self.config);
                let made = self
                    .call("making the pods' network", MAKE, async |client| {
                        client.create_network(request.clone()).await.map(drop)
                    })
                    .await;
                made.map_err(|error| RuntimeError::Machine {
                    what: format!("the pods' network `{name}` with {} was not made", self.config.pod_range),
                    because: error.to_string(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a network that is there already is the one the pods need.
    fn fits(&self, network: &NetworkInspect) -> Result<(), RuntimeError> {
        let subnets = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
        let subnets: Vec<&str> = subnets.filter_map(|config| config.subnet.as_deref()).collect();
        if subnets == [self.config.pod_range.to_string()] {
            return Ok(());
        }
        let name = &self.config.network;
        Err(RuntimeError::Machine {
            what: "pods cannot get addresses".to_owned(),
            because: format!(
                "the Docker network `{name}` has {}, this node's pods need {}; remove it with `docker network rm {name}`",
                subnets.join(", "),
                self.config.pod_range
            ),
        })
    }

    pub(super) async fn prepare_holder(&self) -> Result<(), RuntimeError> {
        if self.image(&holder_image()).await?.is_some() {
            return Ok(());
        }
        let image = scratch(&[(HOLDER_PATH, HOLDER)]).map_err(|error| RuntimeError::Machine {
            what: "packing the holder".to_owned(),
            because: error.to_string(),
        })?;
        self.import(HOLDER_REPOSITORY, &holder_tag(), image).await
    }

    /// Imports files as an image.
    pub(super) async fn import(&self, repository: &str, tag: &str, files: Bytes) -> Result<(), RuntimeError> {
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        self.call("importing an image", MAKE, async |client| {
            let mut progress = client.create_image(Some(options.clone()), Some(body_full(files.clone())), None).boxed();
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok(())
        })
        .await
    }
}

fn network(config: &Config) -> NetworkCreateRequest {
    let gateway = config.pod_range.hosts().next().map(|address| address.to_string());
    let subnet = IpamConfig { subnet: Some(config.pod_range.to_string()), gateway, ..IpamConfig::default() };
    let options = [("com.docker.network.bridge.name", config.bridge.as_str())];
    let labels = [(super::describe::CLUSTER, config.cluster.to_string())];
    NetworkCreateRequest {
        name: config.network.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam { config: Some(vec![subnet]), ..Ipam::default() }),
        options: Some(options.into_iter().map(|(option, value)| (option.to_owned(), value.to_owned())).collect()),
        labels: Some(labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()),
        ..NetworkCreateRequest::default()
    }
}

/// Programs as the files of an image that holds nothing else.
pub(super) fn scratch(programs: &[(&str, &[u8])]) -> std::io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, program) in programs {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(program.len()).unwrap_or(u64::MAX));
        header.set_mode(0o755);
        archive.append_data(&mut header, path.trim_start_matches('/'), *program)?;
    }
    Ok(Bytes::from(archive.into_inner()?))
}
