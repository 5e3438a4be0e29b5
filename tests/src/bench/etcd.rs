//! etcd's members: Debian's, with its defaults, in plaintext.
//!
//! Invariant: nothing is set but names, addresses and directories.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Failure, cluster::Process, grpc, session::Session};

/// Three members.
pub(crate) struct Cluster {
    directory: PathBuf,
    clients: [u16; 3],
    peers: [u16; 3],
    pub(crate) nodes: [Option<Process>; 3],
}

/// `etcd 3.4.23`.
pub(crate) fn version() -> Result<String, Failure> {
    let output = Command::new("etcd").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(format!("etcd {}", text.lines().next().unwrap_or_default().trim_start_matches("etcd Version: ")))
}

impl Cluster {
    /// Starts three members, each with data in a directory of its own.
    pub(crate) fn start(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let mut cluster =
            Self { directory: directory.to_owned(), clients: ports()?, peers: ports()?, nodes: [const { None }; 3] };
        (0..3).try_for_each(|node| cluster.run(node))?;
        Ok(cluster)
    }

    /// Starts a member.
    pub(crate) fn run(&mut self, node: usize) -> Result<(), Failure> {
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

    pub(crate) async fn session(&self, node: usize) -> Result<Session, Failure> {
        Ok(Session::Etcd(grpc::Connection::open(&format!("127.0.0.1:{}", self.clients[node])).await?))
    }
}

/// A member that is alone.
pub(crate) fn alone(directory: &Path, client: u16, peer: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "n0", "--log-level", "error", "--data-dir"]).arg(directory);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("n0={peer}"), "--initial-cluster-state", "new"]);
    command
}

/// Ports that are free now.
pub(crate) fn ports<const COUNT: usize>() -> Result<[u16; COUNT], Failure> {
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
