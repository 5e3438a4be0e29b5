//! `quorate logs`: prints what pods wrote.
//!
//! Invariant: of one log alone, bytes are passed on as they come, unchanged, since a log is not always text; several logs are mixed only
//! at the ends of lines.

mod follow;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt as _, TryStreamExt as _, future,
    stream::{self, BoxStream},
};
use quorate_proto::{
    k8s::apimachinery::pkg::apis::meta::v1::LabelSelector,
    kinds::{PODS, SERVICES},
    object::Object,
    refusal::{Reason, Refusal},
    request::{self, Answer, Read, Request},
    selector::Selector,
};
use serde_json::Value;

use crate::{
    args::Logs,
    client::unexpected,
    failure::Failure,
    output::qualified_name,
    session::{Filter, Session},
    targets::{self, Target},
};

/// How many lines of each pod are shown if pods are selected by label and nothing else is said, as with `kubectl`.
const TAIL: i64 = 10;

/// The longest line that is kept whole, in bytes, when several logs are mixed.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes of logs, as they come.
type Log = BoxStream<'static, Result<Bytes, Refusal>>;

/// One container's log.
#[derive(Debug, Clone)]
struct Source {
    pod: String,
    /// `None`: the only one the pod has.
    container: Option<String>,
}

pub(crate) async fn run(session: &mut Session<'_>, arguments: Logs) -> Result<(), Failure> {
    let sources = sources(session, &arguments).await?;
    let many = sources.len() > 1;
    if arguments.follow && sources.len() > arguments.max_log_requests {
        let because = format!(
            "{} containers would be followed at once, the limit is {}",
            sources.len(),
            arguments.max_log_requests
        );
        return Err(Failure::usage("no log was read", because, "--max-log-requests raises the limit"));
    }
    if arguments.follow && many {
        let all = future::join_all(sources.iter().map(|source| open(session, &arguments, source))).await;
        let (mut logs, mut refusals) = (Vec::new(), Vec::new());
        for (source, opened) in sources.iter().zip(all) {
            match opened {
                Ok(log) => logs.push(lines(log, prefix(&arguments, source))),
                Err(refusal) => refusals.push(refusal),
            }
        }
        print(session, stream::select_all(logs).boxed(), &mut refusals).await?;
        return Failure::if_any(refusals);
    }
    let mut refusals = Vec::new();
    for source in &sources {
        let log = match open(session, &arguments, source).await {
            Ok(log) => log,
            Err(refusal) => {
                refusals.push(refusal);
                continue;
            }
        };
        let log = if many || arguments.prefix { lines(log, prefix(&arguments, source)) } else { log };
        print(session, log, &mut refusals).await?;
    }
    Failure::if_any(refusals)
}

/// Which logs are meant.
async fn sources(session: &mut Session<'_>, arguments: &Logs) -> Result<Vec<Source>, Failure> {
    let pods = match (&arguments.selector, &arguments.pod) {
        (Some(labels), _) => {
            let filter = Filter { labels: labels.clone(), ..Filter::default() };
            let (_, pods) = session.list(&PODS, &filter).await?;
            if pods.is_empty() {
                let namespace = session.namespace().to_owned();
                writeln!(session.console.err, "No resources found in {namespace} namespace.")?;
            }
            pods
        }
        (None, Some(word)) => {
            let target = match word.contains('/') {
                true => targets::one(word)?,
                false => Target { kind: &PODS, name: Some(word.clone()) },
            };
            let name = target.name.clone().unwrap_or_default();
            match (target.kind == &PODS, arguments.all_containers || arguments.prefix) {
                // What the pod has need not be known: whoever is asked knows its only container.
                (true, false) => return Ok(vec![Source { pod: name, container: arguments.container.clone() }]),
                (true, true) => vec![session.get(&PODS, &name, Read::Linearizable).await?],
                (false, _) => vec![one_of(session, &target, &name).await?],
            }
        }
        (None, None) => Vec::new(),
    };
    let sources = pods.iter().flat_map(|pod| {
        let containers = match (arguments.all_containers, &arguments.container, &names(pod, "containers")[..]) {
            (true, _, regular) => names(pod, "initContainers").iter().chain(regular).cloned().map(Some).collect(),
            (false, None, [only]) => vec![Some(only.clone())],
            (false, named, _) => vec![named.clone()],
        };
        containers.into_iter().map(|container| Source { pod: pod.name().to_owned(), container })
    });
    Ok(sources.collect())
}

/// One pod of what has several: the one whose log is likely to say most, as `kubectl` chooses.
async fn one_of(session: &mut Session<'_>, target: &Target, name: &str) -> Result<Object, Failure> {
    let owner = session.get(target.kind, name, Read::Linearizable).await?;
    let mut pods = match selector(target, &owner) {
        Some(labels) => session.list(&PODS, &Filter { labels, ..Filter::default() }).await?.1,
        None => Vec::new(),
    };
    pods.sort_by_key(|pod| {
        let is_running = pod.text(&["status", "phase"]) == Some("Running");
        (!is_running, !pod.is_true("Ready"), pod.name().to_owned())
    });
    let found = pods.len();
    let Some(first) = pods.into_iter().next() else {
        let what = format!("no log of {} was read", qualified_name(target.kind, name));
        return Err(Refusal::new(Reason::NotFound, what, "it has no pods").into());
    };
    if found > 1 {
        writeln!(session.console.err, "Found {found} pods, using pod/{}", first.name())?;
    }
    Ok(first)
}

/// Which pods belong to an object, as text; `None` if it has none.
fn selector(target: &Target, owner: &Object) -> Option<String> {
    let selector = match target.kind == &SERVICES {
        true => Selector::of_labels(owner.strings(&["spec", "selector"])),
        false => {
            let selector: LabelSelector = serde_json::from_value(owner.at(&["spec", "selector"])?.clone()).ok()?;
            Selector::of_label_selector(&selector).ok()?
        }
    };
    (!selector.is_empty()).then(|| selector.to_string())
}

/// The names of a pod's containers of one sort.
fn names(pod: &Object, field: &str) -> Vec<String> {
    let all = pod.at(&["spec", field]).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
}

async fn open(session: &Session<'_>, arguments: &Logs, source: &Source) -> Result<Log, Refusal> {
    let default = arguments.selector.as_ref().map_or(-1, |_| TAIL);
    let logs = request::Logs {
        namespace: session.namespace().to_owned(),
        pod: source.pod.clone(),
        container: source.container.clone(),
        follow: arguments.follow,
        previous: arguments.previous,
        tail: u32::try_from(arguments.tail.unwrap_or(default)).ok(),
        since_seconds: arguments.since.map(|since| u32::try_from(since.as_secs().max(1)).unwrap_or(u32::MAX)),
        timestamps: arguments.timestamps,
        forwarded: false,
    };
    if logs.follow {
        return Ok(follow::followed(&session.client, Arc::clone(&session.clock), logs));
    }
    let request = Request::Logs(logs);
    let answers = session.client.follow(&request).await?;
    let data = answers.try_take_while(|answer| future::ready(Ok(answer != &Answer::End))).and_then(move |answer| {
        future::ready(match answer {
            Answer::Data(bytes) => Ok(bytes),
            answer => Err(unexpected(&request, &answer)),
        })
    });
    Ok(data.boxed())
}

/// `[pod/web-1/app] `, as `kubectl` writes it, if it is asked for.
fn prefix(arguments: &Logs, source: &Source) -> String {
    let container = source.container.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    if arguments.prefix { format!("[pod/{}{container}] ", source.pod) } else { String::new() }
}

/// The same log in whole lines, each behind a prefix.
fn lines(log: Log, prefix: String) -> Log {
    let mut rest = BytesMut::new();
    let ended = stream::once(future::ready(Ok(None)));
    let whole = log.map_ok(Some).chain(ended).map_ok(move |bytes| {
        let mut whole = BytesMut::new();
        let mut line = |text: &[u8]| {
            whole.extend_from_slice(prefix.as_bytes());
            whole.extend_from_slice(text);
            if text.last() != Some(&b'\n') {
                whole.extend_from_slice(b"\n");
            }
        };
        rest.extend_from_slice(bytes.as_deref().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            line(&rest.split_to(end + 1));
        }
        if rest.len() > LONGEST_LINE || bytes.is_none() && !rest.is_empty() {
            line(&rest.split());
        }
        whole.freeze()
    });
    whole.boxed()
}

/// Prints logs to their ends; one that breaks off does not end the others.
async fn print(session: &mut Session<'_>, mut log: Log, refusals: &mut Vec<Refusal>) -> Result<(), Failure> {
    while let Some(bytes) = log.next().await {
        match bytes {
            Ok(bytes) => {
                session.console.out.write_all(&bytes)?;
                session.console.out.flush()?;
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
