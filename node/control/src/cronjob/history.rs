//! The jobs of a cron job: those at work, and those that are done.
//!
//! Invariant: only jobs that are done are removed for being too many, the oldest first.

use quorate_proto::{object::Object, snapshot::Stored};
use serde_json::{Value, json};

use super::wanted::Wanted;
use crate::pod::is_terminating;

/// The most jobs that one decision removes for being too many.
const CLEAN_UP: usize = 16;

/// The jobs of one cron job, oldest first.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    /// At work, and not about to be removed.
    pub(super) at_work: Vec<&'a Stored>,
    successful: Vec<&'a Stored>,
    failed: Vec<&'a Stored>,
    /// The one that is made by this decision.
    pub(super) made: Option<Object>,
}

impl<'a> History<'a> {
    /// Sorts the jobs of a cron job.
    pub(super) fn of(jobs: &[&'a Stored]) -> Self {
        let mut history = Self::default();
        for &job in jobs.iter().filter(|job| !is_terminating(&job.object)) {
            if job.object.is_true("Complete") {
                history.successful.push(job);
            } else if job.object.is_true("Failed") {
                history.failed.push(job);
            } else {
                history.at_work.push(job);
            }
        }
        for list in [&mut history.at_work, &mut history.successful, &mut history.failed] {
            list.sort_by_key(|job| (job.created, job.key.clone()));
        }
        history
    }

    /// Jobs that are done and beyond those that are kept.
    pub(super) fn beyond(&self, wanted: &Wanted) -> Vec<&'a Stored> {
        let beyond = |jobs: &[&'a Stored], kept: usize| jobs[..jobs.len().saturating_sub(kept)].to_vec();
        let mut jobs = beyond(&self.successful, wanted.successful);
        jobs.extend(beyond(&self.failed, wanted.failed));
        jobs.truncate(CLEAN_UP);
        jobs
    }

    /// The references of those at work, as `status.active` has them.
    pub(super) fn active(&self, namespace: Option<&str>) -> Vec<Value> {
        let jobs = self.at_work.iter().map(|job| &job.object).chain(&self.made);
        let reference = |job: &Object| {
            json!({
                "apiVersion": job.api_version(),
                "kind": job.kind(),
                "name": job.name(),
                "namespace": namespace,
                "uid": job.uid(),
            })
        };
        jobs.map(reference).collect()
    }

    /// When a job last succeeded, if that is news.
    pub(super) fn last_success(&self, cron: &Object) -> Option<String> {
        // Times in RFC 3339 with `Z` and whole seconds sort as texts.
        let last = self.successful.iter().filter_map(|job| job.object.text(&["status", "completionTime"])).max()?;
        let known = cron.text(&["status", "lastSuccessfulTime"]).unwrap_or_default();
        (last > known).then(|| last.to_owned())
    }
}
