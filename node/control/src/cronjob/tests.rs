//! What a user of cron jobs notices. The clock of these tests begins at a quarter past eight and 40 seconds.

use proptest::prelude::*;
use quorate_proto::{
    key::Key,
    kinds::{EVENTS, NAMESPACES, PODS},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::{Cluster, cronjob},
    edit::items,
};

/// The cron job's jobs by what follows its name, each with what it came to.
fn runs(cluster: &Cluster) -> Vec<String> {
    let jobs = cluster.objects.list(&JOBS).map(|job| {
        let done = ["Complete", "Failed"].into_iter().find(|condition| job.object.is_true(condition));
        format!("{} {}", job.object.name().rsplit('-').next().unwrap(), done.unwrap_or("Running"))
    });
    jobs.collect()
}

fn text(cluster: &Cluster, key: &Key, field: &str) -> String {
    cluster.get(key).object.text(&["status", field]).unwrap_or("-").to_owned()
}

/// Ends the pods of all jobs.
fn finish(cluster: &mut Cluster, phase: &str) {
    let pods: Vec<Key> = cluster.objects.list(&PODS).map(|pod| pod.key.clone()).collect();
    for pod in pods {
        cluster.patch(&pod, &json!({"status": {"phase": phase}}));
    }
    cluster.run();
}

/// Moves the clock without anybody looking at it.
fn sleep(cluster: &mut Cluster, seconds: u64) {
    cluster.now = cluster.now + Duration::from_secs(seconds);
    cluster.leading_since = cluster.now; // whoever leads now has heard nobody yet
}

#[test]
fn a_job_is_made_at_its_time_and_named_after_it() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "*/5 * * * *", &json!({})));
    let decision = cluster.run();
    assert_eq!(runs(&cluster), [""; 0]);
    assert!(decision.wake_at.is_some());
    cluster.pass(199);
    assert_eq!(runs(&cluster), [""; 0]);
    cluster.pass(1);
    assert_eq!(runs(&cluster), ["30000020 Running"], "minutes since 1970");
    let job = cluster.objects.list(&JOBS).next().unwrap().object.clone();
    assert!(job.is_controlled_by(&cluster.get(&key).object));
    assert_eq!(job.annotation(job::SCHEDULED_AT), Some("2027-01-15T08:20:00Z"));
    assert_eq!(job.text(&["spec", "selector", "matchLabels", job::CONTROLLER_UID]), Some(job.uid()));
    assert_eq!(text(&cluster, &key, "lastScheduleTime"), "2027-01-15T08:20:00Z");
    let active = items(&cluster.get(&key).object, &["status", "active"]).to_vec();
    assert_eq!(
        (active.len(), active[0]["name"].as_str(), active[0]["uid"].as_str()),
        (1, Some(job.name()), Some(job.uid()))
    );
    assert_eq!(cluster.show(), ["work n1 Ready"]);

    cluster.pass(10);
    finish(&mut cluster, "Succeeded");
    assert_eq!(runs(&cluster), ["30000020 Complete"]);
    assert_eq!(text(&cluster, &key, "lastSuccessfulTime"), "2027-01-15T08:20:10Z");
    assert_eq!(cluster.get(&key).object.at(&["status", "active"]), None);
    let revision = cluster.objects.revision();
    cluster.pass(289);
    assert_eq!(cluster.objects.revision(), revision, "nothing is written between two times");
    cluster.pass(1);
    assert_eq!(runs(&cluster), ["30000020 Complete", "30000025 Running"]);
}

#[test]
fn the_next_time_is_what_it_wakes_for() {
    let mut cluster = Cluster::of_nodes(0);
    cluster.apply(cronjob("work", "0 9 * * *", &json!({"timeZone": "Europe/Berlin"})));
    let decision = cluster.decide_by(run_schedules);
    let tomorrow = Duration::from_secs(24 * 60 * 60 - 16 * 60 - 40);
    assert_eq!(
        (decision.operations, decision.wake_at),
        (vec![], Some(cluster.now + tomorrow)),
        "nine there is eight here"
    );
}

#[test]
fn of_the_times_that_were_missed_the_last_is_made_up_for_and_many_are_told_of() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
    sleep(&mut cluster, 10 * 60);
    cluster.pass(1);
    assert_eq!(
        (runs(&cluster), text(&cluster, &key, "lastScheduleTime")),
        (vec!["30000026 Running".to_owned()], "2027-01-15T08:26:00Z".into())
    );
    assert_eq!(cluster.objects.list(&EVENTS).count(), 0);
    sleep(&mut cluster, 3 * 60 * 60);
    cluster.pass(1);
    assert_eq!(runs(&cluster), ["30000026 Running", "30000206 Running"]);
    let event = cluster.objects.list(&EVENTS).next().unwrap().object.clone();
    assert_eq!(event.text(&["reason"]), Some("TooManyMissedTimes"));
    assert!(
        event
            .text(&["message"])
            .unwrap()
            .starts_with("more than 100 times were missed, and only the last is made up for")
    );
}

#[test]
fn a_run_that_is_too_late_is_left_out() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "*/30 * * * *", &json!({"startingDeadlineSeconds": 60})));
    sleep(&mut cluster, 15 * 60);
    cluster.pass(1);
    assert_eq!(
        (runs(&cluster), text(&cluster, &key, "lastScheduleTime")),
        (vec![], "-".into()),
        "it was due 100 s before"
    );
    sleep(&mut cluster, 28 * 60 + 50);
    cluster.pass(1);
    assert_eq!(runs(&cluster), ["30000060 Running"], "it was due half a minute before");
}

#[test]
fn runs_are_made_beside_each_other_after_each_other_or_in_each_others_place() {
    for (policy, meanwhile, afterwards) in [
        (
            "Allow",
            ["30000017 Running", "30000018 Running"].as_slice(),
            ["30000017 Complete", "30000018 Complete"].as_slice(),
        ),
        ("Forbid", &["30000017 Running"], &["30000017 Complete", "30000018 Running"]),
        ("Replace", &["30000018 Running"], &["30000018 Complete"]),
    ] {
        let mut cluster = Cluster::of_nodes(1);
        let key = cluster.apply(cronjob("work", "* * * * *", &json!({"concurrencyPolicy": policy})));
        cluster.pass(20);
        let decision = cluster.pass(65);
        assert_eq!(runs(&cluster), meanwhile, "{policy}");
        let waits = decision.reasons.get(&key).map(String::as_str);
        let why = "its run of 2027-01-15T08:18:00Z waits for `work-30000017` to end";
        assert_eq!(waits, (policy == "Forbid").then_some(why), "{policy}");
        finish(&mut cluster, "Succeeded");
        assert_eq!(runs(&cluster), afterwards, "{policy}");
    }
}

#[test]
fn however_many_runs_are_replaced_none_is_left_beside_the_new_one() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
    for _ in 0..70 {
        sleep(&mut cluster, 60);
        let decision = cluster.decide_by(run_schedules);
        cluster.carry_out(&decision);
    }
    assert_eq!(runs(&cluster).len(), 70);
    cluster.patch(&key, &json!({"spec": {"concurrencyPolicy": "Replace"}}));
    sleep(&mut cluster, 60);
    let mut counts = Vec::new();
    while counts.last() != Some(&1) {
        let decision = cluster.decide_by(run_schedules);
        cluster.carry_out(&decision);
        counts.push(runs(&cluster).len());
    }
    assert_eq!(counts, [38, 6, 1]);
}

#[test]
fn only_so_many_jobs_that_are_done_are_kept() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(cronjob(
        "work",
        "* * * * *",
        &json!({"failedJobsHistoryLimit": 2, "jobTemplate": {"spec":
        {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]}}}}}),
    ));
    cluster.pass(20);
    for phase in ["Failed", "Failed", "Failed", "Succeeded", "Succeeded", "Succeeded", "Succeeded", "Succeeded"] {
        finish(&mut cluster, phase);
        cluster.pass(60);
    }
    assert_eq!(
        runs(&cluster),
        [
            "30000018 Failed",
            "30000019 Failed",
            "30000022 Complete",
            "30000023 Complete",
            "30000024 Complete",
            "30000025 Running"
        ]
    );
    assert_eq!(cluster.show().len(), 6, "their pods go with them");
}

#[test]
fn a_suspended_cron_job_makes_nothing_and_makes_up_for_the_last_time_afterwards() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({"suspend": true})));
    let decision = cluster.pass(300);
    assert_eq!((runs(&cluster), decision.reasons[&key].as_str()), (vec![], "it is suspended"));
    assert_eq!(cluster.decide_by(run_schedules).wake_at, None);
    cluster.patch(&key, &json!({"spec": {"suspend": false}}));
    cluster.run();
    assert_eq!(runs(&cluster), ["30000021 Running"]);
}

#[test]
fn a_decision_made_twice_makes_its_job_once() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(cronjob("work", "* * * * *", &json!({})));
    sleep(&mut cluster, 30);
    let [ours, theirs] = [(); 2].map(|()| cluster.decide_by(run_schedules));
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert_eq!(runs(&cluster), ["30000017 Running"]);
    assert_eq!(cluster.decide_by(run_schedules).operations, vec![]);
}

#[test]
fn a_name_that_is_taken_is_told_of_and_one_that_is_its_own_is_only_noted() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
    cluster.apply(crate::cluster::job("work-30000017", &json!({"suspend": true})));
    let decision = cluster.pass(30);
    let why = "its run of 2027-01-15T08:17:00Z is not made: there is a job `work-30000017` that is not its own";
    assert_eq!(decision.reasons[&key], why);
    cluster.pass(60);
    assert_eq!(runs(&cluster), ["30000017 Running", "30000018 Running"]);
    cluster.patch(&key, &json!({"status": {"lastScheduleTime": "2027-01-15T08:17:00Z"}}));
    cluster.run();
    assert_eq!(text(&cluster, &key, "lastScheduleTime"), "2027-01-15T08:18:00Z");
    assert_eq!(runs(&cluster).len(), 2);
}

#[test]
fn nothing_is_made_in_a_namespace_that_ends_nor_by_what_cannot_be_read() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
    sleep(&mut cluster, 30);
    cluster.patch(
        &NAMESPACES.key(None, "default").unwrap(),
        &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}),
    );
    let decision = cluster.decide_by(run_schedules);
    assert_eq!(decision.operations, vec![]);
    assert_eq!(decision.reasons[&key], "its run of 2027-01-15T08:17:00Z is not made: its namespace ends");
    for (schedule, zone, why) in [
        (
            "never",
            json!(null),
            "its schedule has 1 fields: it takes minute, hour, day of the month, month and day of the week",
        ),
        ("@daily", json!("Nowhere"), "its time zone `Nowhere` is no time zone this release knows"),
    ] {
        let mut cluster = Cluster::of_nodes(0);
        let key = cluster.apply(cronjob("work", schedule, &json!({"timeZone": zone})));
        assert_eq!(cluster.settle().reasons[&key], why);
    }
}

#[test]
fn a_cron_job_that_is_deleted_takes_its_jobs_with_it() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
    cluster.pass(20);
    cluster.remove(&key);
    cluster.run();
    assert_eq!((runs(&cluster), cluster.show()), (vec![], vec![]));
}

#[derive(Debug, Clone)]
enum Happens {
    Seconds(u64),
    Finish(bool),
    Suspend(bool),
    Policy(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1..200_u64).prop_map(Happens::Seconds),
        2 => any::<bool>().prop_map(Happens::Finish),
        1 => any::<bool>().prop_map(Happens::Suspend),
        1 => (0..3_u8).prop_map(Happens::Policy),
    ]
}

fn spec(what: &Happens) -> Option<Value> {
    match what {
        Happens::Suspend(suspend) => Some(json!({"suspend": suspend})),
        Happens::Policy(policy) => {
            let policy = ["Allow", "Forbid", "Replace"][usize::from(*policy)];
            Some(json!({ "concurrencyPolicy": policy }))
        }
        Happens::Seconds(_) | Happens::Finish(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_time_is_run_twice_and_what_is_noted_was_run(
        steps in prop::collection::vec((happens(), any::<u8>(), any::<bool>()), 0..30),
    ) {
        let mut cluster = Cluster::of_nodes(1);
        let key = cluster.apply(cronjob("work", "* * * * *", &json!({})));
        let mut made: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        for (what, lost, twice) in steps {
            match &what {
                Happens::Seconds(seconds) => sleep(&mut cluster, *seconds),
                Happens::Finish(well) => {
                    let phase = if *well { "Succeeded" } else { "Failed" };
                    for pod in cluster.objects.list(&PODS).map(|pod| pod.key.clone()).collect::<Vec<_>>() {
                        cluster.patch(&pod, &json!({"status": {"phase": phase}}));
                    }
                }
                Happens::Suspend(_) | Happens::Policy(_) => {
                    cluster.patch(&key, &json!({"spec": spec(&what)}));
                }
            }
            let mut decision = cluster.decide();
            let mut place = 0;
            decision.operations.retain(|_| { place += 1; place > 8 || lost & (1 << (place - 1)) == 0 });
            let theirs = twice.then(|| cluster.decide());
            cluster.carry_out(&decision);
            if let Some(theirs) = theirs {
                cluster.carry_out(&theirs);
            }
            for job in cluster.objects.list(&JOBS) {
                let before = made.insert(job.object.name().to_owned(), job.object.uid().to_owned());
                prop_assert!(before.is_none_or(|uid| uid == job.object.uid()), "{} was made twice", job.object.name());
            }
            if let Some(noted) = time(&cluster.get(&key).object, &["status", "lastScheduleTime"]) {
                let name = format!("work-{}", noted.as_second() / 60);
                prop_assert!(made.contains_key(&name), "{name} was noted and not made");
            }
        }
        cluster.run();
        prop_assert_eq!(cluster.decide().operations, vec![], "at rest nothing is written");
    }
}
