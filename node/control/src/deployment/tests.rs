//! What a user of deployments notices.

use quorate_proto::key::Key;
use serde_json::json;

use super::*;
use crate::cluster::{Cluster, deployment};

fn images(cluster: &Cluster) -> Vec<String> {
    let image =
        |pod: &&Stored| pod.object.at(&["spec", "containers"]).unwrap()[0]["image"].as_str().unwrap().to_owned();
    cluster.active("web").iter().map(image).collect()
}

fn status(cluster: &Cluster, field: &str) -> i64 {
    number(cluster.deployment("web"), &["status", field]).unwrap()
}

fn condition(cluster: &Cluster, kind: &str) -> (String, String) {
    let condition = cluster.deployment("web").condition(kind).unwrap();
    (condition["status"].as_str().unwrap().to_owned(), condition["reason"].as_str().unwrap().to_owned())
}

fn sets(cluster: &Cluster) -> Vec<(String, i64)> {
    let mut sets: Vec<_> = cluster.objects.list(&REPLICASETS).collect();
    sets.sort_by_key(|set| annotated(&set.object, REVISION));
    sets.iter().map(|set| (set.object.annotation(REVISION).unwrap().to_owned(), asked(&set.object))).collect()
}

fn update_image(cluster: &mut Cluster, key: &Key, image: &str) {
    cluster.patch(key, &json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}}));
}

#[test]
fn a_deployment_runs_its_replicas_and_says_so() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(deployment("web", 3, "web:1"));
    cluster.run();
    assert_eq!(cluster.show(), ["web n1 Ready", "web n2 Ready", "web n3 Ready"]);
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status(&cluster, field), 3, "{field}");
    }
    assert_eq!((status(&cluster, "unavailableReplicas"), status(&cluster, "observedGeneration")), (0, 1));
    assert_eq!(condition(&cluster, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(condition(&cluster, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(cluster.deployment("web").annotation(REVISION), Some("1"));
    let set = cluster.objects.list(&REPLICASETS).next().unwrap();
    let hash = set.object.label("pod-template-hash").unwrap();
    assert_eq!(set.object.name(), format!("web-{hash}"));
    let pod = &cluster.active("web")[0].object;
    assert_eq!(pod.label("pod-template-hash"), Some(hash));
    assert!(pod.name().starts_with(&format!("web-{hash}-")));
}

#[test]
fn a_rolling_update_never_has_fewer_available_nor_more_in_all_than_allowed() {
    let mut cluster = Cluster::of_nodes(3);
    let key = cluster.apply(deployment("web", 3, "web:1"));
    cluster.run();
    update_image(&mut cluster, &key, "web:2");
    let mut steps = 0;
    loop {
        let decision = cluster.decide();
        let acted = cluster.agents_act();
        if decision.operations.is_empty() && !acted {
            break;
        }
        cluster.carry_out(&decision);
        let active = cluster.active("web");
        assert!(active.len() <= 4, "{:?}", cluster.show());
        assert!(active.iter().filter(|pod| is_ready(&pod.object)).count() >= 3, "{:?}", cluster.show());
        steps += 1;
        assert!(steps < 200, "{:?}", cluster.show());
    }
    assert_eq!(images(&cluster), ["web:2"; 3]);
    assert_eq!(sets(&cluster), [("1".to_owned(), 0), ("2".to_owned(), 3)]);
    assert_eq!(condition(&cluster, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn a_broken_image_stops_the_rollout_and_is_said_to_have_failed_after_its_deadline() {
    let mut cluster = Cluster::of_nodes(3);
    let mut wanted = deployment("web", 3, "web:1");
    wanted["spec"]["progressDeadlineSeconds"] = 60.into();
    let key = cluster.apply(wanted);
    cluster.run();
    cluster.patch(&key, &json!({"spec": {"template": {"metadata": {"annotations": {"test/broken": "yes"}}}}}));
    let decision = cluster.run();
    assert_eq!(cluster.active("web").len(), 4);
    assert_eq!(status(&cluster, "availableReplicas"), 3, "what ran runs on");
    assert_eq!(decision.reasons[&key], "1 of 3 replicas are updated, 3 available");
    assert_eq!(condition(&cluster, "Progressing"), ("True".into(), "ReplicaSetUpdated".into()));
    cluster.pass(59);
    assert_eq!(condition(&cluster, "Progressing").0, "True");
    cluster.pass(2);
    assert_eq!(condition(&cluster, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));

    cluster.patch(&key, &json!({"spec": {"template": {"metadata": {"annotations": null}}}}));
    cluster.run();
    assert_eq!(sets(&cluster), [("2".to_owned(), 0), ("3".to_owned(), 3)], "the first set is back, as revision 3");
    assert_eq!(cluster.active("web").len(), 3);
    assert_eq!(condition(&cluster, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn recreate_ends_all_old_pods_before_it_starts_new_ones() {
    let mut cluster = Cluster::of_nodes(2);
    let mut wanted = deployment("web", 2, "web:1");
    wanted["spec"]["strategy"] = json!({"type": "Recreate"});
    let key = cluster.apply(wanted);
    cluster.run();
    update_image(&mut cluster, &key, "web:2");
    let decision = cluster.settle();
    assert_eq!(cluster.show(), ["web n1 Terminating", "web n2 Terminating"]);
    assert_eq!(decision.reasons[&key], "waits for 2 old pods to end before it starts new ones");
    cluster.run();
    assert_eq!(images(&cluster), ["web:2"; 2]);
}

#[test]
fn scaling_follows_also_while_a_rollout_is_stuck_and_keeps_the_shares() {
    let mut cluster = Cluster::of_nodes(4);
    let key = cluster.apply(deployment("web", 10, "web:1"));
    cluster.run();
    cluster.patch(&key, &json!({"spec": {"template": {"metadata": {"annotations": {"test/broken": "yes"}}}}}));
    cluster.run();
    assert_eq!(sets(&cluster), [("1".to_owned(), 8), ("2".to_owned(), 5)]);
    cluster.patch(&key, &json!({"spec": {"replicas": 15}}));
    cluster.run();
    let [old, new] = [0, 1].map(|index| sets(&cluster)[index].1);
    assert_eq!(old + new, 15 + 4);
    assert!(old > new, "{old} old, {new} new");
    cluster.patch(&key, &json!({"spec": {"replicas": 0}}));
    cluster.run();
    assert_eq!(cluster.active("web").len(), 0);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(deployment("web", 2, "web:1"));
    cluster.run();
    cluster.patch(&key, &json!({"spec": {"paused": true, "replicas": 3}}));
    update_image(&mut cluster, &key, "web:2");
    cluster.run();
    assert_eq!(images(&cluster), ["web:1"; 3]);
    assert_eq!(condition(&cluster, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    cluster.patch(&key, &json!({"spec": {"paused": false}}));
    cluster.run();
    assert_eq!(images(&cluster), ["web:2"; 3]);
}

#[test]
fn only_so_many_old_sets_are_kept_and_the_cause_of_a_change_stays_with_its_set() {
    let mut cluster = Cluster::of_nodes(1);
    let mut wanted = deployment("web", 1, "web:1");
    wanted["spec"]["revisionHistoryLimit"] = 2.into();
    let key = cluster.apply(wanted);
    for version in 1..=5 {
        cluster.patch(
            &key,
            &json!({"metadata": {"annotations": {"kubernetes.io/change-cause": format!("version {version}")}}}),
        );
        update_image(&mut cluster, &key, &format!("web:{version}"));
        cluster.run();
    }
    let revisions: Vec<_> = sets(&cluster).into_iter().map(|(revision, _)| revision).collect();
    assert_eq!(revisions, ["3", "4", "5"]);
    let causes: Vec<_> = cluster
        .objects
        .list(&REPLICASETS)
        .filter_map(|set| set.object.annotation("kubernetes.io/change-cause"))
        .collect();
    assert_eq!(causes.len(), 3);
    assert!(causes.contains(&"version 3"), "{causes:?}");
}

#[test]
fn two_leaders_on_one_snapshot_take_one_step() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(deployment("web", 2, "web:1"));
    cluster.run();
    update_image(&mut cluster, &key, "web:2");
    let [ours, theirs] = [(); 2].map(|()| cluster.decide());
    cluster.carry_out(&ours);
    assert_eq!(cluster.carry_out(&theirs), theirs.operations.len());
    cluster.run();
    assert_eq!((sets(&cluster).len(), images(&cluster)), (2, vec!["web:2".to_owned(); 2]));
}

#[test]
fn a_name_that_is_taken_is_avoided() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(deployment("web", 1, "web:1"));
    cluster.run();
    let first = cluster.objects.list(&REPLICASETS).next().unwrap().clone();
    cluster.remove(&key);
    cluster.settle();
    assert_eq!(cluster.objects.list(&REPLICASETS).count(), 0, "its set went with it");
    let mut foreign = first.object.clone();
    foreign.set(&["metadata", "ownerReferences"], json!([]));
    foreign.set(&["spec", "replicas"], 0);
    cluster.commit(&Txn::new().put(first.key.clone(), foreign.to_document()));
    cluster.apply(deployment("web", 1, "web:1"));
    cluster.run();
    assert_eq!(images(&cluster), ["web:1"]);
    assert_eq!(cluster.objects.list(&REPLICASETS).count(), 2);
}
