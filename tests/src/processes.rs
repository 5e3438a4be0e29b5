//! Real daemons on loopback: real RocksDB, real files; only the pods are simulated.
//!
//! Invariant: nothing but the binary's own words and the files it makes is looked at, and no process outlives its story.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::hosts::{
    machine,
    said::Said,
    wait::{so, until},
};

/// Long enough for the busiest machine; nothing waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Daemons on this machine, each at a port of its own, known by name.
pub struct Machines {
    directory: TempDir,
    running: BTreeMap<String, Child>,
    ports: BTreeMap<String, u16>,
}

impl Machines {
    /// None yet.
    ///
    /// # Panics
    /// If there is no room for their files.
    #[must_use]
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), running: BTreeMap::new(), ports: BTreeMap::new() }
    }

    /// A directory that goes with them.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory of a daemon.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(machine::binary());
        command.env("XDG_CONFIG_HOME", self.directory.path()).env("HOME", self.directory.path());
        command.env_remove("QUORATE_CONTEXT").env_remove("QUORATE_TOKEN");
        command
    }

    /// Starts a daemon: `up`, or `join` with a token.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&mut self, name: &str, token: Option<&str>) {
        match token {
            Some(token) => self.start_with(name, &["join", token]),
            None => self.start_with(name, &["up"]),
        }
    }

    /// Starts a daemon by these words.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_with(&mut self, name: &str, verb: &[&str]) {
        let port = *self
            .ports
            .entry(name.to_owned())
            .or_insert_with(|| UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let mut command = self.command();
        command.args(verb).arg("--simulated").arg("--data-dir").arg(self.data(name));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--name", name.split('-').next().unwrap()]);
        let log = File::options().create(true).append(true).open(self.log(name)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.running.insert(name.to_owned(), child);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// What a daemon has logged.
    #[must_use]
    pub fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Switches a machine off.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a daemon in good order.
    ///
    /// # Panics
    /// If it does not run, or does not end well.
    pub fn stop(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.logged(name));
    }

    /// Runs a command that asks the node of this name.
    #[must_use]
    pub fn ask(&self, node: &str, line: &str) -> Said {
        let socket = format!("unix://{}", self.data(node).join("api.sock").display());
        Said::by(self.command().args(["--endpoint", &socket]).args(line.split(' ')), b"")
    }

    /// Runs a command that asks nobody.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::by(self.command().args(arguments), b"")
    }

    /// Waits until a node's answer to a command is as it should be.
    ///
    /// # Panics
    /// If that never is so.
    pub fn until(&self, node: &str, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(&format!("`{line}` on {node}"), PATIENCE, || {
            let said = self.ask(node, line);
            so(said.code == Some(0) && wanted(&said.out), format!("{said}\n{}", self.logged(node)))?;
            Ok(said.out)
        })
    }

    /// A token for five machines.
    ///
    /// # Panics
    /// If none is made.
    #[must_use]
    pub fn token(&self, node: &str) -> String {
        self.until(node, "token create --uses 5", |token| token.starts_with("QRT1")).trim().to_owned()
    }

    /// Founds a cluster of three that all vote.
    ///
    /// # Panics
    /// If that fails.
    pub fn found(&mut self) {
        self.start("n1", None);
        let token = self.token("n1");
        self.start("n2", Some(&token));
        self.start("n3", Some(&token));
        self.vote("n1", 3);
    }

    /// Waits until so many members vote, and are all there are.
    ///
    /// # Panics
    /// If that never is so.
    pub fn vote(&self, node: &str, count: usize) {
        self.until(node, "status", |status| {
            let members = status.lines().skip_while(|line| !line.starts_with("NAME")).skip(1);
            let votes: Vec<_> =
                members.map(|line| matches!(line.split_whitespace().nth(1), Some("leader" | "voter"))).collect();
            votes.len() == count && votes.iter().all(|votes| *votes)
        });
    }

    /// Applies a manifest by a node.
    ///
    /// # Panics
    /// If it is never accepted.
    pub fn apply(&self, node: &str, name: &str, manifest: &str) {
        let file = self.directory.path().join(format!("{name}.yaml"));
        fs::write(&file, manifest).unwrap();
        let _ = self.until(node, &format!("apply -f {}", file.display()), |_| true);
    }
}

impl Default for Machines {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A ConfigMap that says hello.
#[must_use]
pub fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  greeting: hello\n")
}
