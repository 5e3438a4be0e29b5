//! Defaults of the group `batch`.
//! Source: kubernetes `pkg/apis/batch/v1/defaults.go`.

use serde_json::{Map, Value};

use super::{inner, missing, pod};

/// Fills in the spec of a job.
pub(super) fn job(spec: &mut Map<String, Value>) {
    if !spec.contains_key("parallelism") {
        missing(spec, "completions", 1);
    }
    missing(spec, "parallelism", 1);
    missing(spec, "backoffLimit", 6);
    missing(spec, "completionMode", "NonIndexed");
    missing(spec, "suspend", false);
    missing(spec, "podReplacementPolicy", "TerminatingOrFailed");
    missing(spec, "manualSelector", false);
    if let Some(template) = inner(spec, "template").and_then(|template| inner(template, "spec")) {
        pod::spec(template);
    }
}

/// Fills in the spec of a cron job.
pub(super) fn cronjob(spec: &mut Map<String, Value>) {
    missing(spec, "concurrencyPolicy", "Allow");
    missing(spec, "suspend", false);
    missing(spec, "successfulJobsHistoryLimit", 3);
    missing(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = inner(spec, "jobTemplate").and_then(|template| inner(template, "spec")) {
        job(template);
    }
}
