//! Which processes belong to a host: read from the kernel, remembered nowhere.
//!
//! A host's processes share its network namespace; its first process is the one with the number 1 in a process namespace of its own, and
//! when that ends, the kernel ends all others, containers included. Simulated hosts are only daemons, known by their data directory.
//!
//! Invariant: no process is taken for ours by a number that was written down: numbers are reused.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::{Instant, sleep};

use super::plan::Host;

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
        Some(Self { pid, words, inner, memory })
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
}

fn every() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Finds the processes of a host.
pub(crate) fn find(host: &Host, simulated: bool) -> Processes {
    let all: Vec<_> = if simulated {
        every().filter_map(Process::read).filter(|process| process.is_daemon_of(&host.data())).collect()
    } else {
        let Some(ours) = namespace_number(&host.namespace) else { return Processes::default() };
        let shares =
            |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| metadata.ino() == ours);
        every().filter(shares).filter_map(Process::read).collect()
    };
    let first = |wanted: &dyn Fn(&Process) -> bool| all.iter().find(|process| wanted(process)).cloned();
    Processes {
        init: first(&|process| process.inner == Some(1)),
        engine: first(&|process| process.is_program("dockerd")),
        daemon: first(&|process| process.is_daemon_of(&host.data())),
        all,
    }
}

fn namespace_number(name: &str) -> Option<u64> {
    fs::metadata(Path::new("/run/netns").join(name)).ok().map(|metadata| metadata.ino())
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
        // The first process takes all others with it; without one, each is ended.
        let targets = found.init.as_ref().map_or(found.all.as_slice(), std::slice::from_ref);
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
