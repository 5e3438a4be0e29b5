//! `quorate describe`: one object with all that matters about it, and what happened to it.
//!
//! Metadata comes first, then spec and status as nested fields, conditions as a table, events last. Pods have a layout of their own,
//! which is `kubectl`'s; nodes are shown with their pods, and what these take.
//!
//! Invariant: a field that is set is shown, also one this binary does not know; what is secret is shown only by its size.

mod fields;
mod node;
mod pod;

use quorate_proto::{
    kinds::{EVENTS, Kind, NODES, PODS, SECRETS},
    object::Object,
    refusal::Refusal,
    world::Timestamp,
};

use self::fields::Lines;
use crate::{
    args::Describe,
    commands::{events, get::find},
    failure::Failure,
    session::{Filter, Session},
    targets::{self, Target},
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Describe) -> Result<(), Failure> {
    let targets = targets::parse(&arguments.what)?;
    let filter = Filter::from(arguments.selectors);
    let everywhere = Filter { all_namespaces: true, ..Filter::default() };
    let ((found, refusals), events, pods) = session
        .show(async |session| {
            let (found, refusals) = find(session, &targets, &filter).await;
            let events = if found.is_empty() {
                Ok(Vec::new())
            } else {
                session.list(&EVENTS, &everywhere).await.map(|(_, events)| events)
            };
            let pods = pods_of(session, &found).await;
            ((found, refusals), events, pods)
        })
        .await?;
    let (events, pods) = (events?, pods?);
    if found.is_empty() && refusals.is_empty() {
        let namespace = session.namespace().to_owned();
        writeln!(session.console.err, "No resources found in {namespace} namespace.")?;
    }
    let now = session.clock.wall();
    for (index, (kind, object)) in found.iter().enumerate() {
        let gap = if index > 0 { "\n\n" } else { "" };
        write!(session.console.out, "{gap}{}", describe(kind, object, &events, &pods, now))?;
    }
    Failure::if_any(refusals)
}

/// The pods of the nodes that are described.
async fn pods_of(session: &Session<'_>, found: &[(&'static Kind, Object)]) -> Result<Vec<Object>, Refusal> {
    let mut nodes = found.iter().filter(|(kind, _)| *kind == &NODES).map(|(_, node)| node.name());
    let fields = match (nodes.next(), nodes.next()) {
        (None, _) => return Ok(Vec::new()),
        (Some(only), None) => format!("spec.nodeName={only}"),
        (Some(_), Some(_)) => String::new(),
    };
    let everywhere = Filter { all_namespaces: true, fields, ..Filter::default() };
    session.list(&PODS, &everywhere).await.map(|(_, pods)| pods)
}

/// An object as text.
fn describe(kind: &'static Kind, object: &Object, events: &[Object], pods: &[Object], now: Timestamp) -> String {
    let mut lines = Lines::default();
    if kind == &PODS {
        pod::describe(object, now, &mut lines);
    } else {
        lines.metadata(object);
        for (field, value) in object.as_map() {
            let secret = kind == &SECRETS && matches!(field.as_str(), "data" | "stringData");
            match field.as_str() {
                "apiVersion" | "kind" | "metadata" => {}
                _ if secret => lines.sizes(field, value),
                "status" => lines.status(value, now),
                field => lines.field(field, value),
            }
        }
    }
    if kind == &NODES {
        let bound = pods.iter().filter(|pod| pod.text(&["spec", "nodeName"]) == Some(object.name()));
        node::describe(object, &bound.cloned().collect::<Vec<_>>(), now, &mut lines);
    }
    let target = Target { kind, name: Some(object.name().to_owned()) };
    let mut about: Vec<_> = events
        .iter()
        .filter(|event| events::is_about(event, &target))
        .filter(|event| event.text(&["involvedObject", "uid"]).is_none_or(|uid| uid.is_empty() || uid == object.uid()))
        .filter(|event| !kind.namespaced || event.namespace() == object.namespace())
        .cloned()
        .collect();
    events::oldest_first(&mut about);
    lines.events(&about, now);
    lines.text()
}

#[cfg(test)]
mod tests;
