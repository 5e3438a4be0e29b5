//! What machine this is: read once at start, from the kernel's own files.
//!
//! Invariant: what cannot be read is told as unknown, never guessed.

use std::{fs, path::Path, thread};

/// What a node tells about its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The host's name.
    pub hostname: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
    /// `6.1.0-18-amd64`.
    pub kernel_version: String,
    /// `amd64`, `arm64`, as Kubernetes names them.
    pub architecture: &'static str,
    /// How many processors may be used.
    pub cpus: usize,
    /// Memory, in bytes; 0 if unknown.
    pub memory: u64,
}

impl Machine {
    /// Reads what machine this is.
    #[must_use]
    pub fn read() -> Self {
        Self {
            hostname: line("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned()),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default())
                .unwrap_or_else(|| "unknown".to_owned()),
            kernel_version: line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()).unwrap_or_default(),
        }
    }
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn os_image(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn memory(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read_as_they_are_written() {
        assert_eq!(memory("MemTotal:       24571564 kB\nMemFree: 1 kB\n"), Some(24_571_564 * 1024));
        assert_eq!(memory("MemTotal: lots\n"), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap(), "Debian GNU/Linux 12 (bookworm)");
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 0, "{machine:?}");
    }
}
