//! Manifests that cannot be applied.

use std::fs;

use quorate_tests::hosts::{cluster::Cluster, pods};

use super::in_vain;

#[test]
fn a_manifest_that_is_too_large_or_misspelt_is_refused_with_its_place_and_nothing_of_it_is_applied() {
    let cluster = Cluster::up();
    cluster.settle();
    let file = |name: &str, text: &str| fs::write(cluster.directory().join(name), text).unwrap();
    let apply = |name: &str| in_vain(&cluster, || cluster.run(&format!("apply -f {name}")));

    file("large.yaml", &pods::config_map("large", "text", &"x".repeat(2 << 20)));
    apply("large.yaml").refused(1, &["large"]);

    let misspelt = pods::deployment("web", 3).trim_start().replace("  replicas: 3", "  replica: 3");
    let line = 1 + misspelt.lines().position(|line| line.contains("replica:")).unwrap();
    file("misspelt.yaml", &misspelt);
    apply("misspelt.yaml").refused(1, &[&format!("misspelt.yaml:{line}"), "replica", "replicas"]);

    file("type.yaml", &pods::deployment("web", 3).trim_start().replace("replicas: 3", "replicas: three"));
    apply("type.yaml").refused_because(1, &["type.yaml:6", "replicas"]);

    file("indent.yaml", "apiVersion: v1\nkind: ConfigMap\n metadata:\n  name: a\n");
    apply("indent.yaml").refused_because(1, &["indent.yaml:3"]);

    file("kind.yaml", "apiVersion: apps/v1\nkind: Deploymint\nmetadata:\n  name: a\n");
    apply("kind.yaml").refused_because(1, &["kind.yaml", "Deploymint"]);

    // What is sound in a file with a fault is not applied either.
    file("both.yaml", &(pods::config_map("sound", "a", "b") + "---\n" + &misspelt));
    apply("both.yaml").refused(1, &["both.yaml", "replica"]);

    apply("nowhere.yaml").refused_because(1, &["nowhere.yaml"]);
}
