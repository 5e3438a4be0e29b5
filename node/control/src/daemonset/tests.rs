//! What a user of daemon sets notices.

use std::time::Duration;

use proptest::prelude::*;
use quorate_proto::{key::Key, object::Object};
use serde_json::{Value, json};

use super::{new_pod::REVISION, *};
use crate::{
    cluster::{Cluster, daemonset, large_pod, node, pod},
    edit::number,
    pod::{is_ready, node_name},
};

fn status(cluster: &Cluster, key: &Key) -> Vec<i64> {
    ["desired", "current", "updated"]
        .map(|count| format!("{count}NumberScheduled"))
        .into_iter()
        .chain(["numberReady", "numberAvailable", "numberUnavailable", "numberMisscheduled"].map(str::to_owned))
        .map(|field| number(&cluster.get(key).object, &["status", &field]).unwrap())
        .collect()
}

fn of(name: &str) -> Key {
    NODES.key(None, name).unwrap()
}

fn update_image(cluster: &mut Cluster, key: &Key, image: &str) {
    cluster.patch(key, &json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}}));
}

/// The pods as lines, in the order of their nodes.
fn shown(cluster: &Cluster) -> Vec<String> {
    let mut lines = cluster.show();
    lines.sort();
    lines
}

/// The images on the nodes, in the nodes' order; pods that end are left out.
fn images(cluster: &Cluster) -> Vec<String> {
    let mut pods: Vec<(&str, &str)> = cluster
        .active("web")
        .iter()
        .map(|pod| {
            let image = &pod.object.at(&["spec", "containers"]).unwrap()[0]["image"];
            (node_name(&pod.object).unwrap_or("-"), image.as_str().unwrap())
        })
        .collect();
    pods.sort_unstable();
    pods.into_iter().map(|(node, image)| format!("{node} {image}")).collect()
}

#[test]
fn every_node_gets_one_pod_also_one_that_joins_later_and_loses_it_when_it_goes() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n2 Ready"]);
    assert_eq!(status(&cluster, &key), [2, 2, 2, 2, 2, 0, 0]);
    assert_eq!(number(&cluster.get(&key).object, &["status", "observedGeneration"]), Some(1));
    let first = &cluster.active("web")[0].object;
    assert!(first.is_controlled_by(&cluster.get(&key).object) && first.label(REVISION).is_some());

    cluster.apply(node("n3"));
    cluster.pass(1);
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n2 Ready", "web n3 Ready"]);
    cluster.remove(&of("n1"));
    cluster.pass(1);
    assert_eq!(shown(&cluster), ["web n2 Ready", "web n3 Ready"]);
    assert_eq!(status(&cluster, &key), [2, 2, 2, 2, 2, 0, 0]);
}

#[test]
fn only_nodes_that_are_meant_get_a_pod_and_one_that_no_longer_is_loses_it() {
    let mut cluster = Cluster::of_nodes(3);
    let mut set = daemonset("web", "web:1");
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    let key = cluster.apply(set);
    cluster.run();
    assert_eq!(shown(&cluster), [""; 0]);
    for name in ["n1", "n2"] {
        cluster.patch(&of(name), &json!({"metadata": {"labels": {"disk": "fast"}}}));
    }
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n2 Ready"]);
    let wish = json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n2"]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [wish]}]}}});
    cluster.patch(&key, &json!({"spec": {"template": {"spec": {"affinity": affinity}}}}));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready"]);
    cluster.patch(&of("n1"), &json!({"metadata": {"labels": {"disk": "slow"}}}));
    cluster.settle();
    assert_eq!(status(&cluster, &key), [0, 0, 0, 0, 0, 0, 1]);
    cluster.run();
    assert_eq!((shown(&cluster), status(&cluster, &key)), (vec![], vec![0; 7]));
}

#[test]
fn a_pod_pinned_to_a_node_without_room_waits_and_says_why() {
    let mut cluster = Cluster::of_nodes(2);
    let mut filler = large_pod("filler", 4);
    filler["spec"]["nodeName"] = "n1".into();
    let filler = cluster.apply(filler);
    let mut set = daemonset("web", "web:1");
    set["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "1Gi"}});
    let key = cluster.apply(set);
    let decision = cluster.run();
    assert_eq!(shown(&cluster), ["filler n1 Ready", "web - Pending", "web n2 Ready"]);
    let waiting = cluster.active("web").into_iter().find(|pod| node_name(&pod.object).is_none()).unwrap();
    assert_eq!(decision.reasons[&waiting.key], "0 of 2 nodes fit: 1 not matching node affinity, 1 short of memory");
    assert_eq!(decision.reasons[&key], "2 of 2 nodes have its present pod, 1 an available one");
    cluster.remove(&filler);
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n2 Ready"]);
}

#[test]
fn a_cordoned_node_gets_its_pod_and_a_tainted_one_only_if_the_taint_is_tolerated() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.patch(&of("n1"), &json!({"spec": {"unschedulable": true}}));
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": effect}]}});
    cluster.patch(&of("n2"), &taint("NoSchedule"));
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n3 Ready"]);

    cluster.patch(&of("n3"), &taint("NoSchedule"));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready", "web n3 Ready"], "no new pods, but those that are there stay");
    assert_eq!(status(&cluster, &key), [1, 1, 1, 1, 1, 0, 1]);
    cluster.patch(&of("n3"), &taint("NoExecute"));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready"]);

    let tolerations = json!([{"key": "dedicated", "operator": "Exists"}]);
    cluster.patch(&key, &json!({"spec": {"template": {"spec": {"tolerations": tolerations}}}}));
    cluster.run();
    assert_eq!(images(&cluster), ["n1 web:1", "n2 web:1", "n3 web:1"]);
}

#[test]
fn a_lost_node_keeps_its_pod_which_is_not_replaced_however_long_it_lasts() {
    let mut cluster = Cluster::of_nodes(4);
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    cluster.cut = vec!["n4".into()];
    cluster.pass(8);
    let lost = ["web n1 Ready", "web n2 Ready", "web n3 Ready", "web n4 Running"];
    assert_eq!(shown(&cluster), lost);
    assert_eq!(status(&cluster, &key), [3, 3, 3, 3, 3, 0, 1], "as in Kubernetes, a lost node is not meant meanwhile");
    let revision = cluster.objects.revision();
    cluster.pass(600);
    assert_eq!((shown(&cluster), cluster.objects.revision()), (lost.map(str::to_owned).to_vec(), revision));
    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(status(&cluster, &key), [4, 4, 4, 4, 4, 0, 0]);
}

#[test]
fn a_node_that_leaves_loses_its_pod_and_gets_no_other() {
    let mut cluster = Cluster::of_nodes(2);
    cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    let leaving =
        json!({"spec": {"unschedulable": true, "taints": [{"key": "quorate.dev/leaving", "effect": "NoExecute"}]}});
    cluster.patch(&of("n2"), &leaving);
    cluster.pass(20);
    assert_eq!(shown(&cluster), ["web n1 Ready"]);
}

#[test]
fn a_pod_that_was_deleted_is_replaced_once_it_is_gone() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    let pod = cluster.active("web")[0].key.clone();
    cluster.patch(&pod, &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    cluster.settle();
    assert_eq!(shown(&cluster), ["web n1 Terminating"], "never two at once");
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready"]);
}

/// Lets the pod on the node fail, and says after how many seconds another one runs.
fn seconds_until_replaced(cluster: &mut Cluster) -> u64 {
    let failing = cluster.active("web")[0].key.clone();
    let ended = cluster.moment().wall.to_string();
    let terminated = json!([{"name": "web", "state": {"terminated": {"exitCode": 1, "finishedAt": ended}}}]);
    cluster.patch(&failing, &json!({"status": {"phase": "Failed", "containerStatuses": terminated}}));
    cluster.run();
    let mut seconds = 0;
    while cluster.active("web").is_empty() {
        cluster.pass(1);
        seconds += 1;
    }
    seconds
}

#[test]
fn a_pod_that_fails_is_replaced_after_a_while_that_doubles_and_begins_anew_with_another_template() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    let waits: Vec<_> = (0..12).map(|_| seconds_until_replaced(&mut cluster)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    cluster.pass(900);
    assert_eq!(seconds_until_replaced(&mut cluster), 1, "it had run for long");
    assert_eq!(seconds_until_replaced(&mut cluster), 2);
    let failing = cluster.active("web")[0].key.clone();
    cluster.patch(&failing, &json!({"status": {"phase": "Failed"}}));
    cluster.run();
    assert_eq!(images(&cluster), [""; 0]);
    update_image(&mut cluster, &key, "web:2");
    cluster.run();
    assert_eq!(images(&cluster), ["n1 web:2"]);
    assert_eq!(shown(&cluster), ["web n1 Ready"], "what failed is cleared away");
}

#[test]
fn a_rolling_update_takes_one_node_after_the_other() {
    let mut cluster = Cluster::of_nodes(4);
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    update_image(&mut cluster, &key, "web:2");
    let mut steps = 0;
    loop {
        let decision = cluster.decide();
        cluster.carry_out(&decision);
        let ready = cluster.active("web").iter().filter(|pod| is_ready(&pod.object)).count();
        assert!(ready >= 3, "{:?}", shown(&cluster));
        if !cluster.agents_act() && decision.operations.is_empty() {
            break;
        }
        steps += 1;
        assert!(steps < 100, "{:?}", shown(&cluster));
    }
    assert_eq!(images(&cluster), ["n1 web:2", "n2 web:2", "n3 web:2", "n4 web:2"]);
    assert_eq!(status(&cluster, &key), [4, 4, 4, 4, 4, 0, 0]);
}

#[test]
fn an_update_that_does_not_get_ready_stops_at_the_nodes_it_may_take_and_a_better_one_goes_on() {
    let mut cluster = Cluster::of_nodes(4);
    let mut set = daemonset("web", "web:1");
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}});
    let key = cluster.apply(set);
    cluster.run();
    cluster.patch(&key, &json!({"spec": {"template": {"metadata": {"annotations": {"test/broken": "yes"}}}}}));
    let decision = cluster.run();
    assert_eq!(status(&cluster, &key), [4, 4, 2, 2, 2, 2, 0]);
    assert_eq!(decision.reasons[&key], "2 of 4 nodes have its present pod, 2 an available one");
    cluster.patch(&key, &json!({"spec": {"template": {"metadata": {"annotations": null}}}}));
    cluster.run();
    assert_eq!(status(&cluster, &key), [4, 4, 4, 4, 4, 0, 0]);
}

#[test]
fn a_new_pod_is_available_only_after_it_was_ready_for_long_enough_and_the_update_waits_for_it() {
    let mut cluster = Cluster::of_nodes(2);
    let mut set = daemonset("web", "web:1");
    set["spec"]["minReadySeconds"] = 10.into();
    let key = cluster.apply(set);
    cluster.run();
    assert_eq!(status(&cluster, &key), [2, 2, 2, 2, 0, 2, 0]);
    cluster.pass(10);
    assert_eq!(status(&cluster, &key), [2, 2, 2, 2, 2, 0, 0]);
    update_image(&mut cluster, &key, "web:2");
    let decision = cluster.run();
    assert_eq!(images(&cluster), ["n1 web:2", "n2 web:1"]);
    assert!(decision.wake_at.is_some_and(|wake| wake <= cluster.now + Duration::from_secs(10)));
    cluster.pass(9);
    assert_eq!(images(&cluster), ["n1 web:2", "n2 web:1"]);
    cluster.pass(1);
    assert_eq!(images(&cluster), ["n1 web:2", "n2 web:2"]);
}

#[test]
fn with_on_delete_old_pods_wait_for_their_user() {
    let mut cluster = Cluster::of_nodes(2);
    let mut set = daemonset("web", "web:1");
    set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let key = cluster.apply(set);
    cluster.run();
    update_image(&mut cluster, &key, "web:2");
    cluster.pass(60);
    assert_eq!(images(&cluster), ["n1 web:1", "n2 web:1"]);
    assert_eq!(status(&cluster, &key), [2, 2, 0, 2, 2, 0, 0]);
    let pod = cluster.active("web")[1].key.clone();
    let on = node_name(&cluster.get(&pod).object).unwrap().to_owned();
    cluster.patch(&pod, &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    cluster.run();
    assert!(images(&cluster).contains(&format!("{on} web:2")));
    assert_eq!(status(&cluster, &key)[2], 1);
}

#[test]
fn a_decision_made_twice_makes_its_pods_once() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(daemonset("web", "web:1"));
    let [ours, theirs] = [(); 2].map(|()| cluster.decide());
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert_eq!(cluster.active("web").len(), 3);
}

#[test]
fn many_nodes_are_served_a_few_at_a_time() {
    let mut cluster = Cluster::of_nodes(60);
    let key = cluster.apply(daemonset("web", "web:1"));
    let mut counts = Vec::new();
    while counts.last() != Some(&60) {
        let decision = cluster.decide_by(keep_daemons);
        cluster.carry_out(&decision);
        counts.push(cluster.active("web").len());
    }
    assert_eq!(counts, [25, 50, 60]);
    cluster.run();
    assert_eq!(status(&cluster, &key), [60, 60, 60, 60, 60, 0, 0]);
}

#[test]
fn however_many_pods_must_go_their_transactions_stay_within_the_limit() {
    let mut cluster = Cluster::of_nodes(60);
    let key = cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    for pod in cluster.active("web").iter().map(|pod| pod.key.clone()).collect::<Vec<_>>() {
        cluster.patch(&pod, &json!({"status": {"phase": "Failed"}}));
    }
    for number in 1..=60 {
        for name in [format!("stray-{number}"), format!("failed-{number}")] {
            let mut lonely = pod(&name);
            lonely["metadata"]["labels"] = json!({"app": "web"});
            lonely["spec"]["nodeName"] = format!("n{number}").into();
            cluster.apply(lonely);
        }
    }
    update_image(&mut cluster, &key, "web:2");
    cluster.settle();
    cluster.pass(3);
    assert_eq!(status(&cluster, &key), [60, 60, 60, 60, 60, 0, 0]);
    assert_eq!(cluster.show().len(), 60);
}

#[test]
fn a_pod_that_nobody_manages_is_adopted_and_replaced_by_one_of_the_template() {
    let mut cluster = Cluster::of_nodes(1);
    let mut lonely = pod("lonely");
    lonely["metadata"]["labels"] = json!({"app": "web"});
    cluster.apply(lonely);
    cluster.run();
    cluster.apply(daemonset("web", "web:1"));
    cluster.run();
    assert_eq!(shown(&cluster), ["web n1 Ready"]);
}

#[test]
fn a_template_that_cannot_be_read_says_so() {
    let mut cluster = Cluster::of_nodes(1);
    let mut set = daemonset("web", "web:1");
    set["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Perhaps"}]}]}}});
    let key = cluster.apply(set);
    let why = "its node affinity is refused: `Perhaps` is no operator: use In, NotIn, Exists or DoesNotExist";
    assert_eq!(cluster.run().reasons[&key], why);
}

/// The tolerations of a pod of a set whose template has these.
fn tolerated(own: &Value, on_host: bool) -> Vec<String> {
    let mut pod = Object::from_value(pod("a")).unwrap();
    pod.set(&["spec", "tolerations"], own.clone());
    pod.set(&["spec", "hostNetwork"], on_host);
    new_pod::with_daemon_tolerations(&mut pod);
    pod.at(&["spec", "tolerations"]).unwrap().as_array().unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn daemon_pods_tolerate_what_they_tolerate_in_kubernetes() {
    let added = tolerated(&json!([]), false);
    assert_eq!(added.len(), 6);
    assert!(
        added.contains(&r#"{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists"}"#.into())
    );
    assert_eq!(tolerated(&json!([]), true).len(), 7);
    let limited = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
    assert_eq!(tolerated(&limited, false).len(), 6, "for ever takes the place of for a while");
}

#[derive(Debug, Clone)]
enum Happens {
    Image(u8),
    Fail(usize),
    Delete(usize),
    Taint(usize, u8),
    Cut(usize),
    Heal,
    Join(usize),
    Remove(usize),
    Seconds(u64),
    Agents,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..3_u8).prop_map(Happens::Image),
        (0..5_usize).prop_map(Happens::Fail),
        (0..5_usize).prop_map(Happens::Delete),
        (1..5_usize, 0..3_u8).prop_map(|(node, taint)| Happens::Taint(node, taint)),
        (1..5_usize).prop_map(Happens::Cut),
        Just(Happens::Heal),
        (1..6_usize).prop_map(Happens::Join),
        (1..6_usize).prop_map(Happens::Remove),
        (1..8_u64).prop_map(Happens::Seconds),
        Just(Happens::Agents),
    ]
}

fn happen(cluster: &mut Cluster, set: &Key, what: &Happens) {
    let pod = |cluster: &Cluster, index: usize| cluster.active("web").get(index).map(|pod| pod.key.clone());
    match what {
        Happens::Image(image) => update_image(cluster, set, &format!("web:{image}")),
        Happens::Fail(index) => {
            if let Some(pod) = pod(cluster, *index) {
                cluster.patch(&pod, &json!({"status": {"phase": "Failed"}}));
            }
        }
        Happens::Delete(index) => {
            if let Some(pod) = pod(cluster, *index).filter(|pod| node_name(&cluster.get(pod).object).is_some()) {
                cluster.patch(&pod, &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
            }
        }
        Happens::Taint(node, effect) => {
            let key = of(&format!("n{node}"));
            if cluster.objects.get(&key).is_some() {
                let taints = match effect {
                    0 => json!(null),
                    1 => json!([{"key": "a", "effect": "NoSchedule"}]),
                    _ => json!([{"key": "a", "effect": "NoExecute"}]),
                };
                cluster.patch(&key, &json!({"spec": {"taints": taints}}));
            }
        }
        Happens::Cut(node) => cluster.cut.push(format!("n{node}")),
        Happens::Heal => cluster.cut.clear(),
        Happens::Join(number) => {
            let name = format!("n{number}");
            if cluster.objects.get(&of(&name)).is_none() {
                cluster.apply(node(&name));
            }
        }
        Happens::Remove(number) => cluster.remove(&of(&format!("n{number}"))),
        Happens::Seconds(seconds) => cluster.now = cluster.now + Duration::from_secs(*seconds),
        Happens::Agents => {
            cluster.agents_act();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_node_ever_has_two_and_in_the_end_each_has_one_and_all_rests(
        steps in prop::collection::vec((happens(), any::<u16>(), any::<bool>()), 0..40),
    ) {
        let mut cluster = Cluster::of_nodes(4);
        let set = cluster.apply(daemonset("web", "web:0"));
        for (what, lost, twice) in steps {
            happen(&mut cluster, &set, &what);
            let mut decision = cluster.decide();
            let mut index = 0;
            decision.operations.retain(|_| { index += 1; index > 16 || lost & (1 << (index - 1)) == 0 });
            let theirs = twice.then(|| cluster.decide());
            cluster.carry_out(&decision);
            if let Some(theirs) = theirs {
                cluster.carry_out(&theirs);
            }
            let mut on: Vec<_> = cluster.active("web").iter().filter_map(|pod| {
                node_name(&pod.object).or_else(|| crate::affinity::pinned_to(&pod.object))
            }).collect();
            let all = on.len();
            on.sort_unstable();
            on.dedup();
            prop_assert_eq!(on.len(), all, "two on one node: {:?}", shown(&cluster));
        }
        cluster.cut.clear();
        let nodes: Vec<_> = cluster.objects.list(&NODES).map(|node| node.key.clone()).collect();
        for node in &nodes {
            cluster.patch(node, &json!({"spec": {"taints": null}}));
        }
        cluster.now = cluster.now + Duration::from_secs(900);
        cluster.pass(3);
        prop_assert_eq!(cluster.active("web").len(), nodes.len());
        prop_assert_eq!(shown(&cluster).len(), nodes.len(), "{:?}", shown(&cluster));
        prop_assert_eq!(&status(&cluster, &set)[1..5], &[i64::try_from(nodes.len()).unwrap(); 4][..]);
        prop_assert_eq!(cluster.decide().operations, vec![], "at rest nothing is written");
    }
}
