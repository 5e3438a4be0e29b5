//! `quorate logs`: prints what a pod wrote.
//!
//! Invariant: bytes are passed on as they come, unchanged: a log is not always text.

use futures_util::TryStreamExt as _;
use quorate_proto::{
    kinds::{PODS, SERVICES},
    object::Object,
    refusal::{Reason, Refusal},
    request::{self, Answer, Read, Request},
};

use crate::{
    args::Logs,
    client::unexpected,
    failure::Failure,
    output::qualified_name,
    session::{Filter, Session},
    targets::{self, Target},
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Logs) -> Result<(), Failure> {
    let target = match arguments.pod.contains('/') {
        true => targets::one(&arguments.pod)?,
        false => Target { kind: &PODS, name: Some(arguments.pod) },
    };
    let pod = pod_of(session, &target).await?;
    let request = Request::Logs(request::Logs {
        namespace: session.namespace().to_owned(),
        pod,
        container: arguments.container,
        follow: arguments.follow,
        previous: arguments.previous,
        tail: arguments.tail,
        since_seconds: arguments.since.map(|since| u32::try_from(since.as_secs().max(1)).unwrap_or(u32::MAX)),
        timestamps: arguments.timestamps,
        forwarded: false,
    });
    let mut answers = session.client.follow(&request).await?;
    while let Some(answer) = answers.try_next().await? {
        match answer {
            Answer::Data(bytes) => {
                session.console.out.write_all(&bytes)?;
                session.console.out.flush()?;
            }
            Answer::End => break,
            answer => return Err(unexpected(&request, &format!("{answer:?}")).into()),
        }
    }
    Ok(())
}

/// The pod that is meant; of what has several pods, the first, and it is said which.
async fn pod_of(session: &mut Session<'_>, target: &Target) -> Result<String, Failure> {
    let name = target.name.clone().unwrap_or_default();
    if target.kind == &PODS {
        return Ok(name);
    }
    let owner = session.get(target.kind, &name, Read::Linearizable).await?;
    let path: &[&str] =
        if target.kind == &SERVICES { &["spec", "selector"] } else { &["spec", "selector", "matchLabels"] };
    let labels: Vec<_> = owner.strings(path).into_iter().map(|(label, value)| format!("{label}={value}")).collect();
    let filter = Filter { labels: labels.join(","), ..Filter::default() };
    let pods = if labels.is_empty() { Vec::new() } else { session.list(&PODS, &filter).await?.1 };
    let mut names: Vec<_> = pods.iter().map(Object::name).collect();
    names.sort_unstable();
    let Some(first) = names.first() else {
        let what = format!("no log of {} was read", qualified_name(target.kind, &name));
        return Err(Refusal::new(Reason::NotFound, what, "it has no pods").into());
    };
    if names.len() > 1 {
        writeln!(session.console.err, "Found {} pods, using pod/{first}", names.len())?;
    }
    Ok((*first).to_owned())
}
