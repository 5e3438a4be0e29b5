//! Which processes belong to a host: read from the kernel, remembered nowhere.
//!
//! A host's processes share its network namespace, which is known by its name, or, should it have lost that, by the host's own processes
//! in it: their command lines name the host or its directory. The first process is the one with the number 1 in a process namespace of
//! its own, and when that ends, the kernel ends all others, containers included. Simulated hosts are only daemons, known by their data
//! directory.
//!
//! Invariant: no process is taken for ours by a number that was written down: numbers are reused. What shares this machine's own network
//! is never taken for a host's.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::{Instant, sleep};

use super::plan::{Host, host_of};

/// How long a killed process may take to end.
const END: Duration = Duration::from_secs(20);

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number, as this machine sees it.
    pub(crate) pid: i32,
    /// Its command line.
    words: Vec<String>,
    /// Its number inside its innermost process namespace; `None` if it has none of its own.
    inner: Option<i32>,
    /// Resident memory, in KiB.
    pub(crate) memory: u64,
    /// The number of its network namespace; `None` if it has just ended.
    network: Option<u64>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let directory = format!("/proc/{pid}");
        let words = fs::read(format!("{directory}/cmdline")).ok()?;
        let words: Vec<_> =
            words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let status = fs::read_to_string(format!("{directory}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        if field("State").is_none_or(|state| state.first().is_some_and(|state| state == "Z")) {
            return None;
        }
        let numbers = field("NSpid").unwrap_or_default();
        let inner = if numbers.len() > 1 { numbers.last().and_then(|number| number.parse().ok()) } else { None };
        let memory = field("VmRSS").and_then(|fields| fields.first()?.parse().ok()).unwrap_or_default();
        Some(Self { pid, words, inner, memory, network: network_of(&format!("{directory}/ns/net")) })
    }

    /// Whether it is a host's first process; `dev-init` is what only that is started with.
    fn is_first(&self) -> bool {
        self.inner == Some(1) && self.words.get(1).is_some_and(|verb| verb == "dev-init")
    }

    /// Whether it is the Docker Engine that keeps its state there.
    fn is_engine_of(&self, directory: &Path) -> bool {
        let data = directory.join("docker").display().to_string();
        self.is_program("dockerd") && self.words.windows(2).any(|pair| pair[0] == "--data-root" && pair[1] == data)
    }

    /// Whether its command line says that it is the host's.
    fn names(&self, host: &Host) -> bool {
        self.is_first() && self.words.get(2) == Some(&host.name)
            || self.is_daemon_of(&host.data())
            || self.is_engine_of(&host.directory)
    }

    /// Whether it is the daemon that keeps its state there.
    fn is_daemon_of(&self, data: &Path) -> bool {
        let verb = self.words.get(1).is_some_and(|verb| verb == "up" || verb == "join");
        let data = data.display().to_string();
        verb && self.words.windows(2).any(|pair| pair[0] == "--data-dir" && pair[1] == data)
    }

    /// Whether its program has this name.
    fn is_program(&self, name: &str) -> bool {
        self.words.first().is_some_and(|word| word.rsplit('/').next() == Some(name))
    }
}

/// The processes of a host.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    /// The first process.
    pub(crate) init: Option<Process>,
    /// The Docker Engine.
    pub(crate) engine: Option<Process>,
    /// The daemon.
    pub(crate) daemon: Option<Process>,
    /// All that share the host's network, these three included.
    all: Vec<Process>,
    /// Some of them are in a network that no longer has the host's name.
    pub(crate) adrift: bool,
}

fn every() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Finds the processes of a host.
pub(crate) fn find(host: &Host, simulated: bool) -> Processes {
    let every: Vec<_> = every().filter_map(Process::read).collect();
    let named = network_of(&format!("/run/netns/{}", host.namespace));
    let (all, adrift): (Vec<_>, _) = if simulated {
        (every.into_iter().filter(|process| process.is_daemon_of(&host.data())).collect(), false)
    } else {
        let networks = networks(host, named, &every);
        let inside = |process: &Process| process.network.is_some_and(|network| networks.contains(&network));
        let all: Vec<_> = every.into_iter().filter(inside).collect();
        let adrift = all.iter().any(|process| process.network != named);
        (all, adrift)
    };
    let first = |wanted: &dyn Fn(&Process) -> bool| all.iter().find(|process| wanted(process)).cloned();
    Processes {
        init: first(&Process::is_first),
        engine: first(&|process| process.is_program("dockerd")),
        daemon: first(&|process| process.is_daemon_of(&host.data())),
        all,
        adrift,
    }
}

/// The networks of a host: one, unless its name was given to another while the host went on.
fn networks(host: &Host, named: Option<u64>, every: &[Process]) -> BTreeSet<u64> {
    let told = every.iter().filter(|process| process.names(host)).filter_map(|process| process.network);
    let ours = network_of("/proc/self/ns/net");
    named.into_iter().chain(told).filter(|network| Some(*network) != ours).collect()
}

fn network_of(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// The hosts of which a first process lives, whatever became of their names and directories.
pub(crate) fn hosts() -> Vec<String> {
    let first = every().filter_map(Process::read).filter(Process::is_first);
    first.filter_map(|process| process.words.get(2).and_then(|name| host_of(name)).map(str::to_owned)).collect()
}

/// Ends all processes of a host at once, as if its power was cut, and waits until they are gone.
pub(crate) async fn end(host: &Host, simulated: bool) -> Result<(), Refusal> {
    let failed =
        |because: String| Refusal::new(Reason::Internal, format!("{} was not switched off", host.name), because);
    let deadline = Instant::now() + END;
    loop {
        let found = find(host, simulated);
        if found.all.is_empty() {
            return Ok(());
        }
        // A first process takes all others with it; without one, each is ended.
        let first = |process: &&Process| process.is_first();
        let targets: Vec<_> = match found.all.iter().any(|process| process.is_first()) {
            true => found.all.iter().filter(first).collect(),
            false => found.all.iter().collect(),
        };
        for process in targets {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(failed(format!("process {} was not ended: {error}", process.pid))),
            }
        }
        if Instant::now() >= deadline {
            let left: Vec<_> = found.all.iter().map(|process| process.pid.to_string()).collect();
            return Err(failed(format!("processes {} do not end", left.join(", "))));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
