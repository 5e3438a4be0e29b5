//! `quorate cluster status`, and `quorate status` for short: who belongs to the cluster, who votes, what may be lost now.
//!
//! Invariant: it is answered without a quorum too, so that it can say that there is none.

use quorate_proto::{
    overview::{Elections, Overview, OverviewMember, Standing},
    refusal::{Reason, Refusal},
    request::{Answer, ClusterStatus, Request},
};

use crate::{
    args::StatusOutput,
    client::{Client, unexpected},
    failure::Failure,
    output::{self, Aligned},
    session::Session,
};

pub(crate) async fn run(session: &mut Session<'_>, shape: StatusOutput) -> Result<(), Failure> {
    let request = Request::Overview { forwarded: false };
    let document = match session.client.ask(request.clone()).await? {
        Answer::Overview(document) => document,
        answer => return Err(unexpected(&request, &answer).into()),
    };
    let unreadable = |error: serde_json::Error| {
        Refusal::new(Reason::Internal, "the answer was not understood", error.to_string())
            .hint("compare `quorate --version` with the nodes' versions in `quorate nodes`")
    };
    if shape == StatusOutput::Json {
        let value = serde_json::from_slice(&document.0).map_err(unreadable)?;
        return output::json(&value, session.console.out);
    }
    let overview: Overview = serde_json::from_slice(&document.0).map_err(unreadable)?;
    if overview.simulated {
        session.note_simulated()?;
    }
    let out = &mut *session.console.out;
    writeln!(out, "Cluster:    {}", overview.cluster)?;
    let standing = match overview.standing {
        Standing::Member => "",
        Standing::Leaving => ", which is leaving",
        Standing::Left => ", which has left the cluster",
        Standing::Removed => ", which was deleted from the cluster",
    };
    writeln!(out, "Answered:   {}{standing}", overview.answered)?;
    writeln!(out, "Leader:     {}", overview.leader.as_deref().unwrap_or("none"))?;
    writeln!(out, "Revision:   {}", overview.revision)?;
    if overview.simulated {
        writeln!(out, "Pods:       (simulated)")?;
    }
    if let Some(tolerance) = &overview.tolerance {
        writeln!(out, "Tolerates:  {tolerance}")?;
    }
    if let Some(Elections { heartbeat, shortest, longest }) = overview.elections {
        writeln!(out, "Elections:  after {shortest} to {longest} ms of silence, a heartbeat every {heartbeat} ms")?;
    }
    if let Some(problem) = &overview.problem {
        writeln!(out, "Problem:    {problem}")?;
    }
    for alarm in &overview.alarms {
        writeln!(out, "Alarm:      {alarm}")?;
    }
    if let Some(next) = &overview.next {
        writeln!(out, "Next:       {next}")?;
    }
    for (index, wait) in overview.waits.iter().enumerate() {
        writeln!(out, "{:<12}{wait}", if index == 0 { "Waits:" } else { "" })?;
    }
    writeln!(out)?;
    let headings = ["NAME", "ROLE", "READY", "LAG", "HEARD", "DISK", "ZONE", "VERSION", "ID"].map(str::to_owned);
    let rows: Vec<_> = [headings.to_vec()].into_iter().chain(overview.members.iter().map(row)).collect();
    Aligned::default().print(&rows, out)?;
    if overview.standing == Standing::Removed {
        let because = "it was deleted while it lived; the others do not talk with it any more";
        let refusal = Refusal::new(Reason::Conflict, format!("{} is no member", overview.answered), because);
        return Err(refusal.hint("stop its daemon, then run `quorate join TOKEN --fresh` on it").into());
    }
    Ok(())
}

fn row(member: &OverviewMember) -> Vec<String> {
    let unknown = || "-".to_owned();
    let millis = |millis: Option<u64>| match millis {
        Some(millis) if millis >= 10_000 => format!("{}s", millis / 1000),
        Some(millis) => format!("{millis}ms"),
        None => unknown(),
    };
    let ready = match member.ready.as_deref() {
        Some("True") => "yes".to_owned(),
        Some("False") => "no".to_owned(),
        Some(_) => "unknown".to_owned(),
        None => unknown(),
    };
    let leaving = if member.leaving { ",leaving" } else { "" };
    vec![
        member.name.clone(),
        format!("{}{leaving}", member.role),
        ready,
        member.lag.map_or_else(unknown, |lag| lag.to_string()),
        millis(member.heard_millis),
        millis(member.disk_millis),
        member.zone.clone().unwrap_or_else(unknown),
        member.version.clone().unwrap_or_else(unknown),
        member.id.to_string(),
    ]
}

/// Asks a node how it sees the cluster by itself.
pub(crate) async fn ask(client: &Client) -> Result<ClusterStatus, Refusal> {
    match client.ask(Request::Status).await? {
        Answer::Status(status) => Ok(status),
        answer => Err(unexpected(&Request::Status, &answer)),
    }
}

#[cfg(test)]
mod tests;
