//! The group `apps`.

use quorate_proto::{
    k8s::{
        api::{
            apps::v1::{DaemonSet, Deployment, ReplicaSet},
            core::v1::PodTemplateSpec,
        },
        apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
    },
    selector::Selector,
};

use super::{labels, pod, rules};
use crate::message::{Problem, cut};

/// The most replicas of one deployment or replica set: beyond what a cluster of this size can run.
const MAX_REPLICAS: i32 = 100_000;

pub(super) fn deployment(deployment: &Deployment, problems: &mut Vec<Problem>) {
    let Some(spec) = &deployment.spec else {
        problems.push(Problem::new("spec", "is missing"));
        return;
    };
    replicas(spec.replicas, problems);
    selected(&spec.selector, &spec.template, problems);
    rules::not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from), problems);
    rules::not_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from), problems);
    if let (Some(deadline), ready) = (spec.progress_deadline_seconds, spec.min_ready_seconds.unwrap_or_default())
        && deadline <= ready
    {
        problems.push(Problem::new("spec.progressDeadlineSeconds", "must be more than `minReadySeconds`"));
    }
    let Some(strategy) = &spec.strategy else { return };
    rules::one_of("spec.strategy.type", strategy.type_.as_deref(), &["RollingUpdate", "Recreate"], problems);
    let Some(rolling) = &strategy.rolling_update else { return };
    if strategy.type_.as_deref() == Some("Recreate") {
        problems.push(Problem::new("spec.strategy.rollingUpdate", "must not be there where the type is `Recreate`"));
    }
    let mut amount = |field: &str, amount: &Option<IntOrString>| {
        let path = format!("spec.strategy.rollingUpdate.{field}");
        amount.as_ref().map_or(Some(0), |amount| share(&path, amount, field, problems))
    };
    let amounts = [amount("maxUnavailable", &rolling.max_unavailable), amount("maxSurge", &rolling.max_surge)];
    if amounts == [Some(0), Some(0)] {
        let sentence = "must not be 0 together with `maxSurge`: nothing could ever be replaced";
        problems.push(Problem::new("spec.strategy.rollingUpdate.maxUnavailable", sentence));
    }
}

pub(super) fn replicaset(set: &ReplicaSet, problems: &mut Vec<Problem>) {
    let Some(spec) = &set.spec else {
        problems.push(Problem::new("spec", "is missing"));
        return;
    };
    replicas(spec.replicas, problems);
    rules::not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from), problems);
    match &spec.template {
        Some(template) => selected(&spec.selector, template, problems),
        None => problems.push(Problem::new("spec.template", "is missing")),
    }
}

pub(super) fn daemonset(set: &DaemonSet, problems: &mut Vec<Problem>) {
    let Some(spec) = &set.spec else {
        problems.push(Problem::new("spec", "is missing"));
        return;
    };
    selected(&spec.selector, &spec.template, problems);
    rules::not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from), problems);
    rules::not_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from), problems);
    let Some(strategy) = &spec.update_strategy else { return };
    let types = ["RollingUpdate", "OnDelete"];
    rules::one_of("spec.updateStrategy.type", strategy.type_.as_deref(), &types, problems);
    let Some(rolling) = &strategy.rolling_update else { return };
    if strategy.type_.as_deref() == Some("OnDelete") {
        problems
            .push(Problem::new("spec.updateStrategy.rollingUpdate", "must not be there where the type is `OnDelete`"));
    }
    let path = "spec.updateStrategy.rollingUpdate.maxUnavailable";
    if let Some(amount) = &rolling.max_unavailable
        && share(path, amount, "maxUnavailable", problems) == Some(0)
    {
        problems.push(Problem::new(path, "must not be 0: nothing could ever be replaced"));
    }
}

fn replicas(replicas: Option<i32>, problems: &mut Vec<Problem>) {
    if let Some(replicas) = replicas {
        rules::number("spec.replicas", replicas, 0..=MAX_REPLICAS, problems);
    }
}

/// A selector that selects exactly what the template makes: otherwise pods would be made without end.
fn selected(selector: &LabelSelector, template: &PodTemplateSpec, problems: &mut Vec<Problem>) {
    let own = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels("spec.template.metadata.labels", own.iter().map(|(key, value)| (key.as_str(), value.as_str())), problems);
    match Selector::of_label_selector(selector) {
        Err(error) => problems.push(Problem::new("spec.selector", format!("is no selector: {error}"))),
        Ok(selector) if selector.is_empty() => {
            let problem = Problem::new("spec.selector", "must select something");
            problems.push(problem.hint("repeat the template's labels in `matchLabels`"));
        }
        Ok(selector) if !selector.matches(|label| own.get(label).map(String::as_str)) => {
            let sentence =
                format!("does not have the labels that the selector asks for: `{}`", cut(&selector.to_string()));
            problems.push(Problem::new("spec.template.metadata.labels", sentence));
        }
        Ok(_) => {}
    }
    match &template.spec {
        Some(spec) => {
            pod::spec("spec.template.spec", spec, problems);
            if spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
                let sentence = "must be `Always`: these pods are to run until they are deleted";
                problems.push(Problem::new("spec.template.spec.restartPolicy", sentence));
            }
        }
        None => problems.push(Problem::new("spec.template.spec", "is missing")),
    }
}

/// A number of pods, or a percentage of them.
fn share(path: &str, amount: &IntOrString, field: &str, problems: &mut Vec<Problem>) -> Option<i32> {
    let (number, percent) = match amount {
        IntOrString::Int(number) => (Some(*number), false),
        IntOrString::String(text) => (text.strip_suffix('%').and_then(|number| number.parse().ok()), true),
    };
    match number.filter(|number| *number >= 0 && (!percent || field == "maxSurge" || *number <= 100)) {
        Some(number) => Some(number),
        None => {
            let most = if field == "maxSurge" { "" } else { " of at most 100%" };
            problems.push(Problem::new(path, format!("must be a number of pods or a percentage{most}: `1` or `25%`")));
            None
        }
    }
}
