//! What a user of jobs notices.

use proptest::prelude::*;
use quorate_proto::{
    job::{COMPLETION_INDEX, CONTROLLER_UID, JOB_NAME},
    key::Key,
    kinds::NODES,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::{Cluster, job},
    edit::{number, of_condition},
};

/// `active ready succeeded failed`, and the conditions that hold.
fn status(cluster: &Cluster, key: &Key) -> String {
    let job = &cluster.get(key).object;
    let counts = ["active", "ready", "succeeded", "failed"]
        .map(|count| number(job, &["status", count]).unwrap_or_default().to_string());
    let conditions = ["Suspended", "FailureTarget", "SuccessCriteriaMet", "Complete", "Failed"];
    let hold = conditions
        .into_iter()
        .filter(|condition| job.is_true(condition))
        .map(|condition| format!(" {condition}:{}", of_condition(job, condition, "reason").unwrap()));
    counts.join(" ") + &hold.collect::<String>()
}

fn completed(cluster: &Cluster, key: &Key) -> String {
    cluster.get(key).object.text(&["status", "completedIndexes"]).unwrap_or("-").to_owned()
}

/// Ends the first active pod, or that of a completion.
fn finish(cluster: &mut Cluster, completion: Option<u32>, phase: &str) {
    let pods = cluster.active("work");
    let pod = pods.iter().find(|pod| completion.is_none() || index(&pod.object) == completion).unwrap();
    let (pod, at) = (pod.key.clone(), rfc3339(cluster.moment().wall));
    let code = i32::from(phase == "Failed");
    let ended = json!([{"name": "main", "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]);
    let unready = json!([{"type": "Ready", "status": "False"}]);
    cluster.patch(&pod, &json!({"status": {"phase": phase, "containerStatuses": ended, "conditions": unready}}));
    cluster.run();
}

#[test]
fn a_job_runs_one_pod_to_its_end_and_says_so() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({})));
    let decision = cluster.run();
    assert_eq!((cluster.show(), status(&cluster, &key)), (vec!["work n1 Ready".to_owned()], "1 1 0 0".into()));
    assert_eq!(decision.reasons[&key], "0 of 1 completions are done, 1 pods are active");
    let pod = cluster.active("work")[0].object.clone();
    let uid = cluster.get(&key).object.uid().to_owned();
    assert_eq!((pod.label(JOB_NAME), pod.label(CONTROLLER_UID)), (Some("work"), Some(uid.as_str())));
    assert_eq!(pod.finalizers(), ["batch.kubernetes.io/job-tracking"]);
    let started = cluster.get(&key).object.text(&["status", "startTime"]).unwrap().to_owned();

    cluster.pass(5);
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "0 0 1 0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
    let done = &cluster.get(&key).object;
    assert_eq!(done.text(&["status", "startTime"]), Some(started.as_str()));
    assert_eq!(done.text(&["status", "completionTime"]), Some("2027-01-15T08:16:45Z"));
    assert_eq!(cluster.show(), ["work n1 Succeeded"], "it stays to be looked at");
    let revision = cluster.objects.revision();
    assert_eq!((cluster.pass(3600).wake_at.is_some(), cluster.objects.revision()), (true, revision), "nodes only");
}

#[test]
fn as_many_run_at_once_as_may_until_enough_have_succeeded() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(job("work", &json!({"parallelism": 2, "completions": 3})));
    cluster.run();
    assert_eq!(status(&cluster, &key), "2 2 0 0");
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "2 2 1 0");
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "1 1 2 0", "no more than are still wanted");
    finish(&mut cluster, None, "Succeeded");
    assert!(status(&cluster, &key).starts_with("0 0 3 0"));

    let key = cluster.apply(job("workers", &json!({"parallelism": 3, "completions": 9})));
    cluster.run();
    cluster.patch(&key, &json!({"spec": {"parallelism": 1}}));
    cluster.run();
    assert_eq!(status(&cluster, &key), "1 1 0 0", "who is ended for that did not fail");
    cluster.patch(&key, &json!({"spec": {"parallelism": 0}}));
    cluster.run();
    assert_eq!(status(&cluster, &key), "0 0 0 0");
}

#[test]
fn with_a_queue_of_work_one_that_succeeds_means_that_all_is_done_once_the_others_have_ended() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(job("work", &json!({"parallelism": 3})));
    cluster.run();
    assert_eq!(status(&cluster, &key), "3 3 0 0");
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "2 2 1 0", "no other is made, and none is ended");
    finish(&mut cluster, None, "Failed");
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "0 0 2 1 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
}

#[test]
fn a_pod_that_fails_is_replaced_after_a_while_that_doubles_until_too_many_have_failed() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"backoffLimit": 7})));
    cluster.run();
    let mut waits = Vec::new();
    for failed in 1..=7 {
        finish(&mut cluster, None, "Failed");
        let mut seconds = 0;
        while cluster.active("work").is_empty() {
            cluster.pass(1);
            seconds += 1;
        }
        waits.push(seconds);
        assert!(status(&cluster, &key).ends_with(&format!("0 {failed}")));
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 360]);
    finish(&mut cluster, None, "Failed");
    assert_eq!(status(&cluster, &key), "0 0 0 8 FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded");
    assert_eq!(
        of_condition(&cluster.get(&key).object, "Failed", "message"),
        Some("Job has reached the specified backoff limit")
    );
}

#[test]
fn a_job_that_waits_to_try_again_says_until_when_and_a_success_ends_the_waiting() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"completions": 3, "parallelism": 1})));
    cluster.run();
    finish(&mut cluster, None, "Failed");
    let decision = cluster.run();
    let why = "1 pod failed one after the other: the next is made at 2027-01-15T08:16:50Z";
    assert_eq!(decision.reasons[&key], why);
    assert_eq!(decision.wake_at, Some(cluster.now + Duration::from_secs(6)), "no later than then");
    cluster.pass(10);
    finish(&mut cluster, None, "Succeeded");
    assert_eq!(status(&cluster, &key), "1 1 1 1", "the next is made at once");
}

#[test]
fn when_a_job_fails_its_other_pods_are_ended_and_only_then_it_says_so() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(job("work", &json!({"parallelism": 3, "completions": 3, "backoffLimit": 0})));
    cluster.run();
    let pod = cluster.active("work")[0].key.clone();
    cluster.patch(&pod, &json!({"status": {"phase": "Failed"}}));
    let decision = cluster.settle();
    assert_eq!(status(&cluster, &key), "0 0 0 3 FailureTarget:BackoffLimitExceeded");
    assert_eq!(decision.reasons[&key], "Job has reached the specified backoff limit: waits for 2 pods to end");
    cluster.run();
    assert_eq!(status(&cluster, &key), "0 0 0 3 FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded");
    assert_eq!(cluster.show().len(), 1, "what failed by itself stays to be looked at");
}

#[test]
fn a_job_that_takes_too_long_fails_at_its_deadline() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"activeDeadlineSeconds": 60})));
    let decision = cluster.run();
    assert!(decision.wake_at.is_some_and(|wake| wake <= cluster.now + Duration::from_secs(60)));
    cluster.pass(59);
    assert_eq!(status(&cluster, &key), "1 1 0 0");
    cluster.pass(1);
    assert_eq!(status(&cluster, &key), "0 0 0 1 FailureTarget:DeadlineExceeded Failed:DeadlineExceeded");
}

#[test]
fn a_suspended_job_has_no_pods_and_its_time_begins_anew() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster
        .apply(job("work", &json!({"suspend": true, "activeDeadlineSeconds": 60, "parallelism": 2, "completions": 2})));
    cluster.run();
    assert_eq!(status(&cluster, &key), "0 0 0 0 Suspended:JobSuspended");
    assert_eq!(cluster.get(&key).object.at(&["status", "startTime"]), None);
    cluster.patch(&key, &json!({"spec": {"suspend": false}}));
    cluster.run();
    assert_eq!(status(&cluster, &key), "2 2 0 0");
    assert_eq!(of_condition(&cluster.get(&key).object, "Suspended", "reason"), Some("JobResumed"));
    cluster.pass(50);
    finish(&mut cluster, None, "Succeeded");
    cluster.patch(&key, &json!({"spec": {"suspend": true}}));
    cluster.run();
    assert_eq!(status(&cluster, &key), "0 0 1 0 Suspended:JobSuspended", "who is ended for that did not fail");
    cluster.pass(100);
    cluster.patch(&key, &json!({"spec": {"suspend": false}}));
    cluster.pass(50);
    assert_eq!(status(&cluster, &key), "1 1 1 0");
}

#[test]
fn every_completion_of_an_indexed_job_has_its_number_its_name_and_its_own_pod() {
    let mut cluster = Cluster::of_nodes(2);
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    let key = cluster.apply(job("work", &spec));
    cluster.run();
    let mut numbers: Vec<_> = cluster.active("work").iter().map(|pod| index(&pod.object).unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    let second = cluster.active("work").into_iter().find(|pod| index(&pod.object) == Some(1)).unwrap().object.clone();
    assert!(second.name().starts_with("work-1-"), "{}", second.name());
    assert_eq!(second.text(&["spec", "hostname"]), Some("work-1"));
    assert_eq!((second.label(COMPLETION_INDEX), second.annotation(COMPLETION_INDEX)), (Some("1"), Some("1")));
    assert_eq!(
        second.at(&["spec", "containers"]).unwrap()[0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef":
            {"apiVersion": "v1", "fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}}])
    );

    finish(&mut cluster, Some(1), "Succeeded");
    finish(&mut cluster, Some(2), "Succeeded");
    assert_eq!((status(&cluster, &key), completed(&cluster, &key)), ("3 3 2 0".into(), "1,2".into()));
    finish(&mut cluster, Some(3), "Failed");
    cluster.pass(10);
    assert_eq!((status(&cluster, &key), completed(&cluster, &key)), ("3 3 2 1".into(), "1,2".into()));
    for index in [0, 3, 4] {
        finish(&mut cluster, Some(index), "Succeeded");
    }
    assert_eq!(completed(&cluster, &key), "0-4");
    assert!(status(&cluster, &key).ends_with("Complete:CompletionsReached"));
}

#[test]
fn a_finished_pod_that_is_deleted_is_counted_all_the_same_and_only_then_goes() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"completions": 2, "parallelism": 1})));
    cluster.run();
    let pod = cluster.active("work")[0].key.clone();
    cluster.patch(
        &pod,
        &json!({"status": {"phase": "Succeeded"}, "metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}),
    );
    cluster.agents_act();
    assert!(cluster.objects.get(&pod).is_some(), "its agent has ended it, and it waits to be counted");
    cluster.run();
    assert!(cluster.objects.get(&pod).is_none());
    assert_eq!(status(&cluster, &key), "1 1 1 0");
}

#[test]
fn a_pod_that_is_deleted_counts_as_failed_and_is_replaced_at_once_or_when_it_has_ended() {
    for (policy, meanwhile) in [("TerminatingOrFailed", "1 0 0 1"), ("Failed", "0 0 0 0")] {
        let mut cluster = Cluster::of_nodes(1);
        let key = cluster.apply(job("work", &json!({"podReplacementPolicy": policy})));
        cluster.run();
        let pod = cluster.active("work")[0].key.clone();
        cluster.patch(
            &pod,
            &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": 30}}),
        );
        cluster.settle();
        assert_eq!(status(&cluster, &key), meanwhile, "{policy}");
        assert_eq!(number(&cluster.get(&key).object, &["status", "terminating"]), Some(1));
        cluster.run();
        assert_eq!((status(&cluster, &key), cluster.show().len()), ("1 1 0 1".into(), 1), "{policy}");
    }
}

#[test]
fn the_pods_of_a_lost_node_run_elsewhere() {
    let mut cluster = Cluster::of_nodes(3);
    let key = cluster.apply(job("work", &json!({"parallelism": 3, "completions": 3})));
    cluster.run();
    cluster.cut = vec!["n3".into()];
    cluster.pass(8);
    assert_eq!(status(&cluster, &key), "3 3 0 1");
    assert_eq!(cluster.show().iter().filter(|line| line.ends_with("Terminating")).count(), 1);
    cluster.remove(&NODES.key(None, "n3").unwrap());
    cluster.pass(1);
    assert_eq!(cluster.show().len(), 3);
    assert_eq!(status(&cluster, &key), "3 3 0 1", "it was counted already");
}

#[test]
fn containers_that_are_started_again_too_often_fail_the_job() {
    let mut cluster = Cluster::of_nodes(1);
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "main", "image": "work:1"}]}});
    let key = cluster.apply(job("work", &json!({"backoffLimit": 2, "template": template})));
    cluster.run();
    let restarted = |cluster: &mut Cluster, count: u32| {
        let pod = cluster.active("work")[0].key.clone();
        cluster.patch(&pod, &json!({"status": {"containerStatuses": [{"name": "main", "restartCount": count}]}}));
        cluster.run();
    };
    restarted(&mut cluster, 1);
    assert_eq!(status(&cluster, &key), "1 1 0 0");
    restarted(&mut cluster, 2);
    assert_eq!(status(&cluster, &key), "0 0 0 1 FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded");
}

#[test]
fn a_job_that_is_done_is_kept_for_a_while_and_then_goes_with_its_pods() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"ttlSecondsAfterFinished": 100})));
    cluster.run();
    finish(&mut cluster, None, "Succeeded");
    cluster.pass(99);
    assert!(cluster.objects.get(&key).is_some());
    cluster.pass(2);
    assert!(cluster.objects.get(&key).is_none());
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn a_job_that_is_deleted_takes_its_pods_with_it() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"parallelism": 2})));
    cluster.run();
    cluster.remove(&key);
    cluster.run();
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn a_decision_made_twice_makes_and_counts_pods_once() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(job("work", &json!({"parallelism": 2, "completions": 9})));
    let [ours, theirs] = [(); 2].map(|()| cluster.decide());
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert_eq!(cluster.active("work").len(), 2);
    cluster.run();
    let pod = cluster.active("work")[0].key.clone();
    cluster.patch(&pod, &json!({"status": {"phase": "Succeeded"}}));
    let [ours, theirs] = [(); 2].map(|()| cluster.decide());
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert!(status(&cluster, &key).ends_with("1 0"), "{}", status(&cluster, &key));
}

#[test]
fn many_pods_are_made_and_counted_a_few_at_a_time() {
    let mut cluster = Cluster::of_nodes(0);
    let key = cluster.apply(job("work", &json!({"parallelism": 100, "completions": 100})));
    cluster.settle();
    assert_eq!(status(&cluster, &key), "100 0 0 0");
    let pods: Vec<Key> = cluster.active("work").iter().map(|pod| pod.key.clone()).collect();
    for pod in pods {
        cluster.patch(&pod, &json!({"status": {"phase": "Succeeded"}}));
    }
    let decision = cluster.decide();
    cluster.carry_out(&decision);
    assert_eq!(status(&cluster, &key), "0 0 40 0 SuccessCriteriaMet:CompletionsReached");
    cluster.settle();
    assert_eq!(status(&cluster, &key), "0 0 100 0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
}

#[derive(Debug, Clone)]
enum Happens {
    Succeed(usize),
    Fail(usize),
    Delete(usize),
    DeleteFinished(usize),
    Parallelism(u8),
    Suspend(bool),
    Cut(u8),
    Heal,
    Seconds(u64),
    Agents,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..6_usize).prop_map(Happens::Succeed),
        (0..6_usize).prop_map(Happens::Fail),
        (0..6_usize).prop_map(Happens::Delete),
        (0..6_usize).prop_map(Happens::DeleteFinished),
        (0..5_u8).prop_map(Happens::Parallelism),
        any::<bool>().prop_map(Happens::Suspend),
        (1..4_u8).prop_map(Happens::Cut),
        Just(Happens::Heal),
        (1..30_u64).prop_map(Happens::Seconds),
        Just(Happens::Agents),
    ]
}

/// What the pods themselves did, as somebody who misses nothing would have counted it.
#[derive(Debug, Default)]
struct Truth {
    succeeded: BTreeSet<u32>,
    successes: i64,
}

fn happen(cluster: &mut Cluster, key: &Key, what: &Happens, truth: &mut Truth) {
    let bound = |cluster: &Cluster, place: usize| {
        let pods = cluster.active("work");
        let bound: Vec<_> = pods.into_iter().filter(|pod| node_name(&pod.object).is_some()).collect();
        bound.get(place).map(|pod| (pod.key.clone(), index(&pod.object)))
    };
    let deleted = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": 30}});
    match what {
        Happens::Succeed(place) => {
            if let Some((pod, index)) = bound(cluster, *place) {
                cluster.patch(&pod, &json!({"status": {"phase": "Succeeded"}}));
                truth.successes += 1;
                truth.succeeded.extend(index);
            }
        }
        Happens::Fail(place) => {
            if let Some((pod, _)) = bound(cluster, *place) {
                cluster.patch(&pod, &json!({"status": {"phase": "Failed"}}));
            }
        }
        Happens::Delete(place) => {
            if let Some((pod, _)) = bound(cluster, *place) {
                cluster.patch(&pod, &deleted);
            }
        }
        Happens::DeleteFinished(place) => {
            let finished = cluster.objects.list(&PODS).filter(|pod| crate::pod::is_finished(&pod.object));
            let pod = finished.map(|pod| pod.key.clone()).nth(*place);
            if let Some(pod) = pod {
                cluster.patch(&pod, &deleted);
            }
        }
        Happens::Parallelism(parallelism) => cluster.patch(key, &json!({"spec": {"parallelism": parallelism}})),
        Happens::Suspend(suspend) => cluster.patch(key, &json!({"spec": {"suspend": suspend}})),
        Happens::Cut(node) => cluster.cut.push(format!("n{node}")),
        Happens::Heal => cluster.cut.clear(),
        Happens::Seconds(seconds) => cluster.now = cluster.now + Duration::from_secs(*seconds),
        Happens::Agents => {
            cluster.agents_act();
        }
    }
}

fn spec(indexed: bool) -> Value {
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    json!({"completionMode": mode, "completions": 5, "parallelism": 2, "backoffLimit": 1000})
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_success_counts_once_and_in_the_end_the_job_is_done_and_all_rests(
        steps in prop::collection::vec((happens(), any::<u16>(), any::<bool>()), 0..40),
        indexed in any::<bool>(),
    ) {
        let mut cluster = Cluster::of_nodes(3);
        let key = cluster.apply(job("work", &spec(indexed)));
        let mut truth = Truth::default();
        for (what, lost, twice) in steps {
            happen(&mut cluster, &key, &what, &mut truth);
            let mut decision = cluster.decide();
            let mut place = 0;
            decision.operations.retain(|_| { place += 1; place > 16 || lost & (1 << (place - 1)) == 0 });
            let theirs = twice.then(|| cluster.decide());
            cluster.carry_out(&decision);
            if let Some(theirs) = theirs {
                cluster.carry_out(&theirs);
            }
            let mut at_work: Vec<_> = cluster.active("work").iter().filter_map(|pod| index(&pod.object)).collect();
            let all = at_work.len();
            at_work.sort_unstable();
            at_work.dedup();
            prop_assert_eq!(at_work.len(), all, "two on one completion: {:?}", cluster.show());
        }
        cluster.cut.clear();
        cluster.patch(&key, &json!({"spec": {"suspend": false, "parallelism": 2}}));
        for _ in 0..20 {
            cluster.now = cluster.now + Duration::from_secs(360);
            cluster.pass(2);
            happen(&mut cluster, &key, &Happens::Succeed(0), &mut truth);
        }
        cluster.pass(2);
        let done = &cluster.get(&key).object;
        prop_assert!(done.is_true("Complete"), "{}", status(&cluster, &key));
        let counted = number(done, &["status", "succeeded"]).unwrap();
        if indexed {
            let indexes = Indexes::parse(&completed(&cluster, &key));
            prop_assert!(truth.succeeded.iter().all(|index| indexes.contains(*index)));
            prop_assert_eq!(counted, 5);
        } else {
            prop_assert_eq!(counted, truth.successes);
        }
        prop_assert_eq!(cluster.decide().operations, vec![], "at rest nothing is written");
        prop_assert!(cluster.objects.list(&PODS).all(|pod| pod.object.finalizers().is_empty()));
        cluster.remove(&key);
        cluster.pass(2);
        prop_assert_eq!(cluster.show(), [""; 0]);
    }
}
