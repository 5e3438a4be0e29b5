//! Stories that nobody wrote: from a seed, commands and faults at any time; when all is mended, the cluster must be as it was asked for.
//!
//! `SEED=7` plays one of them and, with `--nocapture`, tells it; `SEEDS=1..200` so many; `make sim` does both for them and the store's own simulation.
//!
//! Invariant: a run in which the wanted faults struck nobody fails: it proves nothing.

use std::{collections::BTreeSet, sync::Mutex};

use quorate_tests::{
    seeds,
    sim::{self, invent},
};

/// Few enough for every change.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=40;

/// What the usual seeds have seen together.
const TOGETHER: [&str; 12] = [
    "a follower was cut off",
    "a follower was frozen",
    "a follower was killed",
    "a follower was not heard by another",
    "a follower was restarted",
    "a leader was cut off",
    "a leader was frozen",
    "a leader was killed",
    "a leader was parted from another",
    "a leader was restarted",
    "packets lost",
    "a change was refused under a fault",
];

#[test]
fn whatever_strikes_a_cluster_it_comes_to_be_as_it_was_asked_for() {
    let seeds = seeds::chosen(SEEDS);
    let usual = seeds.iter().copied().eq(SEEDS);
    let single = seeds.len() == 1;
    let stories: Mutex<Vec<(u64, String)>> = Mutex::default();
    let runs = seeds::run(seeds, |seed| {
        let told = Mutex::new(format!("# Invented from seed {seed}.\n"));
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            sim::run(seed, |sim| invent::play(seed, sim, &told))
        }));
        let story = told.into_inner().unwrap_or_default();
        match played {
            Ok(happened) => {
                if single {
                    println!("{story}");
                }
                happened
            }
            Err(panic) => {
                stories.lock().unwrap().push((seed, story));
                std::panic::resume_unwind(panic)
            }
        }
    });
    let stories = stories.into_inner().unwrap();
    let (mut failed, mut together) = (Vec::new(), BTreeSet::new());
    for (seed, run) in runs {
        let again = format!("again: SEED={seed} cargo test -p quorate-tests --test invented");
        match run {
            Ok(happened) => {
                let lacks: Vec<_> = invent::WANTED.iter().filter(|wanted| !happened.contains(**wanted)).collect();
                if !lacks.is_empty() {
                    failed.push(format!("seed {seed} proves nothing, it lacks {lacks:?}; {again}"));
                }
                together.extend(happened);
            }
            Err(said) => {
                let story = stories.iter().find(|(of, _)| *of == seed).map(|(_, story)| story.as_str());
                failed.push(format!("seed {seed}; {again}\n{}{said}", story.unwrap_or_default()));
            }
        }
    }
    assert!(failed.is_empty(), "{} runs went wrong:\n{}", failed.len(), failed.join("\n"));
    let lacks: Vec<_> = TOGETHER.iter().filter(|wanted| usual && !together.contains(**wanted)).collect();
    assert!(lacks.is_empty(), "the usual seeds never saw {lacks:?}, but {together:?}");
}
