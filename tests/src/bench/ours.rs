//! Our daemons: the release binary, with simulated pods, on loopback.
//!
//! Invariant: a cluster is ready for a comparison only when all three of its nodes vote.

use std::{
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use quorate_mesh::UserIdentity;
use tokio::time::{Instant, sleep};

use crate::{Failure, cluster::Process, quic, session::Session};

/// How long three nodes may take until they all vote: the planner waits until a node has been well for a while.
const VOTE: Duration = Duration::from_secs(180);

/// Three nodes.
pub(crate) struct Cluster {
    directory: PathBuf,
    ports: [u16; 3],
    user: UserIdentity,
    pub(crate) nodes: [Option<Process>; 3],
}

/// The binary that is measured: the one that was built with this program.
pub(crate) fn binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("quorate");
    if binary.is_file() { Ok(binary) } else { Err(format!("{} is not built", binary.display()).into()) }
}

/// `quorate 0.1.0`.
pub(crate) fn version() -> Result<String, Failure> {
    let output = Command::new(binary()?).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command of ours, with settings in a directory of its own.
pub(crate) fn command(directory: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(binary()?);
    command.env("XDG_CONFIG_HOME", directory).env("HOME", directory);
    command.env_remove("QUORATE_CONTEXT").env_remove("QUORATE_TOKEN").env_remove("QUORATE_LOG");
    Ok(command)
}

/// A daemon's command: `up`, or `join` with a token.
pub(crate) fn daemon(directory: &Path, name: &str, port: u16, token: Option<&str>) -> Result<Command, Failure> {
    let mut command = command(directory)?;
    match token {
        Some(token) => command.args(["join", token]),
        None => command.arg("up"),
    };
    command.arg("--simulated").arg("--data-dir").arg(directory.join(name));
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--name", name]);
    let log = File::options().create(true).append(true).open(directory.join(format!("{name}.log")))?;
    command.stdout(std::process::Stdio::null()).stderr(log);
    Ok(command)
}

/// Who founded the cluster whose context is in a directory.
pub(crate) fn user(directory: &Path) -> Result<UserIdentity, Failure> {
    let text = fs::read_to_string(directory.join("quorate/config.toml"))?;
    let config: toml::Table = text.parse()?;
    let identity = config.get("contexts").and_then(|contexts| contexts.get("default")?.get("identity")?.as_str());
    Ok(UserIdentity::from_pem(identity.ok_or("no context was written")?)?)
}

/// A port that is free now.
pub(crate) fn ports<const COUNT: usize>() -> Result<[u16; COUNT], Failure> {
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        *port = socket.local_addr()?.port();
        held.push(socket);
    }
    Ok(ports)
}

impl Cluster {
    /// Founds a cluster, has two more nodes join, and waits until all three vote.
    pub(crate) async fn start(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let ports = ports()?;
        let founder = Process::start(&mut daemon(directory, "n0", ports[0], None)?)?;
        let until = Instant::now() + VOTE;
        let token = loop {
            let socket = format!("unix://{}", directory.join("n0/api.sock").display());
            let asked = command(directory)?.args(["--endpoint", &socket, "token", "create", "--uses", "2"]).output()?;
            if asked.status.success() {
                break String::from_utf8(asked.stdout)?.trim().to_owned();
            }
            if Instant::now() > until {
                return Err(format!("no token: {}", String::from_utf8_lossy(&asked.stderr)).into());
            }
            sleep(Duration::from_millis(100)).await;
        };
        let nodes = [Some(founder), None, None];
        let mut cluster = Self { directory: directory.to_owned(), ports, user: user(directory)?, nodes };
        cluster.run(1, Some(&token))?;
        cluster.run(2, Some(&token))?;
        while !cluster.all_vote().await {
            if Instant::now() > until {
                return Err(format!("three nodes did not all vote within {} s", VOTE.as_secs()).into());
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(cluster)
    }

    async fn all_vote(&self) -> bool {
        let Ok(connection) = quic::Connection::open(&self.endpoint(0), &self.user).await else { return false };
        let Ok(status) = connection.status().await else { return false };
        status.members.len() == 3 && status.members.iter().all(|member| member.voter)
    }

    fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node])
    }

    /// Starts a node: for the first time with a token, unless it founded the cluster.
    pub(crate) fn run(&mut self, node: usize, token: Option<&str>) -> Result<(), Failure> {
        let mut command = daemon(&self.directory, &format!("n{node}"), self.ports[node], token)?;
        self.nodes[node] = Some(Process::start(&mut command)?);
        Ok(())
    }

    pub(crate) async fn session(&self, node: usize) -> Result<Session, Failure> {
        let connection = quic::Connection::open(&self.endpoint(node), &self.user).await?;
        Ok(Session::Ours(connection.into()))
    }
}
