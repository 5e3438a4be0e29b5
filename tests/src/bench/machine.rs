//! What the kernel counts: CPU, memory and bytes of processes, and how busy the machine is.
//!
//! Invariant: what is counted of a side is counted of all its processes; the client's own share is kept apart.

use std::{fs, io::Write as _, path::Path, process::Command, time::Duration};

use quorate_tests::stores::Failure;
use tokio::time::Instant;

/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS: u64 = 100;

/// Syncs of a probe of the disk, and bytes of each.
const SYNCS: usize = 200;
const SIZE: usize = 4096;

/// What processes have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// Bytes that went to a disk, or will.
    pub(crate) written: u64,
}

/// What the machine as a whole has done so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy: Duration,
    at: Instant,
}

/// CPU and bytes of processes together.
pub(crate) fn used(pids: &[u32]) -> Result<Used, Failure> {
    let mut used = Used::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in brackets may hold spaces: behind it, user and system time are the 12th and 13th field.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        used.cpu += Duration::from_millis(ticks * 1000 / TICKS);
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        used.written += written.and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(used)
}

/// Resident memory of the largest of some processes, in bytes.
pub(crate) fn resident(pids: &[u32]) -> Result<u64, Failure> {
    let mut largest = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = kibibytes.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        largest = largest.max(kibibytes.unwrap_or(0) << 10);
    }
    Ok(largest)
}

/// What the whole machine has done until now.
pub(crate) fn machine() -> Result<Machine, Failure> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    // user, nice, system; idle and waiting; then interrupts and what other guests took.
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let busy: u64 = ticks.iter().enumerate().filter(|(place, _)| !matches!(place, 3 | 4 | 8..)).map(|(_, t)| t).sum();
    Ok(Machine { busy: Duration::from_millis(busy * 1000 / TICKS), at: Instant::now() })
}

impl Machine {
    /// Which part of the machine others used since then, if we used `ours` of it: 0 to 1.
    pub(crate) fn foreign(&self, ours: Duration) -> Result<f64, Failure> {
        let now = machine()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let all = now.at.duration_since(self.at).as_secs_f64() * cores;
        let busy = now.busy.saturating_sub(self.busy).saturating_sub(ours);
        Ok(busy.as_secs_f64() / all.max(1e-9))
    }
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// How long the median of some syncs takes on the disk of a directory.
pub(crate) fn sync(directory: &Path) -> Result<Duration, Failure> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![0; SYNCS * SIZE])?;
    file.sync_all()?;
    std::io::Seek::rewind(&mut file)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0x5a; SIZE])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

/// Counts the syncs of processes while something goes on; `None` where perf or its right is missing.
pub(crate) struct Syncs(Option<std::process::Child>);

impl Syncs {
    /// Begins to count.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", "syscalls:sys_enter_fdatasync,syscalls:sys_enter_fsync", "-p"]);
        command.arg(pids.join(",")).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        Self(command.stderr(std::process::Stdio::piped()).spawn().ok())
    }

    /// How many there were.
    pub(crate) fn count(self) -> Option<u64> {
        let child = self.0?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).ok()?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).ok()?;
        let output = child.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let counts: Vec<u64> = text.lines().filter_map(|line| line.split(',').next()?.parse().ok()).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }
}
