//! Processes as the kernel shows them in `/proc`.
//!
//! Invariant: a process is ended by its number, found a moment before by what only it has.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::{so, until};

/// The kernel's clock ticks per second, in `/proc/PID/stat`: 100 on every Linux since 2.6 (`USER_HZ`).
const TICKS: u64 = 100;

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads.
    pub processor: Duration,
    /// Resident memory now, in KiB.
    pub memory: u64,
    /// Bytes it caused to be written to disks.
    pub written: u64,
}

/// What a process has used.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn usage(pid: i32) -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let field = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let stat = read("stat");
    // The second field, the name in parentheses, may hold anything; utime and stime are the fields 14 and 15.
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Usage {
        processor: Duration::from_millis(ticks * 1000 / TICKS),
        memory: field(&read("status"), "VmRSS:"),
        written: field(&read("io"), "write_bytes:"),
    }
}

/// Ends a process at once, as the kernel does when memory is short, and waits until it is gone.
///
/// # Panics
/// If it does not end.
pub fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until(&format!("the end of process {pid}"), Duration::from_secs(20), || so(!lives(pid), "it lives"));
}

/// Whether there is such a process, and it is more than an exit code that nobody asked for yet.
#[must_use]
pub fn lives(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| !stat[stat.rfind(')').unwrap_or(0)..].starts_with(") Z"))
}

/// The number by which the kernel knows a network namespace.
#[must_use]
pub fn network(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// The processes that live in one of these network namespaces: number and command line.
#[must_use]
pub fn in_networks(networks: &[u64]) -> Vec<String> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = numbers.filter(|pid| {
        network(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|number| networks.contains(&number))
    });
    inside.map(|pid| format!("{pid} {}", command_line(pid))).collect()
}

/// How a process was started.
#[must_use]
pub fn command_line(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}
