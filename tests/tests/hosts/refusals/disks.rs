//! Data directories without room.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use quorate_tests::hosts::{
    cluster::{Beside, Cluster, PATIENCE},
    pods,
    wait::{so, until},
};

use super::left_nothing;

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str())).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32), "{error}");
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let removed = umount2(&self.0, MntFlags::MNT_DETACH);
        if !thread::panicking() {
            removed.unwrap();
        }
    }
}

fn start(cluster: &Cluster, data: &Path, log: &Path) -> Beside {
    cluster.daemon_beside(&words(data), log)
}

fn words(data: &Path) -> String {
    let listen = "--listen 127.0.0.1:7610 --advertise 127.0.0.1:7610";
    format!("up --context small --simulated --name s1 {listen} --data-dir {}", data.display())
}

#[test]
fn a_full_data_directory_is_refused_at_the_start_and_nothing_is_left_in_it() {
    let cluster = Cluster::none();
    let disk = Disk::new(cluster.directory().join("disk"), "1m");
    disk.fill();
    cluster.start_in_vain(None, &words(&disk.data())).refused(1, &["No space left on device", "room"]);
    left_nothing(&disk.data());
    cluster.run("get nodes --context small").refused(1, &["there is no context `small`"]);
}

#[test]
fn a_disk_that_becomes_full_takes_nothing_new_loses_nothing_and_is_written_again_when_it_has_room() {
    let cluster = Cluster::none();
    let disk = Disk::new(cluster.directory().join("disk"), "256m");
    let log = cluster.directory().join("small.log");
    let logged = || fs::read_to_string(&log).unwrap();
    let put = |name: &str, bytes: usize| {
        let manifest = pods::config_map(name, "text", &"x".repeat(bytes));
        cluster.feed("apply --context small --request-timeout 2s -f -", &manifest)
    };
    let mut daemon = start(&cluster, &disk.data(), &log);
    until("a node that is ready", PATIENCE, || {
        let said = cluster.run("get nodes --context small --request-timeout 1s");
        so(said.out.contains(" Ready "), format!("{said}\n{}", logged()))
    });
    disk.fill();
    until("an alarm", PATIENCE, || {
        let said = cluster.run("cluster status --context small --request-timeout 1s");
        so(said.out.lines().any(|line| line.starts_with("Alarm:") && line.contains("the disk of")), said.to_string())
    });
    // What the log has reserved on the disk already is written still.
    let mut acknowledged = Vec::new();
    let refused = (0..200).find_map(|number| {
        let name = format!("object-{number}");
        let said = put(&name, 200 << 10);
        if said.code != Some(0) {
            return Some(said);
        }
        acknowledged.push(name);
        None
    });
    println!("a full disk took {} more objects of 200 KiB", acknowledged.len());
    let refused = refused.expect("a full disk takes no more");
    assert!(matches!(refused.code, Some(1 | 3)), "{refused}");

    disk.make_room();
    until("writes again, by itself", PATIENCE, || {
        let said = put("after", 10);
        so(said.code == Some(0), format!("{said}\n{}", logged()))
    });
    assert!(daemon.ended().is_none(), "it never stopped\n{}", logged());
    let shown = cluster.done("get configmaps --context small -o name");
    for name in &acknowledged {
        assert!(shown.lines().any(|line| line == format!("configmap/{name}")), "{name} was acknowledged\n{shown}");
    }
}
