//! What cannot be done is refused: one clear error that says what, because and a hint, and nothing has changed.

mod bytes;
mod disks;
mod manifests;
mod starts;
mod tokens;

use std::{fs, path::Path};

use quorate_tests::hosts::{cluster::Cluster, said::Said};

/// Does what is to be refused, and checks that everything users see stays as it was.
fn in_vain(cluster: &Cluster, act: impl FnOnce() -> Said) -> Said {
    let before = cluster.everything();
    let said = act();
    assert_eq!(cluster.everything(), before, "what is refused changes nothing\n{said}");
    said
}

/// Checks that a daemon that did not start left nothing in its data directory but its lock.
fn left_nothing(data: &Path) {
    let entries = fs::read_dir(data).into_iter().flatten();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).filter(|name| name != "lock").collect();
    assert!(names.is_empty(), "{} holds {names:?}", data.display());
}
