//! The machine the hosts are made on: what it must have, and what of a cluster can be seen on it.
//!
//! Invariant: one story at a time uses it, and a cluster that somebody else made is left alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::said::Said;

/// Where `quorate dev` keeps a cluster of hosts.
pub const STATE: &str = "/var/lib/quorate-dev";

/// Allows to remove a cluster that is there already.
const REPLACE: &str = "QUORATE_TEST_REPLACE";

/// What is needed, and the Debian package it is in.
const TOOLS: [(&str, &str); 7] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Held by the story that uses the machine.
static IN_USE: Mutex<()> = Mutex::new(());

/// The machine, for one story.
#[derive(Debug)]
pub struct Machine {
    /// The `quorate` binary of the profile the tests were built with.
    pub binary: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Waits until no other story uses it.
    ///
    /// # Panics
    /// If it cannot have hosts, or has a cluster already.
    #[must_use]
    pub fn take() -> Self {
        // A story that failed has removed its cluster all the same.
        let alone = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces and Docker Engines, which only root may: run them as root"
        );
        let path = env::var_os("PATH").unwrap_or_default();
        let missing: Vec<_> = TOOLS
            .iter()
            .filter(|(tool, _)| !env::split_paths(&path).any(|directory| directory.join(tool).is_file()))
            .map(|(tool, package)| format!("{tool} (Debian package {package})"))
            .collect();
        assert!(
            missing.is_empty(),
            "this machine has no {}: tools/install installs what is missing",
            missing.join(", ")
        );
        Self { binary: binary(), _alone: alone }
    }

    /// Checks that there is no cluster, or removes the one there is if that is allowed.
    ///
    /// # Panics
    /// If there is one and it may not be removed.
    pub fn clear(&self) {
        if !Path::new(STATE).exists() && traces().is_empty() {
            return;
        }
        assert!(
            env::var_os(REPLACE).is_some_and(|value| value == "1"),
            "there is a cluster on this machine already, which these tests would remove: `quorate dev down` does it, or {REPLACE}=1\n{}",
            traces().join("\n")
        );
        let _ = Said::by(Command::new(&self.binary).args(["dev", "down"]), b"").done();
    }
}

/// The `quorate` binary two directories above the running test: `target/debug/deps/hosts-… → target/debug/quorate`.
///
/// # Panics
/// If it is not built.
#[must_use]
pub fn binary() -> PathBuf {
    let test = env::current_exe().unwrap_or_default();
    let directory = test.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let binary = directory.join("quorate");
    assert!(binary.is_file(), "{} is not built: run `. tools/env; cargo build --bin quorate` first", binary.display());
    binary
}

/// All that can be seen of a cluster of hosts on this machine, a line each; empty if nothing is there.
#[must_use]
pub fn traces() -> Vec<String> {
    let ours = |text: &str| text.contains("quorate-") || text.contains("qdev") || text.contains("10.99.0.");
    let mut found = Vec::new();
    let mut note = |what: &str, lines: Vec<String>| {
        found.extend(lines.into_iter().filter(|line| ours(line)).map(|line| format!("{what}: {line}")));
    };
    let lines = |program: &str, arguments: &[&str]| -> Vec<String> {
        Said::by(Command::new(program).args(arguments), b"").done().lines().map(str::to_owned).collect()
    };
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect()
    };
    note("network namespace", names("/run/netns"));
    note("link", names("/sys/class/net"));
    note("route", lines("ip", &["-4", "route", "show", "table", "all"]));
    note("firewall rule", lines("iptables", &["-w", "-S"]));
    note("mount", fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines().map(str::to_owned).collect());
    note("state", names("/var/lib"));
    let hierarchies = names("/sys/fs/cgroup").into_iter().chain(["/sys/fs/cgroup".to_owned()]);
    note("control group", hierarchies.flat_map(|hierarchy| names(&hierarchy)).collect());
    let processes = names("/proc").into_iter().filter_map(|path| path.rsplit('/').next()?.parse().ok());
    let processes = processes.map(|pid| format!("{pid} {}", super::process::command_line(pid)));
    note("process", processes.filter(|line| line.contains(STATE) || line.contains("dev-init")).collect());
    found
}
