//! `quorate leave`: has a node leave the cluster, and waits until it has.
//!
//! Invariant: what was asked for goes on whoever waits for it: a wait that is given up changes nothing.

use std::time::Duration;

use quorate_proto::{
    kinds::NODES,
    overview::Overview,
    refusal::{Reason, Refusal},
    request::{Answer, Read, Request},
};
use tokio::time::{Instant, sleep};

use crate::{args::Leave, failure::Failure, output::qualified_name, session::Session};

/// How often to look whether the node is gone.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(session: &mut Session<'_>, arguments: Leave) -> Result<(), Failure> {
    let request = Request::Leave { request: session.client.request_id(), node: arguments.name.clone() };
    let node = session.change(request).await?.object;
    let name = qualified_name(&NODES, &arguments.name);
    if !arguments.wait {
        writeln!(session.console.out, "{name} leaves")?;
        return Ok(());
    }
    let deadline = (!arguments.timeout.is_zero()).then(|| Instant::now() + arguments.timeout);
    let mut told = None;
    loop {
        // Also the node itself answers that it is gone, from what it has: nobody else talks with it any more.
        match session.get(&NODES, &arguments.name, Read::Stale).await {
            Err(refusal) if refusal.reason == Reason::NotFound => break,
            Err(refusal) => return Err(refusal.into()),
            Ok(there) if there.uid() != node.uid() => break,
            Ok(_) => {}
        }
        let waits = waits(session, &arguments.name).await;
        if waits.is_some() && waits != told {
            writeln!(session.console.err, "{}", waits.as_deref().unwrap_or_default())?;
            told = waits;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let because = "it is leaving, but was still there when the time was over";
            let refusal = Refusal::new(Reason::Timeout, format!("{name} has not left"), because);
            return Err(refusal.hint("`quorate cluster status` shows what it waits for").into());
        }
        sleep(LOOK).await;
    }
    writeln!(session.console.out, "{name} has left; its daemon stops, and its machine may join again with --fresh")?;
    Ok(())
}

/// What the node waits for, as the leader says; `None` if that is not known.
async fn waits(session: &Session<'_>, node: &str) -> Option<String> {
    let answer = session.client.ask(Request::Overview { forwarded: false }).await.ok()?;
    let Answer::Overview(document) = answer else { return None };
    let overview: Overview = serde_json::from_slice(&document.0).ok()?;
    overview.waits.into_iter().find(|wait| wait.starts_with(&format!("{node} ")))
}
