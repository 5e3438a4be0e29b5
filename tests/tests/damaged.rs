//! Stories about data that is not what was written, with real processes on loopback: whoever finds its own damaged takes no part, says so,
//! and is filled anew by the others.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorate_tests::{
    hosts::wait::{so, until},
    processes::{Machines, PATIENCE, config_map},
};

/// The files of a store's database whose names end so, oldest first.
fn files(data: &Path, ending: &str) -> Vec<PathBuf> {
    let database = data.join("store/db");
    let mut found: Vec<_> = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(ending) && fs::metadata(path).unwrap().len() > 0);
    found.sort();
    found
}

/// What is damaged, and how.
type Damage<'a> = (&'static str, &'a dyn Fn(&Path));

/// Flips one bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The id of a member, as `quorate status` shows it.
fn id(machines: &Machines, asked: &str, name: &str) -> String {
    let shown = machines.ask(asked, "status -o json").done();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let member = shown["members"].as_array().unwrap().iter().find(|member| member["name"] == name).unwrap();
    member["id"].to_string()
}

#[test]
fn a_node_whose_files_were_damaged_says_so_and_is_filled_anew_by_the_others_under_another_id() {
    let mut machines = Machines::new();
    machines.found();
    let log = |data: &Path| flip(files(data, ".log").last().unwrap());
    let current = |data: &Path| fs::remove_file(data.join("store/db/CURRENT")).unwrap();
    let mark = |data: &Path| {
        let mark = fs::File::options().write(true).open(data.join("store/mark")).unwrap();
        mark.set_len(7).unwrap();
    };
    let damages: [Damage<'_>; 3] =
        [("a bit of the write-ahead log", &log), ("the file CURRENT", &current), ("the end of the mark", &mark)];
    for (round, (what, damage)) in damages.into_iter().enumerate() {
        let kept = format!("kept-{round}");
        machines.apply("n1", &kept, &config_map(&kept));
        machines.until("n3", &format!("get configmap {kept} --stale"), |_| true);
        let before = id(&machines, "n1", "n3");
        machines.stop("n3");
        damage(&machines.data("n3"));
        machines.start("n3", None);
        let log = until(&format!("n3 to say that {what} is damaged"), PATIENCE, || {
            let log = machines.logged("n3");
            let told = log.matches("the damaged store was set aside").count();
            so(told == round + 1, log.clone()).map(|()| log)
        });
        assert!(log.contains("this node is fenced"), "{what}: {log}");
        // Nothing that was promised under the old id is expected of the new one.
        machines.until("n1", "status -o json", |status| !status.contains(&before));
        machines.vote("n1", 3);
        for round in 0..=round {
            machines.until("n3", &format!("get configmap kept-{round}"), |_| true);
        }
    }
}

#[test]
fn the_only_node_of_a_cluster_whose_data_is_damaged_says_what_helps() {
    let mut machines = Machines::new();
    machines.start("n1", None);
    machines.apply("n1", "kept", &config_map("kept"));
    machines.stop("n1");
    flip(files(&machines.data("n1"), ".log").last().unwrap());
    machines.start("n1", None);
    until("n1 to say that it is alone", PATIENCE, || {
        let said = machines.ask("n1", "get configmap kept --request-timeout 5s");
        so(said.err.contains("this node is fenced"), format!("{said}\n{}", machines.logged("n1")))?;
        assert!(said.err.contains("restore a backup"), "{said}");
        Ok(())
    });
    let log = machines.logged("n1");
    assert!(log.contains("the only one of its cluster") && !log.contains("no member answered"), "{log}");
}
