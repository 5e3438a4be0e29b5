//! `quorate delete`: deletes objects, and waits until they are gone.
//!
//! Invariant: an object of the same name and another uid is another object: waiting ends when the one that was deleted is gone.

use std::{io::Read, time::Duration};

use quorate_proto::{
    kinds::Kind,
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, Read as Freshness, Reference, Request},
};
use tokio::time::{Instant, sleep};

use super::apply::in_namespace;
use crate::{
    args::Delete,
    client::unexpected,
    failure::Failure,
    manifests,
    output::{self, qualified_name},
    session::{Filter, Session},
    targets,
};

/// How often to look whether an object is gone.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(session: &mut Session<'_>, arguments: Delete, stdin: &mut dyn Read) -> Result<(), Failure> {
    let mut refusals = Vec::new();
    let mut deleted = Vec::new();
    for (kind, object) in meant(session, &arguments, stdin).await? {
        match delete(session, &object, arguments.grace_period).await {
            Ok(last) => {
                writeln!(session.console.out, "{} deleted", qualified_name(kind, &object.name))?;
                deleted.push((kind, object, last));
            }
            Err(refusal) if refusal.reason == Reason::NotFound && arguments.ignore_not_found => {}
            Err(refusal) => refusals.push(refusal),
        }
    }
    if arguments.wait {
        let deadline = (!arguments.timeout.is_zero()).then(|| Instant::now() + arguments.timeout);
        for (kind, object, last) in &deleted {
            if let Err(refusal) = gone(session, kind, object, last, deadline).await {
                refusals.push(refusal);
            }
        }
    }
    Failure::if_any(refusals)
}

/// What the command line means, in the order in which it goes: what others need goes last.
async fn meant(
    session: &Session<'_>,
    arguments: &Delete,
    stdin: &mut dyn Read,
) -> Result<Vec<(&'static Kind, Reference)>, Failure> {
    if !arguments.filename.is_empty() {
        let mut objects = Vec::new();
        for manifest in manifests::collect(&arguments.filename, stdin, "deleted")?.iter().rev() {
            let object = in_namespace(session, manifest)?;
            let kind = Kind::of(object.api_version(), object.kind());
            let kind = kind.map_or_else(|| targets::kind(object.kind()), Ok)?;
            let namespace = object.namespace().map(str::to_owned);
            objects.push((kind, Reference { namespace, ..session.reference(kind, object.name()) }));
        }
        return Ok(objects);
    }
    let mut objects = Vec::new();
    for target in targets::parse(&arguments.what)? {
        match target.name {
            Some(name) => objects.push((target.kind, session.reference(target.kind, &name))),
            None if arguments.selector.is_empty() => {
                return Err(Failure::usage(
                    "nothing was deleted",
                    format!("it was not said which {}", target.kind.plural),
                    "name them, or select them with -l",
                ));
            }
            None => {
                let filter = Filter { labels: arguments.selector.clone(), ..Filter::default() };
                let (_, found) = session.list(target.kind, &filter).await?;
                objects.extend(found.iter().map(|object| (target.kind, session.reference(target.kind, object.name()))));
            }
        }
    }
    Ok(objects)
}

async fn delete(session: &Session<'_>, object: &Reference, grace: Option<u32>) -> Result<Object, Refusal> {
    let request =
        Request::Delete { request: session.client.request_id(), object: object.clone(), grace_seconds: grace };
    session.change(request).await.map(|changed| changed.object)
}

async fn gone(
    session: &Session<'_>,
    kind: &Kind,
    object: &Reference,
    last: &Object,
    deadline: Option<Instant>,
) -> Result<(), Refusal> {
    let request = Request::Get { object: object.clone(), read: Freshness::Linearizable };
    loop {
        match session.client.ask(request.clone()).await {
            Err(refusal) if refusal.reason == Reason::NotFound => return Ok(()),
            Err(refusal) => return Err(refusal),
            Ok(Answer::Objects { objects, .. }) => {
                let there = objects.first().map(output::read).transpose()?;
                if there.is_none_or(|there| there.uid() != last.uid()) {
                    return Ok(());
                }
            }
            Ok(answer) => return Err(unexpected(&request, &answer)),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let name = qualified_name(kind, &object.name);
            let because = "it is being deleted, but was still there when the time was over";
            return Err(Refusal::new(Reason::Timeout, format!("{name} is not gone"), because)
                .hint(format!("`quorate describe {name}` shows what it waits for")));
        }
        sleep(LOOK).await;
    }
}
