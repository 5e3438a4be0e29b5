//! Plays every story in `tests/stories` on a simulated cluster and compares what it leads to; `UPDATE=1` rewrites them.
//!
//! `STORY=lost-node` plays one story only, `SEED=7` one seed only; `RUST_LOG=debug` shows what the nodes do meanwhile.
//!
//! Invariant: a story that is played twice comes out the same.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use quorate_tests::sim::{self, story};
use serde_json::json;

/// The seed the stories are told with.
const SEED: u64 = 1;
/// The seeds for which they must hold besides.
const SEEDS: std::ops::RangeInclusive<u64> = 2..=11;
/// Set in a process that only says what its run was.
const TRACE: &str = "TRACE";

#[test]
fn every_story_leads_to_the_cluster_it_tells() {
    let mut failed = Vec::new();
    for path in stories() {
        let text = fs::read_to_string(&path).unwrap();
        match played(&path, &text, SEED) {
            Ok(told) if env::var_os("UPDATE").is_some() => fs::write(&path, &told).unwrap(),
            Ok(told) if told == text => {}
            Ok(told) => failed.push(format!("{}\n{}", name(&path), difference(&text, &told))),
            Err(panicked) => failed.push(panicked),
        }
    }
    assert!(failed.is_empty(), "stories came out otherwise (UPDATE=1 rewrites them):\n{}", failed.join("\n"));
}

#[test]
fn every_story_holds_for_ten_seeds() {
    if env::var_os("UPDATE").is_some() {
        return; // what they are compared with is being rewritten
    }
    let seeds: Vec<u64> = env::var("SEED").map_or_else(|_| SEEDS.collect(), |seed| vec![seed.parse().expect("a seed")]);
    let plays: Vec<(PathBuf, u64)> =
        stories().into_iter().flat_map(|path| seeds.iter().map(move |seed| (path.clone(), *seed))).collect();
    let (next, failed) = (Mutex::new(plays.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((path, seed)) = next.lock().unwrap().next() else { return };
                    let text = fs::read_to_string(&path).unwrap();
                    let wrong = match played(&path, &text, seed)
                        .map(|told| (story::settled(&text), story::settled(&told)))
                    {
                        Ok((expected, told)) if expected == told => continue,
                        Ok((expected, told)) => format!("{}\n{}", replay(&path, seed), difference(&expected, &told)),
                        Err(panicked) => panicked,
                    };
                    failed.lock().unwrap().push(wrong);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} runs came out otherwise:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_run_is_the_same_every_time_it_is_run_from_one_seed_whatever_the_process() {
    let run = |seed| sim::run(seed, failover);
    if env::var_os(TRACE).is_some() {
        println!("{TRACE}={:?}", run(7));
        return;
    }
    let [one, again, other] = [7, 7, 8].map(run);
    assert_eq!(one, again);
    assert_ne!(one, other, "another seed is another run");
    let this_test = "a_run_is_the_same_every_time_it_is_run_from_one_seed_whatever_the_process";
    let elsewhere = Command::new(env::current_exe().unwrap())
        .args(["--exact", this_test, "--nocapture"])
        .env(TRACE, "1")
        .output()
        .unwrap();
    let elsewhere = String::from_utf8(elsewhere.stdout).unwrap();
    let trace = elsewhere.lines().find_map(|line| Some(line.split_once(&format!("{TRACE}="))?.1));
    assert_eq!(trace, Some(format!("{one:?}").as_str()), "{elsewhere}");
}

/// A cluster that loses its leader: who it was, all that happened as a number, and all objects.
async fn failover(mut sim: sim::Sim) -> (String, u64, Vec<String>) {
    sim.nodes(3).await;
    sim.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}},
    }))
    .await
    .unwrap();
    sim.settle().await;
    let leader = sim.leader().unwrap();
    sim.kill(&leader).await;
    sim.settle().await;
    let objects = sim.snapshot().all().map(|stored| format!("{} {}", stored.modified, stored.object)).collect();
    (leader, sim.trace(), objects)
}

/// The stories, or the one that was asked for.
fn stories() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let mut stories: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Ok(wanted) = env::var("STORY") {
        stories.retain(|path| name(path) == wanted);
    }
    stories.sort();
    assert!(!stories.is_empty(), "there is no such story");
    stories
}

fn name(path: &Path) -> &str {
    path.file_stem().and_then(|name| name.to_str()).unwrap()
}

/// How a story came out, or what it broke on and how to see it again.
fn played(path: &Path, text: &str, seed: u64) -> Result<String, String> {
    catch_unwind(AssertUnwindSafe(|| sim::run(seed, |sim| story::play(text, sim)))).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("{}\n{}", replay(path, seed), said.unwrap_or("it panicked"))
    })
}

/// What plays a story with a seed again.
fn replay(path: &Path, seed: u64) -> String {
    let story = name(path);
    format!(
        "{story} with seed {seed}; again: SEED={seed} STORY={story} cargo test -p quorate-tests --test stories seeds"
    )
}

fn difference(expected: &str, told: &str) -> String {
    similar::TextDiff::from_lines(expected, told).unified_diff().to_string()
}
