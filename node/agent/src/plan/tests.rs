use quorate_proto::world::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::pod::tests::{bound, with_metadata};

const NOW: Instant = Instant(Duration::from_secs(10_000));

fn config() -> Config {
    Config {
        cluster: quorate_proto::ids::ClusterId(1),
        node: "n1".into(),
        host_address: [192, 0, 2, 1].into(),
        dns: [10, 213, 0, 10].into(),
        zone: "cluster.local".into(),
        drain: Config::DRAIN,
        parallel_starts: 1,
    }
}

/// A pod and what is known of it.
struct Case {
    bound: BoundPod,
    seen: Vec<Container>,
    memory: PodMemory,
    busy: BTreeSet<String>,
    resting: BTreeMap<String, Instant>,
}

fn case(spec: Value) -> Case {
    let mut case = Case {
        bound: bound("web", spec),
        seen: vec![],
        memory: PodMemory::default(),
        busy: BTreeSet::new(),
        resting: BTreeMap::new(),
    };
    case.memory.mounted = Some(crate::memory::Mounted {
        version: workload::volumes_version(&case.bound, &Snapshot::default()),
        paths: BTreeMap::new(),
    });
    case
}

impl Case {
    fn with(mut self, role: Role, attempt: u32, state: State) -> Self {
        let id = format!("{}-{attempt}", if let Role::Container { name, .. } = &role { name } else { "holder" });
        let pod = self.bound.reference.clone();
        self.seen.push(Container {
            id,
            node: "n1".into(),
            pod,
            role,
            attempt,
            grace: Duration::from_secs(3),
            image: String::new(),
            image_id: String::new(),
            address: Some([10, 214, 0, 2].into()),
            state,
        });
        self
    }

    fn holder(self) -> Self {
        self.with(Role::Holder, 0, running())
    }

    fn container(self, name: &str, attempt: u32, state: State) -> Self {
        let hash = self.bound.hash(name).to_owned();
        self.with(Role::Container { name: name.into(), hash, holder: "holder-0".into() }, attempt, state)
    }

    fn plan(&mut self) -> PodPlan {
        let seen: Vec<&Container> = self.seen.iter().collect();
        self.memory.observe(&self.bound, &seen, NOW, Timestamp::UNIX_EPOCH);
        let (config, snapshot) = (config(), Snapshot::default());
        let context = Context {
            config: &config,
            snapshot: &snapshot,
            now: NOW,
            node_memory: 1,
            busy: &self.busy,
            resting: &self.resting,
        };
        pod(&self.bound, &seen, &self.memory, context)
    }

    /// What is to be done, in short.
    fn actions(&mut self) -> Vec<String> {
        short(&self.plan())
    }
}

fn short(plan: &PodPlan) -> Vec<String> {
    let one = |action: &Action| match action {
        Action::Mount { .. } => "mount".to_owned(),
        Action::StartHolder(holder) => format!("start holder {}", holder.attempt),
        Action::Start { container, .. } => format!("start {} {}", container.name, container.attempt),
        Action::Begin { id, .. } => format!("begin {id}"),
        Action::Stop { id, .. } => format!("stop {id}"),
        Action::Remove { id } => format!("remove {id}"),
        Action::Unmount => "unmount".to_owned(),
    };
    plan.actions.iter().map(one).collect()
}

const fn running() -> State {
    State::Running { started: Timestamp::UNIX_EPOCH }
}

const fn exited(code: i32) -> State {
    let time = Timestamp::UNIX_EPOCH;
    State::Exited {
        started: time,
        finished: time,
        code,
        out_of_memory: false,
        message: String::new(),
        words: String::new(),
    }
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn a_new_pod_gets_its_volumes_then_its_holder_then_its_containers() {
    let mut new = case(one("Always"));
    let mounted = new.memory.mounted.take();
    assert_eq!(new.actions(), ["mount"]);
    new.memory.mounted = mounted;
    assert_eq!(new.actions(), ["start holder 0"]);
    new.busy.insert(POD.into());
    assert!(new.actions().is_empty(), "what is under way is not begun again");
    assert_eq!(case(one("Always")).holder().actions(), ["start a 0"]);
    assert!(case(one("Always")).holder().container("a", 0, running()).actions().is_empty());
}

#[test]
fn what_ended_is_started_again_as_its_policy_says() {
    for (policy, code, expected) in [
        ("Always", 0, vec!["start a 1"]),
        ("OnFailure", 1, vec!["start a 1"]),
        ("OnFailure", 0, vec![]),
        ("Never", 1, vec![]),
    ] {
        assert_eq!(case(one(policy)).holder().container("a", 0, exited(code)).actions(), expected, "{policy} {code}");
    }
}

#[test]
fn a_restart_waits_for_its_back_off_and_says_so() {
    let mut crashing = case(one("Always")).holder().container("a", 2, exited(1));
    crashing.memory.containers.entry("a".into()).or_default().restarts.failed(NOW);
    let plan = crashing.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.wake_at, Some(NOW + Duration::from_secs(10)));
    let expected = "back-off 10s restarting failed container=a pod=web_shop(uid-web)";
    assert_eq!(plan.waiting["a"], Waiting::new("CrashLoopBackOff", expected));
}

#[test]
fn a_container_made_from_another_spec_is_replaced() {
    let role = Role::Container { name: "a".into(), hash: "other".into(), holder: "holder-0".into() };
    assert_eq!(case(one("Always")).holder().with(role, 0, running()).actions(), ["stop a-0"]);
}

#[test]
fn a_holder_that_is_being_started_is_not_taken_for_one_that_ended() {
    let mut starting = case(one("Always")).with(Role::Holder, 0, State::Created);
    starting.busy.insert(POD.into());
    assert_eq!(starting.actions(), [""; 0]);
    starting.busy.clear();
    assert_eq!(starting.actions()[0], "remove holder-0", "whoever began it has given up");
}

#[test]
fn containers_of_a_lost_network_are_stopped_before_a_new_one_is_made() {
    let lost = || case(one("Always")).with(Role::Holder, 0, exited(137));
    assert_eq!(lost().container("a", 0, running()).actions(), ["remove holder-0", "stop a-0"]);
    assert_eq!(lost().container("a", 0, exited(143)).actions(), ["remove holder-0"]);
    assert_eq!(case(one("Always")).container("a", 0, exited(143)).actions(), ["start holder 0"]);
}

#[test]
fn only_the_last_two_attempts_are_kept() {
    let mut three = case(one("Always")).holder();
    for attempt in 0..2 {
        three = three.container("a", attempt, exited(1));
    }
    assert_eq!(three.container("a", 2, running()).actions(), ["remove a-0"]);
}

#[test]
fn a_failed_init_container_keeps_the_others_from_starting() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "i"}], "containers": [{"name": "a", "image": "i"}]});
    assert_eq!(case(spec("Always")).holder().container("i", 0, exited(1)).actions(), ["start i 1"]);
    assert!(case(spec("Never")).holder().container("i", 0, exited(1)).actions().is_empty());
    assert_eq!(case(spec("Always")).holder().container("i", 0, exited(0)).actions(), ["start a 0"]);
}

#[test]
fn a_sidecar_goes_on_beside_the_pod_and_ends_with_it() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}], "containers": [{"name": "a", "image": "i"}]});
    assert_eq!(case(spec.clone()).holder().actions(), ["start s 0"]);
    assert_eq!(case(spec.clone()).holder().container("s", 0, running()).actions(), ["start a 0"]);
    let both = case(spec).holder().container("s", 0, running());
    assert_eq!(both.container("a", 0, exited(0)).actions(), ["stop s-0"]);
}

#[test]
fn a_deleted_pod_is_drained_stopped_and_removed_in_this_order() {
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let deletion = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
    let deleted = || {
        let mut case = case(one("Always"));
        case.bound = BoundPod::read(&with_metadata("web", one("Always"), &deletion, &ready), "n1").unwrap();
        case
    };
    let mut draining = deleted().holder().container("a", 0, running());
    let plan = draining.plan();
    assert_eq!((short(&plan), plan.wake_at), (vec![], Some(NOW + Config::DRAIN)), "routes forget it first");
    draining.memory.deleting = Some(NOW - Config::DRAIN);
    let plan = draining.plan();
    assert!(
        matches!(&plan.actions[..], [Action::Stop { grace, .. }] if *grace == Duration::from_secs(25)),
        "nobody said so, and it is late"
    );
    draining.memory.deleting = Some(NOW - Duration::from_secs(1));
    draining.memory.withdrawn = true;
    let plan = draining.plan();
    assert!(
        matches!(&plan.actions[..], [Action::Stop { grace, .. }] if *grace == Duration::from_secs(29)),
        "all have forgotten it"
    );
    assert_eq!(
        deleted().holder().container("a", 0, exited(143)).actions().len(),
        0,
        "the holder runs: the drain holds"
    );
    let mut down = deleted().holder().container("a", 0, exited(143));
    down.memory.deleting = Some(NOW - Config::DRAIN);
    assert_eq!(down.actions(), ["remove holder-0", "remove a-0"]);
    assert_eq!(deleted().actions(), ["unmount"]);
    let mut gone = deleted();
    gone.memory.unmounted = true;
    assert!(gone.plan().gone);
}

#[test]
fn a_pod_that_ended_gives_its_network_up_and_keeps_its_logs() {
    let mut ended = case(one("Never")).holder().container("a", 0, exited(0));
    ended.bound.status = json!({"phase": "Succeeded"});
    assert_eq!(ended.actions(), ["remove holder-0"]);
}

#[test]
fn what_is_bound_here_no_more_gets_the_grace_it_was_made_with() {
    let orphaned = case(one("Always")).holder().container("a", 0, running());
    let seen: Vec<&Container> = orphaned.seen.iter().collect();
    let (config, snapshot) = (config(), Snapshot::default());
    let context = Context {
        config: &config,
        snapshot: &snapshot,
        now: NOW,
        node_memory: 1,
        busy: &orphaned.busy,
        resting: &orphaned.resting,
    };
    let plan = orphan(&seen, &PodMemory::default(), context);
    assert!(matches!(&plan.actions[..], [Action::Stop { grace, .. }] if *grace == Duration::from_secs(3)));
}

#[test]
fn what_failed_is_left_alone_for_a_while() {
    let mut failed = case(one("Always")).holder();
    failed.resting.insert("a".into(), NOW + Duration::from_secs(10));
    let plan = failed.plan();
    assert_eq!((short(&plan), plan.wake_at), (vec![], Some(NOW + Duration::from_secs(10))));
    failed.resting.insert("a".into(), NOW);
    assert_eq!(failed.actions(), ["start a 0"]);
}

fn hooked() -> Value {
    json!({"containers": [
        {"name": "a", "image": "i", "lifecycle": {
            "postStart": {"exec": {"command": ["begin"]}},
            "preStop": {"httpGet": {"path": "/stop", "port": 80}},
        }},
        {"name": "b", "image": "i"},
    ]})
}

#[test]
fn a_container_begins_when_its_hook_is_done_and_the_next_one_is_started_then() {
    let mut started = case(hooked()).holder().container("a", 0, running());
    assert_eq!(started.actions(), ["begin a-0"]);
    let a = started.seen.last().unwrap().clone();
    assert!(started.memory.health(&a).is_none(), "it is not probed");
    started.busy.insert("a/postStart".into());
    let plan = started.plan();
    assert_eq!((short(&plan).len(), plan.waiting["b"].reason), (0, "ContainerCreating"));

    started.memory.containers.get_mut("a").unwrap().begun = Some("a-0".into());
    assert_eq!(started.actions(), ["start b 0"]);
    assert!(started.memory.health(&a).is_some());
}

#[test]
fn a_hook_that_is_known_to_be_done_is_not_called_by_an_agent_that_was_restarted() {
    let mut known = case(hooked()).holder().container("a", 0, running()).container("b", 0, running());
    known.bound.status = json!({"containerStatuses": [
        {"name": "a", "containerID": "docker://a-0", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
    ]});
    assert!(known.actions().is_empty());
    let mut other = case(hooked()).holder().container("a", 1, running()).container("b", 0, running());
    other.bound.status = known.bound.status.clone();
    assert_eq!(other.actions(), ["begin a-1"], "it was another container's");
}

#[test]
fn whatever_a_container_is_stopped_for_its_hook_is_called_before() {
    let call = Call {
        hook: Hook::Ask(crate::probe::Check::Http {
            host: None,
            port: 80,
            path: "/stop".into(),
            headers: vec![],
            any_status: true,
        }),
        address: [10, 214, 0, 2].into(),
    };
    let mut condemned = case(hooked()).holder().container("a", 0, running()).container("b", 0, running());
    condemned.plan();
    let memory = condemned.memory.containers.get_mut("a").unwrap();
    (memory.begun, memory.condemned) = (Some("a-0".into()), Some(("a-0".into(), "unwell".into())));
    let stopped = |plan: PodPlan| match &plan.actions[..] {
        [Action::Stop { id, call, .. }] => (id.clone(), call.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(stopped(condemned.plan()), ("a-0".to_owned(), Some(call)));

    let mut without = case(hooked()).holder().container("a", 0, running()).container("b", 0, running());
    without.plan();
    without.memory.containers.get_mut("a").unwrap().begun = Some("a-0".into());
    without.memory.containers.get_mut("b").unwrap().condemned = Some(("b-0".into(), "unwell".into()));
    assert_eq!(stopped(without.plan()), ("b-0".to_owned(), None));
}
