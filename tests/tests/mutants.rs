//! Stores with known bugs: the simulation must notice each within two hundred seeds, and accuse no store without one.
//!
//! `make mutants` runs them all; `MUTANT=StaleRead` one.
//!
//! Invariant: one mutant is on at a time: they are chosen for the whole process.

use std::env;

use quorate_raft::mutant::{Mutant, choose};
use quorate_tests::{seeds, store_sim};

/// Within so many seeds each must be noticed.
const SEEDS: u64 = 200;
/// So many at a time.
const ROUND: u64 = 4;

#[test]
fn every_known_bug_is_noticed() {
    let wanted = env::var("MUTANT").ok();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        if wanted.as_ref().is_some_and(|wanted| *wanted != format!("{mutant:?}")) {
            continue;
        }
        choose(Some(mutant));
        let noticed = (0..SEEDS / ROUND).find_map(|round| {
            let first = round * ROUND + 1;
            let runs = seeds::run((first..first + ROUND).collect(), store_sim::run);
            runs.into_iter().find_map(|(seed, run)| match run {
                Ok(report) => report.wrong.first().map(|wrong| (seed, wrong.clone())),
                Err(said) => Some((seed, said)),
            })
        });
        choose(None);
        match noticed {
            Some((seed, wrong)) => println!("{mutant:?}: noticed with seed {seed}: {wrong}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?} within {SEEDS} seeds");
}
