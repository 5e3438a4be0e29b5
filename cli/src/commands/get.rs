//! `quorate get`: objects, as tables, JSON, YAML or names.
//!
//! Tables are made by the node that answers, from the registry of kinds; here they are only joined and aligned.
//!
//! Invariant: what was found is shown even if something else was not; then the exit code tells.

use quorate_proto::{
    kinds::{KINDS, Kind},
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, Shape, Table},
};
use serde_json::{Value, json};

use crate::{
    args::{Get, Output},
    failure::Failure,
    output::{self, Aligned, TableStyle},
    session::{Filter, Session},
    targets::{self, Target},
    watching::Told,
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Get) -> Result<(), Failure> {
    let targets = targets::parse(&arguments.what)?;
    let filter = Filter { stale: arguments.stale, ..Filter::from(arguments.selectors) };
    if targets.iter().any(|target| target.name.is_some()) && filter.all_namespaces {
        return Err(Failure::usage(
            "nothing was asked",
            "a name is only known within a namespace, and -A means all of them",
            "leave out -A or the names",
        ));
    }
    if arguments.watch {
        return watch(session, &targets, &filter, arguments.output).await;
    }
    match arguments.output {
        Output::Table | Output::Wide => tables(session, &targets, &filter, arguments.output == Output::Wide).await,
        output => whole(session, &targets, &filter, output).await,
    }
}

fn kinds(targets: &[Target]) -> Vec<&'static Kind> {
    KINDS.iter().copied().filter(|kind| targets.iter().any(|target| target.kind == *kind)).collect()
}

fn not_found(kind: &Kind, name: &str) -> Refusal {
    Refusal::new(
        Reason::NotFound,
        format!("{} was not found", output::qualified_name(kind, name)),
        format!("there is no {} `{name}` here", kind.singular),
    )
}

async fn tables(session: &mut Session<'_>, targets: &[Target], filter: &Filter, wide: bool) -> Result<(), Failure> {
    let several = kinds(targets).len() > 1;
    let (mut found, refusals) = session.show(async |session| find_tables(session, targets, filter).await).await?;
    found.retain(|(_, table)| !table.rows.is_empty());
    for (index, (kind, table)) in found.iter().enumerate() {
        if index > 0 {
            writeln!(session.console.out)?;
        }
        let style =
            TableStyle { namespaces: filter.all_namespaces && kind.namespaced, wide, kind: several.then_some(*kind) };
        let rows = table.rows.iter().map(|row| style.cells(&table.columns, row));
        let lines: Vec<_> = std::iter::once(style.headings(&table.columns)).chain(rows).collect();
        Aligned::default().print(&lines, session.console.out)?;
    }
    if found.is_empty() && refusals.is_empty() {
        nothing(session, targets, filter)?;
    }
    Failure::if_any(refusals)
}

/// The tables of what is there, and why others are not.
async fn find_tables(
    session: &Session<'_>,
    targets: &[Target],
    filter: &Filter,
) -> (Vec<(&'static Kind, Table)>, Vec<Refusal>) {
    let mut found: Vec<(&'static Kind, Table)> = Vec::new();
    let mut refusals = Vec::new();
    for target in targets {
        let filter = target.name.as_deref().map_or_else(|| filter.clone(), |name| filter.named(name));
        match (session.table(target.kind, &filter).await, &target.name) {
            (Ok(table), Some(name)) if table.rows.is_empty() => refusals.push(not_found(target.kind, name)),
            (Ok(table), _) => match found.last_mut().filter(|(kind, _)| *kind == target.kind) {
                Some((_, whole)) => whole.rows.extend(table.rows),
                None => found.push((target.kind, table)),
            },
            (Err(refusal), _) => refusals.push(refusal),
        }
    }
    (found, refusals)
}

fn nothing(session: &mut Session<'_>, targets: &[Target], filter: &Filter) -> Result<(), Failure> {
    if !filter.all_namespaces && targets.iter().any(|target| target.kind.namespaced) {
        let namespace = session.namespace().to_owned();
        writeln!(session.console.err, "No resources found in {namespace} namespace.")?;
    } else {
        writeln!(session.console.err, "No resources found")?;
    }
    Ok(())
}

async fn whole(session: &mut Session<'_>, targets: &[Target], filter: &Filter, output: Output) -> Result<(), Failure> {
    let (found, refusals) = session.show(async |session| find(session, targets, filter).await).await?;
    let found: Vec<_> = found.into_iter().map(|(_, object)| object).collect();
    let one = matches!(targets, [Target { name: Some(_), .. }]);
    if !found.is_empty() || refusals.is_empty() {
        print(session, found, one, output)?;
    }
    Failure::if_any(refusals)
}

fn print(session: &mut Session<'_>, mut found: Vec<Object>, one: bool, output: Output) -> Result<(), Failure> {
    if output == Output::Name {
        for object in &found {
            writeln!(session.console.out, "{}", output::object_name(object))?;
        }
        return Ok(());
    }
    let value = match found.pop() {
        Some(object) if one => object.into_value(),
        last => {
            found.extend(last);
            let items: Vec<Value> = found.into_iter().map(Object::into_value).collect();
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
        }
    };
    match output {
        Output::Yaml => output::yaml(&value, session.console.out),
        _ => output::json(&value, session.console.out),
    }
}

/// The objects that are there, and why others are not.
pub(super) async fn find(
    session: &Session<'_>,
    targets: &[Target],
    filter: &Filter,
) -> (Vec<(&'static Kind, Object)>, Vec<Refusal>) {
    let mut found = Vec::new();
    let mut refusals = Vec::new();
    for target in targets {
        let answer = match &target.name {
            Some(name) => session.get(target.kind, name, filter.read()).await.map(|object| vec![object]),
            None => session.list(target.kind, filter).await.map(|(_, objects)| objects),
        };
        match answer {
            Ok(objects) => found.extend(objects.into_iter().map(|object| (target.kind, object))),
            Err(refusal) => refusals.push(refusal),
        }
    }
    (found, refusals)
}

/// Shows what there is, then every change, until the watch ends.
async fn watch(session: &mut Session<'_>, targets: &[Target], filter: &Filter, output: Output) -> Result<(), Failure> {
    let [target] = targets else {
        return Err(Failure::usage(
            "nothing is watched",
            "only one kind, or one object, can be watched at a time",
            "name one kind, and select with -l or --field-selector",
        ));
    };
    let filter = target.name.as_deref().map_or_else(|| filter.clone(), |name| filter.named(name));
    let as_table = matches!(output, Output::Table | Output::Wide);
    let shape = if as_table { Shape::Table } else { Shape::Objects };
    let selection = session.selection(target.kind, &filter, shape);
    let (mut watching, mut next) = session.watch(selection).await?;

    let style = TableStyle {
        namespaces: filter.all_namespaces && target.kind.namespaced,
        wide: output == Output::Wide,
        kind: None,
    };
    let (mut aligned, mut columns) = (Aligned::default(), Vec::new());
    while let Some(told) = next? {
        let answers = match told {
            Told::Changes(answers) => answers,
            Told::Compacted => {
                session.note_compacted()?;
                Vec::new()
            }
        };
        let mut lines = Vec::new();
        for answer in answers {
            match answer {
                Answer::Table(table) => {
                    if columns.is_empty() && !table.columns.is_empty() {
                        columns = table.columns;
                        lines.push(style.headings(&columns));
                    }
                    lines.extend(table.rows.iter().map(|row| style.cells(&columns, row)));
                }
                Answer::Event { object, .. } => print(session, vec![output::read(&object)?], true, output)?,
                answer => return Err(watching.unexpected(&answer).into()),
            }
        }
        aligned.print(&lines, session.console.out)?;
        next = watching.next().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        args::{Arguments, Verb},
        client::tests::Recorded,
        session::tests::{document, not_found, objects, run as run_in, table},
    };
    use quorate_proto::request::EventKind;

    const PODS: &[&str] = &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "+IP", "+NODE"];
    const WEB_1: &[&str] = &["web-1", "1/1", "Running", "0", "5m", "10.214.1.2", "n1"];
    const WEB_2: &[&str] = &["web-2-with-a-long-name", "0/1", "ContainerCreating", "0", "5s", "<none>", "n2"];

    async fn typed(line: &str, answers: impl IntoIterator<Item = Result<Vec<Answer>, Refusal>>) -> String {
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Verb::Get(get) = arguments.verb else { panic!("another verb") };
        let printed = run_in(&Recorded::new(answers), async |session| run(session, get).await).await;
        format!("$ {line}\n{printed}")
    }

    #[tokio::test(start_paused = true)]
    async fn tables_read_as_kubectl_prints_them() {
        let pods = || Ok(vec![table(PODS, &[WEB_1]), table(&[], &[WEB_2]), Answer::End]);
        let services = || Ok(vec![table(&["NAME", "TYPE"], &[&["web", "ClusterIP"]]), Answer::End]);
        let empty = || Ok(vec![table(PODS, &[]), Answer::End]);
        insta::assert_snapshot!(
            [
                typed("quorate get pods", [pods()]).await,
                typed("quorate get pods -o wide", [pods()]).await,
                typed("quorate get pods -A", [pods()]).await,
                typed("quorate get pods,svc", [pods(), services()]).await,
                typed("quorate get pods", [empty()]).await,
                typed("quorate get pods -A", [empty()]).await,
                typed("quorate get nodes", [empty()]).await,
                typed("quorate get pods -w", [pods()]).await,
            ]
            .join("\n")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_refused_after_what_is_there_was_shown() {
        let found = Ok(vec![table(PODS, &[WEB_1]), Answer::End]);
        let empty = Ok(vec![table(PODS, &[]), Answer::End]);
        insta::assert_snapshot!(
            [
                typed("quorate get pod web-1 web-9", [found, empty]).await,
                typed("quorate get pod web-9 -o yaml", [Ok(vec![Answer::Refused(not_found("pod/web-9"))])]).await,
                typed("quorate get pod web-9 -A", []).await,
                typed("quorate get pod,svc -w", []).await,
            ]
            .join("\n")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn objects_are_printed_whole_or_by_name() {
        let web =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "resourceVersion": "7"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        let event = Answer::Event { kind: EventKind::Added, object: document(&pod) };
        insta::assert_snapshot!(
            [
                typed("quorate get deploy web -o yaml", [Ok(vec![objects(std::slice::from_ref(&web))])]).await,
                typed("quorate get deploy -o json", [Ok(vec![objects(std::slice::from_ref(&web)), Answer::End])]).await,
                typed("quorate get deploy/web pod/a -o name", [Ok(vec![objects(&[web])]), Ok(vec![objects(&[pod])])])
                    .await,
                typed("quorate get pods -w -o name", [Ok(vec![event, Answer::End])]).await,
            ]
            .join("\n")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_quorum_is_exit_code_3() {
        let refusal =
            Refusal::new(Reason::Unavailable, "pods were not read", "there is no leader: 1 of 3 voters is reachable")
                .hint("start the other nodes; `--stale` shows what this node has");
        let answers = vec![Ok(vec![Answer::Refused(refusal)]); 20];
        insta::assert_snapshot!(typed("quorate get pods", answers).await);
    }
}
