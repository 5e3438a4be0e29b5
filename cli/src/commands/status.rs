//! `quorate status`: the cluster as the node that answers sees it.
//!
//! Invariant: it is answered without a quorum too, so that it can say that there is none.

use quorate_proto::{
    refusal::Refusal,
    request::{Answer, ClusterStatus, Request},
};

use crate::{
    client::{Client, unexpected},
    failure::Failure,
    output::Aligned,
    session::Session,
};

pub(crate) async fn run(session: &mut Session<'_>) -> Result<(), Failure> {
    let status = ask(&session.client).await?;
    if status.simulated {
        session.note_simulated()?;
    }
    let leader = status.leader.map_or_else(|| "none".to_owned(), |id| name(&status, id));
    let out = &mut *session.console.out;
    writeln!(out, "Cluster:    {}", status.cluster)?;
    writeln!(out, "Answered:   {}", status.node_name)?;
    writeln!(out, "Leader:     {leader}")?;
    writeln!(out, "Revision:   {}", status.revision)?;
    if status.simulated {
        writeln!(out, "Pods:       (simulated)")?;
    }
    writeln!(out)?;
    let mut rows = vec![["NAME", "VOTER", "LEADER", "ID"].map(str::to_owned).to_vec()];
    let yes = |condition: bool| if condition { "yes" } else { "no" }.to_owned();
    for member in &status.members {
        let leads = status.leader == Some(member.id);
        rows.push(vec![name(&status, member.id), yes(member.voter), yes(leads), member.id.to_string()]);
    }
    Aligned::default().print(&rows, out)?;
    Ok(())
}

/// Asks a node how it sees the cluster.
pub(crate) async fn ask(client: &Client) -> Result<ClusterStatus, Refusal> {
    match client.ask(Request::Status).await? {
        Answer::Status(status) => Ok(status),
        answer => Err(unexpected(&Request::Status, &answer)),
    }
}

/// A member's name; before its node object is there, its id.
pub(crate) fn name(status: &ClusterStatus, id: quorate_proto::ids::NodeId) -> String {
    let member = status.members.iter().find(|member| member.id == id);
    member.and_then(|member| member.name.clone()).unwrap_or_else(|| id.to_string())
}
