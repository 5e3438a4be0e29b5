use serde_json::{Value, json};

use super::*;

fn container(probes: &Value) -> Container {
    let mut container = json!({"name": "web", "ports": [{"name": "http", "containerPort": 8080}]});
    for (field, probe) in probes.as_object().unwrap() {
        container[field] = probe.clone();
    }
    serde_json::from_value(container).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

/// Answers of one probe, second by second of its own schedule, and what each changed.
fn verdicts(probe: &mut Probe, answers: &str) -> Vec<Verdict> {
    answers
        .chars()
        .map(|answer| {
            let due = probe.due().unwrap();
            probe.begin();
            probe.answer(answer == '+', due)
        })
        .collect()
}

use Verdict::{Fails, Passes, Same};

#[test]
fn a_container_without_probes_is_ready_as_soon_as_it_runs() {
    let health = Health::new(&container(&json!({})), at(5));
    assert!(health.started() && health.ready());
    assert_eq!(health.due(at(100)), (vec![], None));
}

#[test]
fn readiness_comes_with_the_first_success_and_goes_with_the_third_failure() {
    let container = container(&json!({"readinessProbe": {"tcpSocket": {"port": "http"}}}));
    let mut probe = Probe::new(&container, Purpose::Readiness, at(0)).unwrap();
    assert_eq!(verdicts(&mut probe, "--+--+---+"), [Same, Same, Passes, Same, Same, Same, Same, Same, Fails, Passes]);
}

#[test]
fn liveness_fails_once_and_is_then_left_to_the_restart() {
    let container = container(&json!({"livenessProbe": {"exec": {"command": ["true"]}, "failureThreshold": 2}}));
    let mut probe = Probe::new(&container, Purpose::Liveness, at(0)).unwrap();
    assert!(probe.passes());
    assert_eq!(verdicts(&mut probe, "+-+---"), [Same, Same, Same, Same, Fails, Same]);
}

#[test]
fn the_others_wait_until_the_startup_probe_passed() {
    let probe = json!({"tcpSocket": {"port": 80}});
    let container = container(&json!({"startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe}));
    let mut health = Health::new(&container, at(0));
    assert_eq!(health.due(at(0)).0, [Purpose::Startup]);
    let startup = health.probe(Purpose::Startup).unwrap();
    startup.begin();
    assert_eq!(startup.answer(true, at(1)), Passes);
    assert_eq!(health.due(at(1)).0, [Purpose::Liveness, Purpose::Readiness]);
    assert!(health.started() && !health.ready());
}

#[test]
fn a_slow_start_gets_the_time_its_numbers_give_it_though_it_is_looked_at_more_often() {
    let startup = json!({"startupProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 10, "failureThreshold": 3}});
    let mut probe = Probe::new(&container(&startup), Purpose::Startup, at(0)).unwrap();
    assert_eq!(verdicts(&mut probe, &"-".repeat(29)), [Same; 29]);
    assert_eq!(verdicts(&mut probe, "-"), [Fails]);
}

#[test]
fn checks_keep_their_delay_and_period() {
    let container = container(
        &json!({"readinessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 5, "periodSeconds": 20}}),
    );
    let mut probe = Probe::new(&container, Purpose::Readiness, at(100)).unwrap();
    assert_eq!(probe.due(), Some(at(105)));
    probe.begin();
    assert_eq!(probe.due(), None, "one check at a time");
    probe.answer(false, at(106));
    assert_eq!(probe.due(), Some(at(107)), "what was never ready is not made to wait for a period");
    probe.begin();
    probe.answer(true, at(107));
    assert_eq!(probe.due(), Some(at(127)));
}

#[test]
fn a_check_that_could_not_be_made_counts_for_nothing() {
    let container = container(&json!({"livenessProbe": {"tcpSocket": {"port": 80}, "failureThreshold": 1}}));
    let mut probe = Probe::new(&container, Purpose::Liveness, at(0)).unwrap();
    probe.begin();
    probe.undecided(at(1));
    assert!(probe.passes());
    assert_eq!(probe.due(), Some(at(11)));
}

#[test]
fn ports_are_found_by_name_and_what_cannot_be_checked_says_why() {
    let check = |probe: Value| {
        Probe::new(&container(&json!({ "livenessProbe": probe })), Purpose::Liveness, at(0)).unwrap().begin().0
    };
    let http = check(json!({"httpGet": {"port": "http", "path": "healthz?full=1"}}));
    let expected =
        Check::Http { host: None, port: 8080, path: "/healthz?full=1".into(), headers: vec![], any_status: false };
    assert_eq!(http, expected);
    let missing = check(json!({"tcpSocket": {"port": "grpc"}}));
    assert_eq!(missing, Check::Unsupported("the container has no port named `grpc`".into()));
    let https = check(json!({"httpGet": {"port": 443, "scheme": "HTTPS"}}));
    assert_eq!(https, Check::Unsupported("httpGet with scheme HTTPS is not supported".into()));
}
