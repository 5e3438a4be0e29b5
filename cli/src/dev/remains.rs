//! What of a cluster with real hosts can be seen on this machine, whoever wrote it down: `down` removes it, `status` shows it.
//!
//! Invariant: it goes by the names in [`super::plan`] and by the kernel's own records, and looking changes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    network,
    plan::{CONTROL_GROUP, LINK, NAMESPACE, host_of},
    processes,
};

/// Where control groups are: hierarchies side by side in version 1, one in version 2.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Everything that is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Hosts of which there is a directory, a network namespace, a link or a process.
    pub(crate) hosts: Vec<String>,
    /// What belongs to no single host: `bridge qdev0`.
    pub(crate) others: Vec<String>,
}

impl Remains {
    /// Looks for everything, also for hosts whose directories are in `base`.
    pub(crate) async fn find(base: &Path) -> Self {
        let mut hosts = named(base, "");
        hosts.extend(named(Path::new("/run/netns"), NAMESPACE));
        hosts.extend(named(Path::new("/sys/class/net"), LINK));
        hosts.extend(processes::hosts());
        hosts.sort();
        hosts.dedup();
        let groups = control_groups().into_iter().map(|group| format!("control group {}", group.display()));
        let others = network::seen().await.into_iter().chain(groups).collect();
        Self { hosts, others }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.others.is_empty()
    }
}

impl std::fmt::Display for Remains {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts = self.hosts.iter().map(|host| format!("host {host}"));
        formatter.write_str(&hosts.chain(self.others.iter().cloned()).collect::<Vec<_>>().join(", "))
    }
}

/// The hosts that entries of a directory are named after.
pub(crate) fn named(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| host_of(name.strip_prefix(prefix)?).map(str::to_owned)).collect()
}

/// The hosts' control groups, in every hierarchy.
fn control_groups() -> Vec<PathBuf> {
    let root = Path::new(CONTROL_GROUPS);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // Version 1 has links to hierarchies with several names.
    let hierarchies = hierarchies.filter(|hierarchy| !hierarchy.is_symlink()).chain([root.to_owned()]);
    hierarchies.map(|hierarchy| hierarchy.join(CONTROL_GROUP)).filter(|group| group.is_dir()).collect()
}

/// Removes the control groups of hosts that are off.
///
/// # Errors
/// With the group, if one is still in use.
pub(crate) fn remove_control_groups() -> Result<(), (PathBuf, io::Error)> {
    for group in control_groups() {
        remove_group(&group).map_err(|error| (group, error))?;
    }
    Ok(())
}

fn remove_group(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What is mounted below a directory, the innermost first, given the kernel's table of mounts.
pub(crate) fn mounts_below(base: &Path, table: &str) -> Vec<PathBuf> {
    let places = table.lines().filter_map(|line| line.split(' ').nth(1)).map(unescaped);
    let mut below: Vec<_> = places.filter(|place| place.starts_with(base)).collect();
    below.reverse(); // what was mounted last is on top
    below
}

/// The table writes a space as `\040`, and likewise tabs, line ends and backslashes.
fn unescaped(place: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.into_iter().fold(place.to_owned(), |place, (escape, plain)| place.replace(escape, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_known_by_what_is_named_after_them() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["qdev-n3", "qdev-n12", "qdev0", "eth0", "qdev-", "n4"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut found = named(directory.path(), LINK);
        found.sort();
        assert_eq!(found, ["n12", "n3"]);
        assert_eq!(named(&directory.path().join("nowhere"), ""), Vec::<String>::new());
    }

    #[test]
    fn what_is_mounted_below_the_place_is_found_innermost_first() {
        let table = "/dev/sda1 / ext4 rw 0 0\ntmpfs /var/lib/quorate-dev/n1/data tmpfs rw 0 0\n\
            overlay /var/lib/quorate-dev/n1/data/a\\040b overlay rw 0 0\ntmpfs /var/lib/quorate-devil tmpfs rw 0 0\n";
        let below = mounts_below(Path::new("/var/lib/quorate-dev"), table);
        assert_eq!(below, ["/var/lib/quorate-dev/n1/data/a b", "/var/lib/quorate-dev/n1/data"].map(PathBuf::from));
    }
}
