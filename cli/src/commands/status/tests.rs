//! What a status looks like, and what leaving prints.

use quorate_proto::{
    ids::{ClusterId, NodeId},
    overview::{Elections, Overview, OverviewMember, Role, Standing},
    refusal::{Reason, Refusal},
    request::{Answer, ChangeKind},
    txn::{Document, Revision},
};
use serde_json::json;

use crate::{
    commands::messages::{Answers, typed},
    session::tests::{document, not_found, objects},
};

fn member(id: u64, role: Role) -> OverviewMember {
    OverviewMember {
        name: format!("n{id}"),
        id: NodeId::from(id),
        role,
        ready: Some("True".to_owned()),
        leaving: false,
        lag: Some(0),
        heard_millis: Some(42 * id),
        disk_millis: Some(3),
        zone: Some("cellar".to_owned()),
        version: Some("v0.1.0".to_owned()),
    }
}

fn overview() -> Overview {
    Overview {
        cluster: ClusterId::from(7),
        answered: "n2".to_owned(),
        standing: Standing::Member,
        leader: Some("n1".to_owned()),
        term: 3,
        revision: Revision(42),
        simulated: false,
        members: vec![member(1, Role::Leader), member(2, Role::Voter), member(3, Role::Voter)],
        tolerates: Some(1),
        tolerance: Some("the loss of any one of the 3 voters".to_owned()),
        next: None,
        waits: Vec::new(),
        alarms: Vec::new(),
        elections: Some(Elections { heartbeat: 75, shortest: 200, longest: 350 }),
        problem: None,
    }
}

fn answered(overview: &Overview) -> Result<Vec<Answer>, Refusal> {
    Ok(vec![Answer::Overview(Document(serde_json::to_vec(overview).unwrap().into()))])
}

/// A voter has died, another node will take its place, and one leaves.
fn troubled() -> Overview {
    let mut told = overview();
    told.members[2] = OverviewMember {
        ready: Some("Unknown".to_owned()),
        lag: Some(3120),
        heard_millis: Some(301_000),
        ..member(3, Role::Voter)
    };
    told.members.push(OverviewMember { leaving: true, zone: None, disk_millis: None, ..member(4, Role::Learner) });
    told.tolerates = Some(0);
    told.tolerance =
        Some("no loss of a voter: 2 of the 3 must be healthy, and no more are (n3 is not healthy)".to_owned());
    told.next = Some("n1, n2, n5 are to vote: n3 was silent for too long, and n5 can vote instead".to_owned());
    told.waits = ["the voters changed lately: the next change is due in 4 s", "n4 leaves when its last pod has ended"]
        .map(str::to_owned)
        .to_vec();
    told.alarms = vec!["the disk of n1 has 41 MiB left: while it leads, only what frees room is written".to_owned()];
    told
}

#[tokio::test(start_paused = true)]
async fn a_status_says_who_votes_and_what_may_be_lost() {
    let alone = Overview {
        leader: None,
        simulated: true,
        members: vec![OverviewMember { lag: None, heard_millis: None, disk_millis: None, ..member(1, Role::Voter) }],
        tolerates: None,
        tolerance: None,
        problem: Some("nobody leads: writes stand still until most voters reach each other".to_owned()),
        ..overview()
    };
    let removed = Overview { standing: Standing::Removed, ..alone.clone() };
    insta::assert_snapshot!(
        [
            typed("quorate cluster status", "", vec![answered(&overview())]).await,
            typed("quorate status", "", vec![answered(&troubled())]).await,
            typed("quorate cluster status", "", vec![answered(&alone)]).await,
            typed("quorate cluster status", "", vec![answered(&removed)]).await,
            typed("quorate cluster status -o json", "", vec![answered(&overview())]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_node_to_leave_is_told_what_it_waits_for() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n4", "uid": "u4"}});
    let left =
        || Ok(vec![Answer::Changed { change: ChangeKind::Configured, object: document(&node), warnings: Vec::new() }]);
    let there = || Ok(vec![objects(std::slice::from_ref(&node))]);
    let gone = || Ok(vec![Answer::Refused(not_found("node/n4"))]);
    let last = Refusal::new(
        Reason::Conflict,
        "node/n4 was not asked to leave",
        "it is the only node: the cluster would be gone with it",
    )
    .hint("add another node first, or just stop its daemon");
    let waits = || answered(&troubled());
    let story: Answers = vec![left(), there(), waits(), there(), waits(), gone()];
    insta::assert_snapshot!(
        [
            typed("quorate leave n4", "", story).await,
            typed("quorate leave n4 --wait=false", "", vec![left()]).await,
            typed("quorate leave n4 --timeout 400ms", "", vec![left(), there(), waits(), there(), waits()]).await,
            typed("quorate leave n4", "", vec![Ok(vec![Answer::Refused(last)])]).await,
        ]
        .join("\n")
    );
}
