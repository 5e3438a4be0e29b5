//! A cluster in which nothing happens costs next to nothing.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods, process,
    wait::{now, pass, until},
};

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// The most resident memory of a daemon, in KiB.
const MEMORY: u64 = 80 << 10;

/// The most of one core that a daemon uses, built as the tests are. On a quiet machine it is well below that; where others are busy, every
/// instruction costs up to three times as much.
const PROCESSOR: f64 = 0.02;

/// How often it is looked at how much that is: whatever else runs on this machine makes every instruction dearer for a while.
const LOOKS: usize = 5;

#[test]
fn an_idle_cluster_writes_nothing_and_its_daemons_are_small_and_quiet() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(&(pods::deployment("web", 3) + "---" + &pods::service("web")));
    until("three ready pods", PATIENCE, || pods::ready(&cluster, "web", 3, &HOSTS));
    cluster.settle();

    let daemons = HOSTS.map(|host| cluster.daemon(host));
    let quiet = (0..LOOKS).any(|_| look_on(&cluster, daemons) < PROCESSOR);
    assert!(quiet, "a daemon takes more than {:.0} % of a core, however often one looks", PROCESSOR * 100.0);
}

/// Looks on while nothing happens: nothing may be written then. How much of a core the busiest daemon takes.
fn look_on(cluster: &Cluster, daemons: [i32; 3]) -> f64 {
    let seen = || (HOSTS.map(|host| files(&cluster.data(host))), daemons.map(process::usage));
    let (begun, revision) = (now(), cluster.revision());
    let (files_before, before) = seen();
    pass(IDLE);
    let (files_after, after) = seen();
    let elapsed = begun.elapsed();

    let mut busiest = 0.0;
    for (index, host) in HOSTS.into_iter().enumerate() {
        let (before, after) = (before[index], after[index]);
        let share = (after.processor - before.processor).as_secs_f64() / elapsed.as_secs_f64();
        let written = after.written - before.written;
        println!(
            "{host} idle for {} s: {written} bytes written, {:.1} MiB resident, {:.2} % of a core",
            elapsed.as_secs(),
            after.memory as f64 / 1024.0,
            share * 100.0
        );
        assert_eq!(written, 0, "{host} writes nothing while nothing happens");
        assert_eq!(files_after[index], files_before[index], "the files of {host} stay as they are");
        assert!(after.memory < MEMORY, "{host}: {} KiB resident", after.memory);
        busiest = f64::max(busiest, share);
    }
    assert_eq!(cluster.revision(), revision, "nothing is agreed on while nothing happens");
    busiest
}

/// Every file below a directory, with its size and when it was changed.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), format!("{} bytes, {:?}", metadata.len(), metadata.modified()));
        }
    }
    found
}
