//! The cluster at a glance, put together from what this node knows and what the leader does.
//!
//! Invariant: what only the leader knows is never guessed: without it, it is missing and the overview says why.

use std::time::Duration;

use quorate_api::leave;
use quorate_proto::{
    ids::NodeId,
    kinds::NODES,
    overview::{Elections, Overview, OverviewMember, Role, Standing},
    refusal::chain,
    request::{Answer, Request},
    snapshot::Snapshot,
    wire::cap,
};
use quorate_raft::{
    Room, Status, Timing,
    voters::{Health, Plan, Tolerance, View},
};

use crate::{
    links::{self, LinkError, Links, Opening},
    registration, voters,
};

/// How long the leader may take to answer.
const LEADER: Duration = Duration::from_secs(2);

/// What a node knows by itself.
#[must_use]
pub(crate) fn of(
    status: &Status,
    snapshot: &Snapshot,
    cluster: quorate_proto::ids::ClusterId,
    (name, standing): (&str, Standing),
    simulated: bool,
) -> Overview {
    let mut members: Vec<_> = status.members.iter().map(|member| described(member, status.leader, snapshot)).collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Overview {
        cluster,
        answered: name.to_owned(),
        standing,
        leader: status.leader.map(|leader| name_of(snapshot, leader)),
        term: status.term,
        revision: snapshot.revision(),
        simulated,
        members,
        tolerates: None,
        tolerance: None,
        next: None,
        waits: Vec::new(),
        alarms: full(name, status.room).into_iter().collect(),
        elections: None,
        problem: None,
    }
}

/// What is to be said of a node's disk, if it has too little room.
fn full(name: &str, room: Room) -> Option<String> {
    let (free, then) = match room {
        Room::Enough => return None,
        Room::Low { free } => (free, "while it leads, only what frees room is written"),
        Room::None { free } => (free, "it takes nothing new at all"),
    };
    Some(format!("the disk of {name} has {} MiB left: {then}", free >> 20))
}

/// How fast elections are here.
#[must_use]
pub(crate) fn elections(timing: Timing) -> Elections {
    let Timing { heartbeat, election_min, election_max } = timing;
    Elections { heartbeat: millis(heartbeat), shortest: millis(election_min), longest: millis(election_max) }
}

/// Adds what the leader knows.
pub(crate) fn add_plan(overview: &mut Overview, view: &View, plan: &Plan, snapshot: &Snapshot) {
    let name = |node| name_of(snapshot, node);
    for member in &mut overview.members {
        let health =
            if member.id == view.leader { Some(leaders_own(view)) } else { view.health.get(&member.id).copied() };
        let Some(health) = health else { continue };
        member.lag = Some(health.lag);
        member.heard_millis = Some(millis(health.silent_for));
        member.disk_millis = health.delay.map(millis);
    }
    let tolerance = Tolerance::of(view);
    overview.tolerates = tolerance.voters;
    overview.tolerance = Some(tolerance.tell(name));
    overview.next = plan.step.as_ref().map(|(step, reasons)| {
        let reasons: Vec<_> = reasons.iter().map(|reason| reason.tell(name)).collect();
        format!("{}: {}", step.tell(name), reasons.join("; "))
    });
    overview.waits = plan.waits.iter().map(|reason| reason.tell(name)).collect();
    for node in snapshot.list(&NODES).filter(|node| leave::is_leaving(&node.object)) {
        let (name, pods) = (node.object.name(), voters::waits_for(snapshot, node.object.name()));
        overview.waits.push(match pods {
            0 => format!("{name} leaves when its vote is taken"),
            1 => format!("{name} leaves when its last pod has ended"),
            pods => format!("{name} leaves when its {pods} pods have ended"),
        });
    }
}

/// Asks the leader, and takes over what only it knows.
///
/// # Errors
/// If it does not answer in time, or not with an overview.
pub(crate) async fn ask(overview: &mut Overview, leader: NodeId, links: &dyn Links) -> Result<(), String> {
    let question = Request::Overview { forwarded: true };
    let exchange = links::ask(links, leader, Opening::Ask, &question, cap::API);
    let answer = tokio::time::timeout(LEADER, exchange).await;
    let answer = answer.map_err(|_| format!("it did not answer within {} s", LEADER.as_secs()))?;
    let document = match answer.map_err(|error: LinkError| chain(&error))? {
        Answer::Overview(document) => document,
        Answer::Refused(refusal) => return Err(refusal.because),
        _ => return Err("it answered something else".to_owned()),
    };
    let told: Overview = serde_json::from_slice(&document.0).map_err(|error| error.to_string())?;
    if let Some(problem) = told.problem {
        return Err(problem);
    }
    overview.members = told.members;
    (overview.tolerates, overview.tolerance) = (told.tolerates, told.tolerance);
    (overview.next, overview.waits) = (told.next, told.waits);
    overview.alarms.extend(told.alarms);
    Ok(())
}

fn leaders_own(view: &View) -> Health {
    Health { healthy_for: Some(Duration::ZERO), silent_for: Duration::ZERO, lag: 0, delay: view.delay }
}

fn described(member: &quorate_raft::Member, leader: Option<NodeId>, snapshot: &Snapshot) -> OverviewMember {
    let stored = snapshot.list(&NODES).find(|stored| registration::node_id(&stored.object) == Some(member.id));
    let node = stored.map(|stored| &stored.object);
    let text = |path: &[&str]| node.and_then(|node| node.text(path)).map(str::to_owned);
    OverviewMember {
        name: node.map_or_else(|| member.id.to_string(), |node| node.name().to_owned()),
        id: member.id,
        role: match member.voter {
            _ if leader == Some(member.id) => Role::Leader,
            true => Role::Voter,
            false => Role::Learner,
        },
        ready: node.and_then(|node| node.condition("Ready")?.get("status")?.as_str().map(str::to_owned)),
        leaving: node.is_some_and(leave::is_leaving),
        lag: None,
        heard_millis: None,
        disk_millis: None,
        zone: node.and_then(|node| node.label(voters::ZONE)).map(str::to_owned),
        version: text(&["status", "nodeInfo", "kubeletVersion"]),
    }
}

fn name_of(snapshot: &Snapshot, node: NodeId) -> String {
    registration::name_of(snapshot, node).unwrap_or_else(|| node.to_string())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
