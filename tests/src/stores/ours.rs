//! Our daemons, with simulated pods, on loopback.
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

use super::{Failure, process::Process, quic, session::Session};

/// How long three nodes may take until they all vote: the planner waits until a node has been well for a while.
const VOTE: Duration = Duration::from_secs(180);

/// How a daemon is started, beside its own words.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// A command, with its arguments, that becomes the daemon.
    pub by: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Three nodes.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    ports: [u16; 3],
    user: UserIdentity,
    /// Those that run.
    pub nodes: [Option<Process>; 3],
}

/// The binary that was built with this program, or with this test: `target/debug/deps/chaos-… → target/debug/quorate`.
///
/// # Errors
/// If it is not there.
pub fn binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join("quorate"));
    let binary = beside.into_iter().find(|binary| binary.is_file());
    binary.ok_or_else(|| format!("quorate is not built beside {}", own.display()).into())
}

/// `quorate 0.1.0`.
///
/// # Errors
/// If it cannot be asked.
pub fn version() -> Result<String, Failure> {
    let output = Command::new(binary()?).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command of ours, with settings in a directory of its own.
fn command(directory: &Path, launch: &Launch) -> Result<Command, Failure> {
    let binary = binary()?;
    let mut command = match launch.by.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command.env("XDG_CONFIG_HOME", directory).env("HOME", directory);
    command.env_remove("QUORATE_CONTEXT").env_remove("QUORATE_TOKEN").env_remove("QUORATE_LOG");
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// A daemon's command: `up`, or `join` with a token.
///
/// # Errors
/// If its log cannot be opened.
pub fn daemon(
    directory: &Path,
    name: &str,
    port: u16,
    token: Option<&str>,
    launch: &Launch,
) -> Result<Command, Failure> {
    let mut command = command(directory, launch)?;
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
///
/// # Errors
/// If there is none.
pub fn user(directory: &Path) -> Result<UserIdentity, Failure> {
    let text = fs::read_to_string(directory.join("quorate/config.toml"))?;
    let config: toml::Table = text.parse()?;
    let identity = config.get("contexts").and_then(|contexts| contexts.get("default")?.get("identity")?.as_str());
    Ok(UserIdentity::from_pem(identity.ok_or("no context was written")?)?)
}

/// Ports that are free now.
///
/// # Errors
/// If there are none.
pub fn ports<const COUNT: usize>() -> Result<[u16; COUNT], Failure> {
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
    ///
    /// # Errors
    /// If that does not happen.
    pub async fn start(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let (ports, plain) = (ports()?, Launch::default());
        let founder = Process::start(&mut daemon(directory, "n0", ports[0], None, &plain)?)?;
        let until = Instant::now() + VOTE;
        let token = loop {
            let socket = format!("unix://{}", directory.join("n0/api.sock").display());
            let asked =
                command(directory, &plain)?.args(["--endpoint", &socket, "token", "create", "--uses", "2"]).output()?;
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
        cluster.run(1, Some(&token), &plain)?;
        cluster.run(2, Some(&token), &plain)?;
        while !cluster.all_vote().await {
            if Instant::now() > until {
                return Err(format!("three nodes did not all vote within {} s", VOTE.as_secs()).into());
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(cluster)
    }

    /// Whether there are three members, and all vote.
    pub async fn all_vote(&self) -> bool {
        let Ok(connection) = quic::Connection::open(&self.endpoint(0), &self.user).await else { return false };
        let Ok(status) = connection.status().await else { return false };
        status.members.len() == 3 && status.members.iter().all(|member| member.voter)
    }

    fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node])
    }

    /// The UDP ports of the nodes: each sends and receives by its own.
    #[must_use]
    pub const fn ports(&self) -> [u16; 3] {
        self.ports
    }

    /// Where nodes, logs and settings are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a node: for the first time with a token, unless it founded the cluster.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&mut self, node: usize, token: Option<&str>, launch: &Launch) -> Result<(), Failure> {
        let mut command = daemon(&self.directory, &format!("n{node}"), self.ports[node], token, launch)?;
        self.nodes[node] = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn session(&self, node: usize) -> Result<Session, Failure> {
        self.door(node).open().await
    }

    /// What is needed to connect to a node.
    #[must_use]
    pub fn door(&self, node: usize) -> Door {
        Door { endpoint: self.endpoint(node), user: self.user.clone() }
    }
}

/// What is needed to connect to a node.
#[derive(Debug, Clone)]
pub struct Door {
    endpoint: String,
    user: UserIdentity,
}

impl Door {
    /// Connects.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn open(&self) -> Result<Session, Failure> {
        Ok(Session::Ours(quic::Connection::open(&self.endpoint, &self.user).await?.into()))
    }
}
