//! Stories about the end of a quorum and what comes after, with real processes on loopback: real daemons, real RocksDB, real files;
//! only the pods are simulated.
//!
//! Invariant: nothing but the binary's own words and the files it makes is looked at, and no process outlives its story.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate_tests::hosts::{
    machine,
    said::Said,
    wait::{so, until},
};
use tempfile::TempDir;

/// Long enough for the busiest machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(180);

/// Daemons on this machine, each at a port of its own, known by name.
struct Machines {
    directory: TempDir,
    running: BTreeMap<String, Child>,
    ports: BTreeMap<String, u16>,
}

impl Machines {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), running: BTreeMap::new(), ports: BTreeMap::new() }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(machine::binary());
        command.env("XDG_CONFIG_HOME", self.directory.path()).env("HOME", self.directory.path());
        command.env_remove("QUORATE_CONTEXT").env_remove("QUORATE_TOKEN");
        command
    }

    /// Starts a daemon: `up`, or `join` with a token.
    fn start(&mut self, name: &str, token: Option<&str>) {
        match token {
            Some(token) => self.start_with(name, &["join", token]),
            None => self.start_with(name, &["up"]),
        }
    }

    fn start_with(&mut self, name: &str, verb: &[&str]) {
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

    fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Switches a machine off.
    fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a daemon in good order.
    fn stop(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.logged(name));
    }

    /// Runs a command that asks the node of this name.
    fn ask(&self, node: &str, line: &str) -> Said {
        let socket = format!("unix://{}", self.data(node).join("api.sock").display());
        Said::by(self.command().args(["--endpoint", &socket]).args(line.split(' ')), b"")
    }

    /// Runs a command that asks nobody.
    fn run(&self, arguments: &[&str]) -> Said {
        Said::by(self.command().args(arguments), b"")
    }

    /// Waits until a node's answer to a command is as it should be.
    fn until(&self, node: &str, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(&format!("`{line}` on {node}"), PATIENCE, || {
            let said = self.ask(node, line);
            so(said.code == Some(0) && wanted(&said.out), format!("{said}\n{}", self.logged(node)))?;
            Ok(said.out)
        })
    }

    fn token(&self, node: &str) -> String {
        self.until(node, "token create --uses 5", |token| token.starts_with("QRT1")).trim().to_owned()
    }

    /// Founds a cluster of three that all vote.
    fn found(&mut self) {
        self.start("n1", None);
        let token = self.token("n1");
        self.start("n2", Some(&token));
        self.start("n3", Some(&token));
        self.vote("n1", 3);
    }

    /// Waits until so many members vote, and are all there are.
    fn vote(&self, node: &str, count: usize) {
        self.until(node, "status", |status| {
            let members = status.lines().skip_while(|line| !line.starts_with("NAME")).skip(1);
            let votes: Vec<_> =
                members.map(|line| matches!(line.split_whitespace().nth(1), Some("leader" | "voter"))).collect();
            votes.len() == count && votes.iter().all(|votes| *votes)
        });
    }

    fn apply(&self, node: &str, name: &str, manifest: &str) {
        let file = self.directory.path().join(format!("{name}.yaml"));
        fs::write(&file, manifest).unwrap();
        let _ = self.until(node, &format!("apply -f {}", file.display()), |_| true);
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

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  greeting: hello\n")
}

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
";

fn ready(deployments: &str) -> bool {
    deployments.contains("3/3")
}

#[test]
fn a_survivor_goes_on_alone_others_join_it_anew_and_a_lost_member_that_returns_is_refused() {
    let mut machines = Machines::new();
    machines.found();
    machines.apply("n1", "kept", &config_map("kept"));
    machines.apply("n1", "web", WEB);
    machines.until("n1", "get deployments", ready);
    machines.until("n3", "get configmap kept --stale", |_| true);

    machines.kill("n1");
    machines.kill("n2");
    let data = machines.data("n3").display().to_string();
    let recover = ["cluster", "recover", "--data-dir", &data];
    machines.run(&recover).refused(1, &["the cluster was not recovered", "the daemon runs in"]);
    machines.stop("n3");
    let dry = machines.run(&recover);
    assert!(dry.err.contains("Nothing was changed") && dry.out.contains("Voters:       n1, n2, n3"), "{dry}");
    let yes = machines.run(&["cluster", "recover", "--data-dir", &data, "--yes"]).done();
    assert!(yes.contains("node/n3 is the cluster now: epoch 1"), "{yes}");

    machines.start("n3", None);
    machines.until("n3", "get configmap kept", |_| true);
    machines.vote("n3", 1);
    assert_eq!(machines.ask("n3", "get nodes -o name").done().trim(), "node/n3");
    machines.until("n3", "get deployments", ready);
    machines.until("n3", "get pods -o wide", |pods| pods.lines().skip(1).all(|pod| pod.contains("n3")));

    // A lost member comes back as if nothing had happened.
    machines.start("n1", None);
    until("n1 to hear that it was left behind", PATIENCE, || {
        let log = machines.logged("n1");
        so(
            log.contains("the cluster was recovered without this node") && log.contains("quorate join TOKEN --fresh"),
            log,
        )
    });
    machines.ask("n1", "delete configmap kept --request-timeout 5s").refused(3, &[]);
    machines.vote("n3", 1);
    machines.kill("n1");

    // The machines join as new nodes under their old names: one forgets what it was, one was replaced.
    let token = machines.token("n3");
    machines.start_with("n1", &["join", &token, "--fresh"]);
    machines.start("n2-anew", Some(&token));
    machines.vote("n3", 3);
    machines.until("n1", "get configmap kept", |_| true);
    machines.stop("n3");
    machines.apply("n2-anew", "later", &config_map("later"));
    machines.until("n1", "get configmap later", |_| true);
}

#[test]
fn a_backup_that_was_taken_from_a_follower_becomes_another_cluster_beside_the_first() {
    let mut machines = Machines::new();
    machines.found();
    machines.apply("n1", "kept", &config_map("kept"));
    machines.apply("n1", "web", WEB);
    machines.until("n1", "get deployments", ready);
    let file = machines.directory.path().join("shop.backup").display().to_string();
    let saved = machines.ask("n2", &format!("backup save {file}")).done();
    machines.apply("n1", "later", &config_map("later"));
    let inspected = machines.run(&["backup", "inspect", &file]).done();
    let counted = inspected.lines().any(|line| line.split_whitespace().eq(["deployments.apps", "1"]));
    assert!(inspected.starts_with(&saved) && counted, "{inspected}");

    let data = machines.data("m1").display().to_string();
    let restore = ["backup", "restore", &file, "--data-dir", &data, "--name", "m1"];
    machines.run(&restore).refused(1, &["the context `default` is of the cluster"]);
    let restore = [&restore[..], &["--context", "restored"]].concat();
    let dry = machines.run(&[&restore[..], &["--dry-run"]].concat());
    assert!(dry.err.contains("Nothing was written") && !machines.data("m1").exists(), "{dry}");
    let restored = machines.run(&restore).done();
    assert!(restored.starts_with(&saved), "{restored}");

    machines.start("m1", None);
    machines.until("m1", "get configmap kept", |_| true);
    assert!(!machines.ask("m1", "get configmaps -o name").done().contains("later"), "that was after the backup");
    assert_eq!(machines.ask("m1", "get nodes -o name").done().trim(), "node/m1");
    let token = machines.token("m1");
    machines.start("m2", Some(&token));
    machines.start("m3", Some(&token));
    machines.vote("m1", 3);
    machines.until("m2", "get deployments", ready);
    let cluster = |node: &str| machines.ask(node, "status").done().lines().next().map(str::to_owned);
    assert_eq!(cluster("m1"), cluster("m3"));
    assert_ne!(cluster("m1"), cluster("n1"), "they are two clusters");
    let again = [&restore[..restore.len() - 1], &["again"]].concat();
    machines.run(&again).refused(1, &["another daemon uses"]);
    machines.until("n1", "get configmap later", |_| true);
}
