//! The store, simulated from many seeds: whatever strikes, what its clients were told is so.
//!
//! `SEED=7` runs one of them, `SEEDS=1..200` so many; `make sim` does both for the store and for whole clusters.
//!
//! Invariant: a run in which too little happened fails: it proves nothing.

use std::{collections::BTreeMap, env, process::Command};

use quorate_tests::{seeds, store_sim};

/// Few enough for every change.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=40;
/// Set, to a seed, in a process that only says what its run was.
const TRACE: &str = "TRACE";

/// What every run must have seen.
const WANTED: [&str; 2] = ["a write was acknowledged", "the voters were changed"];

/// What the usual seeds have seen together.
const TOGETHER: [&str; 26] = [
    "a Raft snapshot was sent",
    "a disk was full",
    "a disk was slow",
    "a follower was cut off",
    "a follower was frozen",
    "a follower was killed",
    "a leader handed over",
    "a leader was cut off",
    "a leader was frozen",
    "a leader was killed",
    "a linearizable read was refused",
    "a link came and went",
    "a node joined",
    "a node left",
    "a node was not heard by another",
    "a request was tried again",
    "a store stopped because its disk failed",
    "a store was shut down",
    "a transaction was stale",
    "a watch went on on other nodes",
    "a write was refused",
    "all were killed",
    "another node came to lead",
    "requests arrived twice",
    "the outcome of a write was not known",
    "unsynced writes were lost",
];

#[test]
fn whatever_strikes_the_store_what_its_clients_were_told_is_so() {
    let seeds = seeds::chosen(SEEDS);
    let usual = seeds.iter().copied().eq(SEEDS);
    let single = seeds.len() == 1;
    let (mut failed, mut together, mut operations) = (Vec::new(), BTreeMap::<&str, usize>::new(), 0);
    for (seed, run) in seeds::run(seeds, store_sim::run) {
        let again = format!("again: SEED={seed} cargo test -p quorate-tests --test store_sim whatever");
        match run {
            Ok(report) => {
                let lacks: Vec<_> = WANTED.iter().filter(|wanted| !report.happened.contains(**wanted)).collect();
                if !report.wrong.is_empty() {
                    failed.push(format!(
                        "seed {seed}; {again}\n  {}\n  {:?}",
                        report.wrong.join("\n  "),
                        report.happened
                    ));
                } else if !lacks.is_empty() {
                    failed.push(format!("seed {seed} proves nothing, it lacks {lacks:?}; {again}"));
                }
                for what in report.happened {
                    *together.entry(what).or_default() += 1;
                }
                operations += report.operations;
            }
            Err(said) => failed.push(format!("seed {seed}; {again}\n  {said}")),
        }
    }
    println!("{operations} operations; of so many runs: {together:#?}");
    assert!(failed.is_empty(), "{} runs went wrong:\n{}", failed.len(), failed.join("\n"));
    let lacks: Vec<_> = TOGETHER.iter().filter(|wanted| usual && !together.contains_key(*wanted)).collect();
    assert!(lacks.is_empty(), "the usual seeds never saw {lacks:?}, but {together:?}");
    if single {
        println!("nothing was wrong");
    }
}

#[test]
fn a_run_of_the_store_is_the_same_in_every_process() {
    if let Some(seed) = env::var(TRACE).ok().and_then(|seed| seed.parse().ok()) {
        println!("{TRACE}={}", store_sim::run(seed).trace);
        return;
    }
    let elsewhere = |seed: u64| {
        let run = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_run_of_the_store_is_the_same_in_every_process", "--nocapture"])
            .env(TRACE, seed.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8(run.stdout).unwrap();
        said.lines().find_map(|line| Some(line.split_once(&format!("{TRACE}="))?.1.to_owned())).expect("a trace")
    };
    let one = elsewhere(7);
    assert_eq!(one, elsewhere(7));
    assert_ne!(one, elsewhere(8), "another seed is another run");
}
