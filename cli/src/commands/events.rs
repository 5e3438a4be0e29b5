//! `quorate events`: what happened, oldest first.
//!
//! Invariant: the order is that of the last time something happened, so the newest is always at the bottom.

use quorate_proto::{
    kinds::EVENTS,
    object::Object,
    request::{Answer, EventKind, Shape},
    world::Timestamp,
};

use crate::{
    age,
    args::Events,
    failure::Failure,
    output::{self, Aligned},
    session::{Filter, Session},
    targets::{self, Target},
    watching::Told,
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Events) -> Result<(), Failure> {
    let of = arguments.of.as_deref().map(targets::one).transpose()?;
    let filter = Filter { all_namespaces: arguments.all_namespaces, ..Filter::default() };
    let mut aligned = Aligned::default();
    let headings = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned);
    let with_namespace = |event: Option<&Object>, cells: Vec<String>| -> Vec<String> {
        let namespace = event.map_or("NAMESPACE", |event| event.namespace().unwrap_or_default());
        filter.all_namespaces.then(|| namespace.to_owned()).into_iter().chain(cells).collect()
    };

    if arguments.watch {
        let selection = session.selection(&EVENTS, &filter, Shape::Objects);
        let (mut watching, mut next) = session.watch(selection).await?;
        aligned.print(&[with_namespace(None, headings.to_vec())], session.console.out)?;
        while let Some(told) = next? {
            let answers = match told {
                Told::Changes(answers) => answers,
                Told::Compacted => {
                    session.note_compacted()?;
                    Vec::new()
                }
            };
            let mut events = Vec::new();
            for answer in answers {
                match answer {
                    Answer::Event { kind: EventKind::Deleted, .. } => {}
                    Answer::Event { object, .. } => events.push(output::read(&object)?),
                    answer => return Err(watching.unexpected(&answer).into()),
                }
            }
            events.retain(|event| of.as_ref().is_none_or(|of| is_about(event, of)));
            oldest_first(&mut events);
            let now = session.clock.wall();
            let rows: Vec<_> = events.iter().map(|event| with_namespace(Some(event), cells(event, now))).collect();
            aligned.print(&rows, session.console.out)?;
            next = watching.next().await;
        }
        return Ok(());
    }

    let (_, mut events) = session.show(async |session| session.list(&EVENTS, &filter).await).await??;
    events.retain(|event| of.as_ref().is_none_or(|of| is_about(event, of)));
    if events.is_empty() {
        match filter.all_namespaces {
            true => writeln!(session.console.err, "No events found")?,
            false => {
                let namespace = session.namespace().to_owned();
                writeln!(session.console.err, "No events found in {namespace} namespace.")?;
            }
        }
        return Ok(());
    }
    oldest_first(&mut events);
    let now = session.clock.wall();
    let rows = events.iter().map(|event| with_namespace(Some(event), cells(event, now)));
    let rows: Vec<_> = std::iter::once(with_namespace(None, headings.to_vec())).chain(rows).collect();
    aligned.print(&rows, session.console.out)?;
    Ok(())
}

/// Whether an event is about an object.
pub(crate) fn is_about(event: &Object, target: &Target) -> bool {
    event.text(&["involvedObject", "kind"]) == Some(target.kind.kind)
        && target.name.as_deref().is_none_or(|name| event.text(&["involvedObject", "name"]) == Some(name))
}

/// Sorts events by the last time they happened.
pub(crate) fn oldest_first(events: &mut [Object]) {
    events.sort_by(|one, two| last_seen(one).cmp(&last_seen(two)).then_with(|| one.name().cmp(two.name())));
}

fn last_seen(event: &Object) -> Option<&str> {
    event.text(&["lastTimestamp"]).or_else(|| event.text(&["eventTime"])).or_else(|| event.creation_timestamp())
}

/// How long ago an event happened, and how often: `5s (x3 over 2m)`.
pub(crate) fn seen(event: &Object, now: Timestamp) -> String {
    let last = age::since(last_seen(event), now);
    match event.at(&["count"]).and_then(serde_json::Value::as_i64) {
        Some(count) if count > 1 => {
            format!("{last} (x{count} over {})", age::since(event.text(&["firstTimestamp"]), now))
        }
        _ => last,
    }
}

fn cells(event: &Object, now: Timestamp) -> Vec<String> {
    let text = |path: &[&str]| event.text(path).unwrap_or_default();
    let object = format!("{}/{}", text(&["involvedObject", "kind"]).to_lowercase(), text(&["involvedObject", "name"]));
    vec![
        seen(event, now),
        text(&["type"]).to_owned(),
        text(&["reason"]).to_owned(),
        object,
        text(&["message"]).trim_end().to_owned(),
    ]
}
