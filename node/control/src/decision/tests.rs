//! What holds for all controllers together, whatever happens in between.

use proptest::prelude::*;
use quorate_proto::kinds::{NODES, REPLICASETS};
use serde_json::json;

use super::*;
use crate::cluster::{Cluster, deployment};

#[derive(Debug, Clone)]
enum Act {
    Scale(u64),
    Image(u8),
    Surge(u8, u8),
    Fail(usize),
    Cordon(usize, bool),
    Cut(usize),
    Heal,
    Seconds(u64),
    Agents,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..9_u64).prop_map(Act::Scale),
        (0..3_u8).prop_map(Act::Image),
        (0..3_u8, 0..3_u8).prop_map(|(surge, unavailable)| Act::Surge(surge, unavailable)),
        (0..9_usize).prop_map(Act::Fail),
        (1..4_usize, any::<bool>()).prop_map(|(node, cordoned)| Act::Cordon(node, cordoned)),
        (1..4_usize).prop_map(Act::Cut),
        Just(Act::Heal),
        (1..8_u64).prop_map(Act::Seconds),
        Just(Act::Agents),
    ]
}

fn perform(cluster: &mut Cluster, web: &Key, act: &Act) {
    match act {
        Act::Scale(replicas) => cluster.patch(web, &json!({"spec": {"replicas": replicas}})),
        Act::Image(image) => {
            let image = format!("web:{image}");
            cluster.patch(
                web,
                &json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}}),
            );
        }
        Act::Surge(surge, unavailable) => {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
            cluster.patch(web, &json!({"spec": {"strategy": {"rollingUpdate": rolling}}}));
        }
        Act::Fail(index) => {
            let failing = cluster.active("web").get(*index).map(|pod| pod.key.clone());
            if let Some(pod) = failing {
                cluster.patch(&pod, &json!({"status": {"phase": "Failed"}}));
            }
        }
        Act::Cordon(node, cordoned) => {
            let node = NODES.key(None, &format!("n{node}")).unwrap();
            cluster.patch(&node, &json!({"spec": {"unschedulable": cordoned}}));
        }
        Act::Cut(node) => cluster.cut.push(format!("n{node}")),
        Act::Heal => cluster.cut.clear(),
        Act::Seconds(seconds) => cluster.now = cluster.now + Duration::from_secs(*seconds),
        Act::Agents => {
            cluster.agents_act();
        }
    }
}

/// How many pods there may be after a step: those the strategy allows, or as many as there already were or were asked for, if the strategy
/// was made stricter meanwhile.
fn allowed(cluster: &Cluster) -> usize {
    let spec = cluster.deployment("web").at(&["spec"]).unwrap();
    let replicas = spec["replicas"].as_u64().unwrap();
    let surge = spec["strategy"]["rollingUpdate"]["maxSurge"].as_u64().unwrap_or_else(|| (replicas * 25).div_ceil(100));
    let asked_or_active = cluster.objects.list(&REPLICASETS).map(|set| {
        let asked = set.object.at(&["spec", "replicas"]).unwrap().as_u64().unwrap();
        asked.max(cluster.active(set.object.name()).len() as u64)
    });
    usize::try_from(asked_or_active.sum::<u64>().max(replicas + surge)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold_and_in_the_end_everything_runs_and_rests(
        steps in prop::collection::vec((act(), any::<u16>(), any::<bool>()), 0..40),
    ) {
        let mut cluster = Cluster::of_nodes(3);
        let web = cluster.apply(deployment("web", 3, "web:0"));
        for (act, lost, twice) in steps {
            perform(&mut cluster, &web, &act);
            let mut decision = cluster.decide();
            let keys: Vec<_> = decision.operations.iter().flat_map(|txn| &txn.writes).map(|write| write.key().clone()).collect();
            prop_assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "a key is written once");
            // Some transactions never arrive; another leader may decide the same.
            let mut index = 0;
            decision.operations.retain(|_| { index += 1; index > 16 || lost & (1 << (index - 1)) == 0 });
            let theirs = twice.then(|| cluster.decide());
            let allowed = allowed(&cluster);
            cluster.carry_out(&decision);
            if let Some(theirs) = theirs {
                cluster.carry_out(&theirs);
            }
            let after = cluster.active("web").len();
            prop_assert!(after <= allowed, "{after} of {allowed}: {:?}", cluster.show());
        }
        cluster.cut.clear();
        for node in 1..=3 {
            perform(&mut cluster, &web, &Act::Cordon(node, false));
        }
        cluster.pass(20);
        let replicas = cluster.deployment("web").at(&["spec", "replicas"]).unwrap().as_u64().unwrap();
        let running = cluster.show().iter().filter(|line| line.ends_with("Ready")).count();
        prop_assert_eq!(running as u64, replicas, "{:?}", cluster.show());
        let image = &cluster.deployment("web").at(&["spec", "template", "spec", "containers"]).unwrap()[0]["image"];
        for pod in cluster.active("web") {
            prop_assert_eq!(&pod.object.at(&["spec", "containers"]).unwrap()[0]["image"], image);
        }
        let sized = cluster.objects.list(&REPLICASETS).filter(|set| set.object.at(&["spec", "replicas"]) != Some(&0.into())).count();
        prop_assert_eq!(sized, usize::from(replicas > 0));
        prop_assert_eq!(cluster.decide().operations, vec![], "at rest nothing is written");
    }
}
