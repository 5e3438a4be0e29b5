//! The group `batch`.
//! Source: kubernetes `pkg/apis/batch/validation/validation.go`, as far as fields are honoured.

use quorate_proto::{
    cron::{Schedule, ScheduleError},
    job::{CONTROLLER_UID, JOB_NAME, OLD_LABELS},
    k8s::api::{
        batch::v1::{CronJob, Job, JobSpec},
        core::v1::PodTemplateSpec,
    },
    object::Object,
};

use super::{labels, names, pod, rules};
use crate::message::{Problem, cut};

/// The most pods of one job, at once and in all.
const MAX_PODS: i32 = 100_000;

/// How long the name of a job may be: it becomes a label of its pods.
const MAX_JOB_NAME: usize = 63;

/// How long the name of a cron job may be: its jobs add the minute they are for.
const MAX_CRONJOB_NAME: usize = 52;

pub(super) fn job(job: &Job, problems: &mut Vec<Problem>) {
    let Some(spec) = &job.spec else {
        problems.push(Problem::new("spec", "is missing: a job needs the template of its pods"));
        return;
    };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if name.len() > MAX_JOB_NAME {
        let sentence = format!("has {} characters, at most {MAX_JOB_NAME} are allowed: it becomes a label", name.len());
        problems.push(Problem::new("metadata.name", sentence));
    }
    if spec.completion_mode.as_deref() == Some("Indexed") {
        let last = spec.completions.unwrap_or(1).saturating_sub(1).max(0);
        if let Err(sentence) = names::label(&format!("{name}-{last}")) {
            problems.push(Problem::new("metadata.name", format!("with the index of a completion {sentence}")));
        }
    }
    self::spec("spec", spec, problems);
}

pub(super) fn cronjob(cron: &CronJob, problems: &mut Vec<Problem>) {
    let Some(spec) = &cron.spec else {
        problems.push(Problem::new("spec", "is missing: a cron job needs a schedule and the template of its jobs"));
        return;
    };
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    if name.len() > MAX_CRONJOB_NAME {
        let sentence = format!(
            "has {} characters, at most {MAX_CRONJOB_NAME} are allowed: the names of its jobs add the minute they are for",
            name.len()
        );
        problems.push(Problem::new("metadata.name", sentence));
    }
    match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(_) => {}
        Err(ScheduleError::Zone) => {
            let zone = cut(spec.time_zone.as_deref().unwrap_or_default());
            let problem = Problem::new("spec.timeZone", format!("`{zone}` {}", ScheduleError::Zone));
            problems.push(problem.hint("write a name such as `Europe/Berlin` or `Etc/UTC`"));
        }
        Err(error) => {
            let problem = Problem::new("spec.schedule", cut(&error.to_string()));
            problems.push(problem.hint("`30 2 * * 1-5` is half past two from Monday to Friday"));
        }
    }
    let policies = ["Allow", "Forbid", "Replace"];
    rules::one_of("spec.concurrencyPolicy", spec.concurrency_policy.as_deref(), &policies, problems);
    for (field, value) in [
        ("startingDeadlineSeconds", spec.starting_deadline_seconds),
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
    ] {
        rules::not_negative(&format!("spec.{field}"), value, problems);
    }
    match &spec.job_template.spec {
        Some(job) => self::spec("spec.jobTemplate.spec", job, problems),
        None => problems.push(Problem::new("spec.jobTemplate.spec", "is missing")),
    }
}

/// What must not be in the template of jobs, because each job gets its own.
pub(super) fn template_of_jobs(cron: &Object, problems: &mut Vec<Problem>) {
    made_here(cron, "spec.jobTemplate.spec", problems);
}

/// What must not be in a job that is being made, because the cluster puts it there.
pub(super) fn new_job(job: &Object, problems: &mut Vec<Problem>) {
    made_here(job, "spec", problems);
    let labels = job.strings(&["spec", "template", "metadata", "labels"]);
    let [old_name, _] = OLD_LABELS;
    for label in [JOB_NAME, old_name] {
        if labels.get(label).is_some_and(|given| *given != job.name()) {
            let problem =
                Problem::new("spec.template.metadata.labels", format!("has `{label}`, and not the job's name"));
            problems.push(problem.hint("leave it out"));
        }
    }
}

/// The selector and the uid in the labels of the job's template, at `path`.
fn made_here(object: &Object, path: &str, problems: &mut Vec<Problem>) {
    let parts: Vec<&str> = path.split('.').collect();
    let at = |rest: &[&str]| object.at(&parts.iter().copied().chain(rest.iter().copied()).collect::<Vec<_>>());
    if at(&["selector"]).is_some() {
        let problem = Problem::new(&format!("{path}.selector"), "is made by the cluster: a job selects its own pods");
        problems.push(problem.hint("leave it out"));
    }
    let [_, old_uid] = OLD_LABELS;
    for label in [CONTROLLER_UID, old_uid] {
        if at(&["template", "metadata", "labels", label]).is_some() {
            let sentence = format!("has `{label}`, which the cluster sets to the job's uid");
            problems.push(Problem::new(&format!("{path}.template.metadata.labels"), sentence).hint("leave it out"));
        }
    }
}

fn spec(path: &str, spec: &JobSpec, problems: &mut Vec<Problem>) {
    for (field, value) in [("parallelism", spec.parallelism), ("completions", spec.completions)] {
        if let Some(value) = value {
            rules::number(&format!("{path}.{field}"), value, 0..=MAX_PODS, problems);
        }
    }
    for (field, value) in [
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
    ] {
        rules::not_negative(&format!("{path}.{field}"), value, problems);
    }
    let mode = spec.completion_mode.as_deref();
    rules::one_of(&format!("{path}.completionMode"), mode, &["NonIndexed", "Indexed"], problems);
    if mode == Some("Indexed") && spec.completions.is_none() {
        let sentence = "must be there where `completionMode` is `Indexed`: each completion has a number";
        problems.push(Problem::new(&format!("{path}.completions"), sentence));
    }
    let policies = ["TerminatingOrFailed", "Failed"];
    let policy = spec.pod_replacement_policy.as_deref();
    rules::one_of(&format!("{path}.podReplacementPolicy"), policy, &policies, problems);
    template(&format!("{path}.template"), &spec.template, problems);
}

fn template(path: &str, template: &PodTemplateSpec, problems: &mut Vec<Problem>) {
    let own = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    let pairs = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    labels(&format!("{path}.metadata.labels"), pairs, problems);
    let Some(spec) = &template.spec else {
        problems.push(Problem::new(&format!("{path}.spec"), "is missing"));
        return;
    };
    pod::spec(&format!("{path}.spec"), spec, problems);
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if !["OnFailure", "Never"].contains(&policy) {
        let sentence =
            format!("must be `Never` or `OnFailure`, not `{}`: these pods are to come to an end", cut(policy));
        problems.push(Problem::new(&format!("{path}.spec.restartPolicy"), sentence).hint(
            "with `Never` a pod that fails is replaced by another, with `OnFailure` its container is started again",
        ));
    }
}
