//! Plays every story in `tests/stories` on a simulated cluster and compares what it leads to; `UPDATE=1` rewrites them.
//!
//! Invariant: a story that is played twice comes out the same.

use std::{fs, path::Path};

use quorate_tests::sim::{self, story};

/// The seed stories are played with; what they show holds for any.
const SEED: u64 = 1;

#[test]
fn every_story_leads_to_the_cluster_it_tells() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let mut stories: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.sort();
    assert!(!stories.is_empty());
    let mut failed = Vec::new();
    for path in stories {
        let text = fs::read_to_string(&path).unwrap();
        let told = sim::run(SEED, |sim| story::play(&text, sim));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &told).unwrap();
        } else if told != text {
            failed.push(format!("{}\n{}", path.display(), similar::TextDiff::from_lines(&text, &told).unified_diff()));
        }
    }
    assert!(failed.is_empty(), "stories came out otherwise (UPDATE=1 rewrites them):\n{}", failed.join("\n"));
}

#[test]
fn a_run_is_the_same_every_time_it_is_run_from_one_seed() {
    let run = |seed| {
        sim::run(seed, |mut sim| async move {
            sim.nodes(3).await;
            sim.apply(serde_json::json!({
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
            let snapshot = sim.snapshot();
            let objects: Vec<String> = snapshot.all().map(|stored| format!("{} {}", stored.modified, stored.object)).collect();
            (leader, snapshot.revision(), objects)
        })
    };
    let [one, again, other] = [7, 7, 8].map(run);
    assert_eq!(one, again);
    assert_ne!(one, other, "another seed is another run");
}
