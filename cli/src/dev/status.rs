//! `quorate dev status`: hosts, processes, addresses, leader, memory.
//!
//! Invariant: it changes nothing, and works without a quorum too.

use std::{path::Path, time::Duration};

use quorate_proto::{refusal::Refusal, request::ClusterStatus};

use super::{cluster, place::Place, plan::Plan, processes, processes::Process};
use crate::{
    commands,
    failure::Failure,
    output::{Aligned, Console},
};

pub(crate) const WHAT: &str = "the cluster is not shown";

/// How long the cluster may take to say who leads.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn run(place: &Place, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let plan = place.planned(WHAT)?;
    let seen = seen(&plan, contexts).await;
    let pid =
        |process: &Option<Process>| process.as_ref().map_or_else(|| "-".to_owned(), |process| process.pid.to_string());

    let headings = ["HOST", "ADDRESS", "POWER", "ROLE", "DAEMON", "ENGINE", "DAEMON-MEMORY"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for host in plan.hosts(&place.base) {
        let found = processes::find(&host, plan.simulated);
        let engine = if plan.simulated { "(simulated)".to_owned() } else { pid(&found.engine) };
        let on = if plan.simulated { found.daemon.is_some() } else { found.init.is_some() };
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
    if let Err(refusal) = seen {
        writeln!(console.err, "\nThe leader is not known: {}", refusal.because)?;
    }
    Ok(())
}

async fn seen(plan: &Plan, contexts: &Path) -> Result<ClusterStatus, Refusal> {
    match cluster::client(contexts, plan, PATIENCE)? {
        Some(client) => commands::status::ask(&client).await,
        None => Err(Refusal::new(
            quorate_proto::refusal::Reason::NotFound,
            WHAT,
            format!("there is no context `{}`", plan.context()),
        )),
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
