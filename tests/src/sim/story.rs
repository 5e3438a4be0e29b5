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

use quorate_proto::request::{Reference, Request};
use serde_json::{Value, json};

use super::Sim;

/// What separates commands from what they lead to.
const LINE: &str = "----";

/// Runs a story and returns it as it came out.
pub async fn play(text: &str, mut sim: Sim) -> String {
    let mut told = String::new();
    for (index, part) in text.split("\n\n").enumerate() {
        let (commands, _) = part.split_once(LINE).unwrap_or((part, ""));
        if index > 0 {
            told.push('\n');
        }
        let mut said = String::new();
        for line in commands.lines() {
            _ = writeln!(told, "{line}");
            let command = line.split('#').next().unwrap_or_default().trim();
            if !command.is_empty()
                && let Err(refusal) = obey(&mut sim, command).await
            {
                said.push_str(&refusal);
            }
        }
        if part.contains(LINE) {
            _ = writeln!(told, "{LINE}\n{said}{}", sim.pods().trim_end());
        }
    }
    told
}

async fn obey(sim: &mut Sim, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let shown = |refusal: quorate_proto::refusal::Refusal| format!("{refusal}\n");
    match words.as_slice() {
        ["nodes", count] => sim.nodes(number(count)).await,
        ["apply", name, settings @ ..] => sim.apply(deployment(name, settings)).await.map_err(shown)?,
        ["configmap", name, settings @ ..] => sim.apply(config_map(name, settings)).await.map_err(shown)?,
        ["scale", name, count] => {
            let replicas = u32::try_from(number(count)).unwrap_or(u32::MAX);
            let request = Request::Scale { request: sim.request_id(), object: reference("deployment", name), replicas };
            sim.ask(request).await.map(drop).map_err(shown)?;
        }
        ["delete", kind, name] => {
            let request =
                Request::Delete { request: sim.request_id(), object: reference(kind, name), grace_seconds: None };
            sim.ask(request).await.map(drop).map_err(shown)?;
        }
        ["cordon", name] => {
            let patch = quorate_proto::txn::Document(json!({"spec": {"unschedulable": true}}).to_string().into());
            let object = Reference { kind: "node".to_owned(), namespace: None, name: (*name).to_owned() };
            let request = Request::Patch { request: sim.request_id(), object, patch, dry_run: false };
            sim.ask(request).await.map(drop).map_err(shown)?;
        }
        ["cut", name] => sim.cut(&who(sim, name)),
        ["heal", name] => sim.heal(&who(sim, name)),
        ["kill", name] => sim.kill(&who(sim, name)).await,
        ["restart", name] => sim.restart(&who(sim, name)).await,
        ["start", name] => sim.start(&who(sim, name)).await,
        ["run", time] => sim.pass(seconds(time)).await,
        ["settle"] => sim.settle().await,
        _ => panic!("a story knows no `{command}`"),
    }
    Ok(())
}

fn who(sim: &Sim, name: &str) -> String {
    match name {
        "leader" => sim.leader().expect("a leader"),
        name => name.to_owned(),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').unwrap_or_else(|| panic!("`{text}` is no time: write 7s"));
    Duration::from_secs(number.parse().unwrap_or_else(|_| panic!("`{text}` is no time: write 7s")))
}

fn reference(kind: &str, name: &str) -> Reference {
    Reference { kind: kind.to_owned(), namespace: Some("default".to_owned()), name: name.to_owned() }
}

fn deployment(name: &str, settings: &[&str]) -> Value {
    let mut container = json!({"name": "app", "image": "app:1"});
    let mut pod = json!({});
    let mut replicas = 1;
    for setting in settings {
        match setting.split_once('=') {
            Some(("replicas", count)) => replicas = number(count),
            Some(("cpu" | "memory", amount)) => {
                let resource = setting.split('=').next().unwrap_or_default();
                container["resources"]["requests"][resource] = amount.into();
            }
            Some(("image", image)) => container["image"] = image.into(),
            Some(("on", value)) => pod["nodeSelector"] = json!({"kubernetes.io/hostname": value}),
            Some(("config", map)) => container["envFrom"] = json!([{"configMapRef": {"name": map}}]),
            _ => panic!("a deployment in a story knows no `{setting}`"),
        }
    }
    pod["containers"] = json!([container]);
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    })
}

fn config_map(name: &str, settings: &[&str]) -> Value {
    let data: serde_json::Map<String, Value> = settings
        .iter()
        .filter_map(|setting| setting.split_once('='))
        .map(|(field, value)| (field.to_owned(), value.into()))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
}
