//! etcd's members: Debian's, with its defaults, in plaintext.
//!
//! Invariant: nothing is set but names, addresses and directories.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Failure, grpc, process::Process, session::Session};

/// Three members.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    clients: [u16; 3],
    peers: [u16; 3],
    /// Those that run.
    pub nodes: [Option<Process>; 3],
}

/// `etcd 3.4.23`.
///
/// # Errors
/// If there is none.
pub fn version() -> Result<String, Failure> {
    let output = Command::new("etcd").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(format!("etcd {}", text.lines().next().unwrap_or_default().trim_start_matches("etcd Version: ")))
}

impl Cluster {
    /// Starts three members, each with data in a directory of its own.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn start(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let mut cluster =
            Self { directory: directory.to_owned(), clients: ports()?, peers: ports()?, nodes: [const { None }; 3] };
        (0..3).try_for_each(|node| cluster.run(node))?;
        Ok(cluster)
    }

    /// Starts a member.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&mut self, node: usize) -> Result<(), Failure> {
        let peer = |node: usize| format!("http://127.0.0.1:{}", self.peers[node]);
        let client = format!("http://127.0.0.1:{}", self.clients[node]);
        let all: Vec<String> = (0..3).map(|node| format!("n{node}={}", peer(node))).collect();
        let log = File::options().create(true).append(true).open(self.directory.join(format!("n{node}.log")))?;
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("n{node}"), "--log-level", "error"]);
        command.arg("--data-dir").arg(self.directory.join(format!("n{node}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer(node), "--initial-advertise-peer-urls", &peer(node)]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.stdout(log.try_clone()?).stderr(log);
        self.nodes[node] = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// A connection to a member.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn session(&self, node: usize) -> Result<Session, Failure> {
        self.door(node).open().await
    }

    /// What is needed to connect to a member.
    #[must_use]
    pub fn door(&self, node: usize) -> Door {
        Door(format!("127.0.0.1:{}", self.clients[node]))
    }
}

/// What is needed to connect to a member.
#[derive(Debug, Clone)]
pub struct Door(String);

impl Door {
    /// Connects.
    ///
    /// # Errors
    /// If the member does not answer.
    pub async fn open(&self) -> Result<Session, Failure> {
        Ok(Session::Etcd(grpc::Connection::open(&self.0).await?))
    }
}

/// A member that is alone.
#[must_use]
pub fn alone(directory: &Path, client: u16, peer: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "n0", "--log-level", "error", "--data-dir"]).arg(directory);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("n0={peer}"), "--initial-cluster-state", "new"]);
    command
}

/// Ports that are free now.
///
/// # Errors
/// If there are none.
pub fn ports<const COUNT: usize>() -> Result<[u16; COUNT], Failure> {
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
