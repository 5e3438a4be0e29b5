//! What belongs to the job that made it: the labels by which a job's pods are known, and the names of what counts them.
//!
//! Invariant: a job's selector is its uid, so that it never takes the pods of another, not even of an earlier one of the same name.

use serde_json::json;

use crate::object::Object;

/// The label of a job's pods that names the job.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The label of a job's pods that has the job's uid.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same by their older names, which tools still look for.
pub const OLD_LABELS: [&str; 2] = ["job-name", "controller-uid"];
/// The finalizer that keeps a pod until its job has counted it.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The label and annotation of a pod of an indexed job that says which of its completions it works on.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation of a cron job's job that says which of its times it is for.
pub const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Gives a job that has its name and its uid the selector of its pods, and its template the labels that are selected by. What is there
/// already stays.
pub fn identify(job: &mut Object) {
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    if job.at(&["spec", "selector"]).is_none() {
        job.set(&["spec", "selector"], json!({"matchLabels": {CONTROLLER_UID: uid}}));
    }
    let [old_name, old_uid] = OLD_LABELS;
    for (label, value) in [(JOB_NAME, &name), (old_name, &name), (CONTROLLER_UID, &uid), (old_uid, &uid)] {
        let path = ["spec", "template", "metadata", "labels", label];
        if job.at(&path).is_none() {
            job.set(&path, value.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_the_pods_of_its_own_template() {
        let mut job = Object::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "uid": "u1"},
            "spec": {"template": {"metadata": {"labels": {"app": "once"}}}},
        }))
        .unwrap();
        identify(&mut job);
        let labels =
            json!({"app": "once", "job-name": "once", "controller-uid": "u1", JOB_NAME: "once", CONTROLLER_UID: "u1"});
        assert_eq!(job.at(&["spec", "template", "metadata", "labels"]), Some(&labels));
        assert_eq!(job.at(&["spec", "selector"]), Some(&json!({"matchLabels": {CONTROLLER_UID: "u1"}})));
        let before = job.clone();
        identify(&mut job);
        assert_eq!(job, before, "twice is once");
    }
}
