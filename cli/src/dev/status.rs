//! `quorate dev status`: hosts, processes, addresses, leader, memory.
//!
//! Invariant: it changes nothing, and works without a quorum too.

use std::{path::Path, time::Duration};

use quorate_proto::{
    refusal::{Reason, Refusal},
    request::ClusterStatus,
};

use super::{cluster, place::Place, plan::Plan, processes, processes::Process, remains::Remains};
use crate::{
    commands,
    failure::Failure,
    output::{Aligned, Console},
};

pub(crate) const WHAT: &str = "the cluster is not shown";

/// How long the cluster may take to say who leads.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn run(place: &Place, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let remains = if place.simulated { Remains::default() } else { Remains::find(&place.base).await };
    let Some(plan) = place.plan(WHAT)? else {
        if remains.is_empty() {
            place.planned(WHAT)?;
        }
        return Err(Refusal::new(Reason::Conflict, WHAT, format!("of a cluster there is only left: {remains}"))
            .hint("`quorate dev down` removes it")
            .into());
    };
    let seen = seen(&plan, contexts).await;
    let pid =
        |process: &Option<Process>| process.as_ref().map_or_else(|| "-".to_owned(), |process| process.pid.to_string());

    let headings = ["HOST", "ADDRESS", "POWER", "ROLE", "DAEMON", "ENGINE", "DAEMON-MEMORY"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let hosts = plan.hosts(&place.base);
    let mut adrift = Vec::new();
    for host in &hosts {
        let found = processes::find(host, plan.simulated);
        let engine = if plan.simulated { "(simulated)".to_owned() } else { pid(&found.engine) };
        let on = if plan.simulated { found.daemon.is_some() } else { found.init.is_some() };
        if found.adrift {
            adrift.push(host.name.clone());
        }
        rows.push(vec![
            host.name.clone(),
            host.endpoint().to_string(),
            if on { "on" } else { "off" }.to_owned(),
            role(&host.name, seen.as_ref().ok()),
            pid(&found.daemon),
            engine,
            found.daemon.map_or_else(|| "-".to_owned(), |daemon| format!("{}Mi", daemon.memory / 1024)),
        ]);
    }
    Aligned::default().print(&rows, console.out)?;
    writeln!(console.out)?;
    writeln!(console.out, "Context:   {}", plan.context())?;
    writeln!(console.out, "State:     {}", place.base.display())?;
    if !adrift.is_empty() {
        let names = adrift.join(", ");
        writeln!(console.err, "\nThe network of {names} has lost its name: `quorate dev up` switches {names} on anew")?;
    }
    let unplanned: Vec<_> =
        remains.hosts.into_iter().filter(|name| hosts.iter().all(|host| host.name != *name)).collect();
    if !unplanned.is_empty() {
        let names = unplanned.join(", ");
        writeln!(console.err, "\nOf other hosts there is something left: {names}; `quorate dev down` removes all")?;
    }
    if let Err(refusal) = seen {
        writeln!(console.err, "\nThe leader is not known: {}", refusal.because)?;
    }
    Ok(())
}

async fn seen(plan: &Plan, contexts: &Path) -> Result<ClusterStatus, Refusal> {
    match cluster::client(contexts, plan, PATIENCE)? {
        Some(client) => commands::status::ask(&client).await,
        None => Err(Refusal::new(Reason::NotFound, WHAT, format!("there is no context `{}`", plan.context()))),
    }
}

fn role(host: &str, status: Option<&ClusterStatus>) -> String {
    let member = status.and_then(|status| {
        let member = status.members.iter().find(|member| member.name.as_deref() == Some(host))?;
        Some((status.leader == Some(member.id), member.voter))
    });
    match member {
        Some((true, _)) => "leader",
        Some((false, true)) => "voter",
        Some((false, false)) => "learner",
        None => "-",
    }
    .to_owned()
}
