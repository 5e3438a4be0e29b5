//! Stories: commands, and the cluster they lead to, as text. `UPDATE=1` rewrites the lower halves, and the diff is the review.
//!
//! ```text
//! # What it is about.
//! nodes 3
//! apply web replicas=3
//! settle
//! ----
//! web/1   n1  Ready
//! ```
//!
//! Invariant: a story is refused if it holds a word that means nothing.

use std::{fmt::Write as _, time::Duration};

use quorate_agent::runtime::simulated::Behaviour;
use quorate_proto::{
    object::Object,
    request::{Reference, Request},
    txn::Document,
};
use serde_json::json;

use super::{Sim, manifest};

/// What separates commands from what they lead to.
const LINE: &str = "----";

/// Runs a story and returns it as it came out.
///
/// # Panics
/// If the story holds a word that means nothing, or what must always hold does not.
pub async fn play(text: &str, mut sim: Sim) -> String {
    let mut told = String::new();
    let mut it = String::new();
    for (index, part) in text.split("\n\n").enumerate() {
        let (commands, _) = part.split_once(LINE).unwrap_or((part, ""));
        if index > 0 {
            told.push('\n');
        }
        let mut said = String::new();
        let mut shown = String::new();
        for line in commands.lines() {
            _ = writeln!(told, "{line}");
            let command = line.split('#').next().unwrap_or_default().trim();
            if command.is_empty() {
                continue;
            }
            if let Some(what) = command.strip_prefix("show ") {
                // Pods get their indexes first.
                _ = sim.pods();
                shown.push_str(&show(&mut sim, what).await);
            } else if let Err(refusal) = obey(&mut sim, command, &mut it).await {
                said.push_str(&refusal);
            }
        }
        if part.contains(LINE) {
            _ = writeln!(told, "{LINE}\n{}", format!("{said}{}{shown}", sim.pods()).trim_end());
        }
    }
    let wrong = sim.wrong();
    assert!(wrong.is_empty(), "what must always hold did not:\n{}", wrong.join("\n"));
    told
}

async fn show(sim: &mut Sim, what: &str) -> String {
    match what {
        "nodes" => sim.describe(),
        "containers" => sim.containers().await,
        "services" => sim.services(),
        "reasons" => sim.reasons(),
        _ => panic!("a story cannot show `{what}`"),
    }
}

/// Does what a line of a story says. A refusal is the text a user would get; a request that ends in ` &` is not waited for.
pub(super) async fn obey(sim: &mut Sim, command: &str, it: &mut String) -> Result<(), String> {
    let (command, meanwhile) = command.strip_suffix(" &").map_or((command, false), |command| (command, true));
    let words: Vec<&str> = command.split_whitespace().collect();
    if let Some(request) = request(sim, &words) {
        return if meanwhile {
            sim.ask_meanwhile(request);
            Ok(())
        } else {
            sim.ask(request).await.map(drop).map_err(|refusal| format!("{refusal}\n"))
        };
    }
    match words.as_slice() {
        ["nodes", count] => sim.nodes(number(count)).await,
        ["behave", image, settings @ ..] => sim.behave(image, &behaviour(settings)),
        ["never", name, "below", count] => sim.never_below(name, number(count)),
        ["run", time] => sim.pass(seconds(time)).await,
        ["settle"] => sim.settle().await,
        ["converge", time] => sim.converge(seconds(time)).await,
        ["via", name] => sim.via(name),
        ["answered"] => sim.answered().await,
        ["lossy", percent] => sim.lose(percent.parse().expect("a percentage")),
        ["part", one, other] => sim.part(one, other),
        ["block", from, to] => sim.block(from, to),
        [word, "all"] => {
            for name in sim.names() {
                strike(sim, word, &name).await;
            }
        }
        [word, name] => {
            match *name {
                "leader" => *it = sim.leader().expect("a leader"),
                "it" => {}
                name => name.clone_into(it),
            }
            strike(sim, word, it).await;
        }
        _ => panic!("a story knows no `{command}`"),
    }
    Ok(())
}

/// What a line asks of the cluster, if it asks for something.
fn request(sim: &Sim, words: &[&str]) -> Option<Request> {
    let request = sim.request_id();
    let apply = |object| {
        let object = Object::from_value(object).expect("an object").to_document();
        Request::Apply { request: sim.request_id(), object, dry_run: false }
    };
    Some(match words {
        ["apply", name, settings @ ..] => apply(manifest::deployment(name, settings)),
        ["configmap", name, settings @ ..] => apply(manifest::config_map(name, settings)),
        ["service", name] => apply(manifest::service(name)),
        ["scale", name, count] => {
            let replicas = u32::try_from(number(count)).unwrap_or(u32::MAX);
            Request::Scale { request, object: reference("deployment", name), replicas }
        }
        ["delete", kind, name] => Request::Delete { request, object: reference(kind, name), grace_seconds: None },
        [word @ ("cordon" | "uncordon"), name] => {
            let patch = Document(json!({"spec": {"unschedulable": *word == "cordon"}}).to_string().into());
            Request::Patch { request, object: reference("node", name), patch, dry_run: false }
        }
        _ => return None,
    })
}

/// Does something to a host.
async fn strike(sim: &mut Sim, word: &str, name: &str) {
    match word {
        "cut" => sim.cut(name),
        "freeze" => sim.freeze(name),
        "heal" => sim.heal(name),
        "kill" => sim.kill(name).await,
        "restart" => sim.restart(name).await,
        "start" => sim.start(name).await,
        _ => panic!("a story knows no `{word}`"),
    }
}

pub(super) fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').unwrap_or_else(|| panic!("`{text}` is no time: write 7s"));
    Duration::from_secs(number.parse().unwrap_or_else(|_| panic!("`{text}` is no time: write 7s")))
}

fn reference(kind: &str, name: &str) -> Reference {
    let namespace = (kind != "node").then(|| "default".to_owned());
    Reference { kind: kind.to_owned(), namespace, name: name.to_owned() }
}

/// What containers do: `exits=1 after=2s`, `unwell=no_database`, `start=5s`, `stop=60s`.
fn behaviour(settings: &[&str]) -> Behaviour {
    let mut behaviour = Behaviour::default();
    let (mut code, mut after) = (None, Duration::ZERO);
    for setting in settings {
        match setting.split_once('=') {
            Some(("exits", number)) => code = Some(number.parse().expect("an exit code")),
            Some(("after", time)) => after = seconds(time),
            Some(("unwell", why)) => behaviour.unwell = Some(why.replace('_', " ")),
            Some(("start", time)) => behaviour.start = seconds(time),
            Some(("stop", time)) => behaviour.stop = seconds(time),
            _ => panic!("containers in a story know no `{setting}`"),
        }
    }
    behaviour.exits = code.map(|code| (after, code));
    behaviour
}

/// What a story leads to wherever it settles, without what chance may decide: on which nodes pods are, and their numbers.
#[must_use]
pub fn settled(told: &str) -> String {
    let parts = told.split("\n\n").filter_map(|part| part.split_once(LINE));
    let settled = parts.filter(|(commands, _)| {
        let mut commands = commands.lines().map(str::trim);
        commands.rfind(|line| !line.is_empty() && !line.starts_with("show ")) == Some("settle")
    });
    let mut text = String::new();
    for (commands, pictures) in settled {
        let mut lines: Vec<String> = pictures.lines().map(placeless).collect();
        lines.sort();
        _ = writeln!(text, "{}\n{LINE}\n{}", commands.trim(), lines.join("\n"));
    }
    text
}

/// A line without the numbers of nodes, pods and containers.
fn placeless(line: &str) -> String {
    let numbered =
        |word: &str| word.len() > 1 && word.starts_with('n') && word[1..].chars().all(|digit| digit.is_ascii_digit());
    let words = line.split_whitespace().map(|word| match word.rsplit_once('/') {
        Some((owner, index)) if index.chars().all(|digit| digit.is_ascii_digit()) => format!("{owner}/…"),
        _ if numbered(word) => "n…".to_owned(),
        _ => word.to_owned(),
    });
    let words: Vec<String> = words.collect();
    match words.iter().position(|word| word == "container") {
        Some(at) if words.contains(&"runs".to_owned()) => words[..=at].join(" "),
        _ => words.join(" "),
    }
}
