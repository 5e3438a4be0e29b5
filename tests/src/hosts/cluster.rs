//! A cluster of three hosts, and the commands a person gives it.
//!
//! It has a home directory of its own, so that the contexts of whoever runs the tests stay as they are.
//!
//! Invariant: when it goes out of scope, it is removed, also after a failure.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    images,
    machine::{Machine, STATE},
    said::Said,
    wait::{pass, so, until},
};

/// The hosts of a cluster.
pub const HOSTS: [&str; 3] = ["n1", "n2", "n3"];

/// How long most things may take. What is told with a bound of its own is measured.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing may have changed for a cluster to count as settled.
const SETTLED: Duration = Duration::from_secs(2);

/// How long a daemon that is to be refused may go on, in seconds.
const VAIN: u32 = 30;

/// All kinds that users see, as `get` takes them.
const KINDS: &str =
    "deployments,replicasets,daemonsets,cronjobs,jobs,pods,services,configmaps,secrets,nodes,namespaces,events";

/// Three hosts, or what a story left of them.
#[derive(Debug)]
pub struct Cluster {
    home: TempDir,
    machine: Machine,
}

impl Cluster {
    /// Makes the hosts and waits until each is ready and votes.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn up() -> Self {
        let cluster = Self::none();
        cluster.make();
        cluster
    }

    /// No hosts yet.
    ///
    /// # Panics
    /// If the machine cannot have any.
    #[must_use]
    pub fn none() -> Self {
        let machine = Machine::take();
        machine.clear();
        Self { home: tempfile::tempdir().unwrap(), machine }
    }

    /// Makes the hosts, or what is missing of them. Once that is done, each node answers, is ready and votes.
    ///
    /// # Panics
    /// If that fails, or is not so.
    pub fn make(&self) {
        let _ = self.done("dev up --nodes 3");
        for number in 1..=HOSTS.len() {
            let asked = format!("--endpoint 10.99.0.{number}:7443 --request-timeout 5s");
            self.all_vote(&asked).and_then(|()| self.all_ready(&asked)).unwrap();
        }
    }

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The command with an environment of its own.
    #[must_use]
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.machine.binary);
        command.args(words.split_whitespace());
        self.at_home(command)
    }

    fn at_home(&self, mut command: Command) -> Command {
        command.env("HOME", self.home.path()).current_dir(self.home.path());
        for variable in ["QUORATE_CONTEXT", "QUORATE_TOKEN", "QUORATE_LOG", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts a daemon that is to be refused, on a host or beside them; if it is not, it is ended with exit code 124.
    #[must_use]
    pub fn start_in_vain(&self, host: Option<&str>, words: &str) -> Said {
        let binary = self.machine.binary.display();
        let words = format!("timeout {VAIN} {binary} {words}");
        match host {
            Some(host) => self.on(host, &words),
            None => {
                let mut command = Command::new("env");
                command.args(words.split_whitespace());
                Said::by(&mut self.at_home(command), b"")
            }
        }
    }

    /// Runs `quorate` with words separated by spaces.
    #[must_use]
    pub fn run(&self, words: &str) -> Said {
        Said::by(&mut self.command(words), b"")
    }

    /// Runs `quorate`, which does what it is asked for, and returns what it printed.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn done(&self, words: &str) -> String {
        self.run(words).done()
    }

    /// Runs `quorate` and hands it `input`.
    #[must_use]
    pub fn feed(&self, words: &str, input: &str) -> Said {
        Said::by(&mut self.command(words), input.as_bytes())
    }

    /// Applies a manifest.
    ///
    /// # Panics
    /// If it is refused.
    pub fn apply(&self, manifest: &str) {
        let _ = self.feed("apply -f -", manifest).done();
    }

    /// Runs `quorate … -o json` and reads what it prints.
    ///
    /// # Errors
    /// With what it said, if it was refused.
    ///
    /// # Panics
    /// If that is not JSON.
    pub fn json(&self, words: &str) -> Result<Value, String> {
        let said = self.run(&format!("{words} -o json --request-timeout 5s"));
        if said.code == Some(0) { Ok(serde_json::from_str(&said.out).unwrap()) } else { Err(said.to_string()) }
    }

    /// Starts a daemon of this binary that is none of the hosts'; it ends with what is returned, and logs to a file.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn daemon_beside(&self, words: &str, log: &Path) -> Beside {
        let log = File::create(log).unwrap();
        let child = self.command(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Beside(child.unwrap())
    }

    /// Gives every host the image `shop/hello:1`.
    ///
    /// # Panics
    /// If that fails.
    pub fn load_images(&self) {
        let archive = images::hello(&self.home.path().join("images"));
        let _ = self.done(&format!("dev load {}", archive.display()));
    }

    /// Runs a command on a host.
    #[must_use]
    pub fn on(&self, host: &str, words: &str) -> Said {
        self.run(&format!("dev exec {host} -- {words}"))
    }

    /// Who leads, as the cluster says.
    ///
    /// # Errors
    /// With what was said instead.
    pub fn leader(&self) -> Result<String, String> {
        let said = self.run("status --request-timeout 5s");
        let leader = said.out.lines().find_map(|line| line.strip_prefix("Leader:")).map(str::trim);
        leader.filter(|leader| *leader != "none").map(str::to_owned).ok_or_else(|| said.to_string())
    }

    /// The store's revision.
    ///
    /// # Panics
    /// If nobody says it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let said = self.done("status");
        said.lines().find_map(|line| line.strip_prefix("Revision:")).unwrap().trim().parse().unwrap()
    }

    /// All that users see, with every status, and the tokens there are.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn everything(&self) -> String {
        self.done(&format!("get {KINDS} -A -o json")) + &self.done("token list")
    }

    /// Waits until nothing changes any more.
    ///
    /// # Panics
    /// If it never settles.
    pub fn settle(&self) {
        until("a cluster in which nothing changes", PATIENCE, || {
            let before = self.revision();
            pass(SETTLED);
            let after = self.revision();
            so(before == after, format!("revision {before}, then {after}"))
        });
    }

    /// Waits until all three nodes are ready and vote, so that any may be lost.
    ///
    /// # Panics
    /// If that never is so.
    pub fn wait_for_voters(&self) {
        until("three voters", PATIENCE, || self.all_vote("--request-timeout 5s"));
        until("three nodes that are ready", PATIENCE, || self.all_ready("--request-timeout 5s"));
    }

    fn all_vote(&self, flags: &str) -> Result<(), String> {
        let said = self.run(&format!("status {flags}"));
        let voters: BTreeSet<_> = said
            .out
            .lines()
            .filter_map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                matches!(words.get(1), Some(&("leader" | "voter"))).then(|| words[0].to_owned())
            })
            .collect();
        so(voters.iter().map(String::as_str).eq(HOSTS), said.to_string())
    }

    fn all_ready(&self, flags: &str) -> Result<(), String> {
        let said = self.run(&format!("get nodes {flags}"));
        let ready = said.out.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
        so(ready == HOSTS.len(), said.to_string())
    }

    /// The process of a host's daemon, as `quorate dev status` shows it.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn daemon(&self, host: &str) -> i32 {
        self.shown(host, "DAEMON").parse().unwrap()
    }

    /// The process of a host's Docker Engine.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn engine(&self, host: &str) -> i32 {
        self.shown(host, "ENGINE").parse().unwrap()
    }

    /// A column of a host in `quorate dev status`.
    ///
    /// # Panics
    /// If there is no such host or column.
    #[must_use]
    pub fn shown(&self, host: &str, column: &str) -> String {
        let table = self.done("dev status");
        let mut lines = table.lines();
        let at = lines.next().unwrap().split_whitespace().position(|heading| heading == column).unwrap();
        let line = lines.find(|line| line.split_whitespace().next() == Some(host));
        line.unwrap().split_whitespace().nth(at).unwrap().to_owned()
    }

    /// Where a host's daemon keeps its state.
    #[must_use]
    pub fn data(&self, host: &str) -> PathBuf {
        Path::new(STATE).join(host).join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let removed = self.command("dev down").output();
        // A story that fails already has something better to say.
        if !thread::panicking() {
            let removed = removed.unwrap();
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
        }
    }
}

/// A daemon beside the hosts'.
#[derive(Debug)]
pub struct Beside(Child);

impl Beside {
    /// Its exit code, once it has ended by itself.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}
