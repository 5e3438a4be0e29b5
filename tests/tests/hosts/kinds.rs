//! Daemon sets, jobs and cron jobs, on real engines.

use std::time::Duration;

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods,
    wait::{so, until},
};

/// A cron job is due at the next full minute.
const MINUTE: Duration = Duration::from_secs(60);

const DAEMON: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: agent
spec:
  selector:
    matchLabels: {app: agent}
  template:
    metadata:
      labels: {app: agent}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: agent
          image: shop/hello:1
";

/// A job whose pods run a command.
fn job(name: &str, spec: &str, command: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
{spec}
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: work
          image: shop/hello:1
          command: [sh, -c, '{command}']
"
    )
}

const CRON: &str = "
apiVersion: batch/v1
kind: CronJob
metadata:
  name: minutely
spec:
  schedule: '* * * * *'
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: work
              image: shop/hello:1
              command: [sh, -c, 'echo it is time']
";

#[test]
fn a_daemon_runs_on_every_host_a_job_runs_to_its_end_and_a_cron_job_when_it_is_time() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(CRON);
    cluster.apply(DAEMON);
    until("a pod on every host", PATIENCE, || pods::ready(&cluster, "agent", HOSTS.len(), &HOSTS));
    let shown = cluster.done("get daemonset agent");
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().take(6).collect();
    assert_eq!(row, ["agent", "3", "3", "3", "3", "3"], "{shown}");

    let numbered = job(
        "numbered",
        "  completions: 4\n  parallelism: 2\n  completionMode: Indexed",
        "echo part $JOB_COMPLETION_INDEX",
    );
    cluster.apply(&numbered);
    until("a job that is done", PATIENCE, || {
        let status = cluster.json("get job numbered")?["status"].clone();
        let done =
            status["succeeded"] == 4 && status["completedIndexes"] == "0-3" && status["completionTime"].is_string();
        so(done, status.to_string())
    });
    let listed = cluster.json("get pods -l batch.kubernetes.io/job-name=numbered").unwrap();
    let mut said: Vec<String> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| cluster.done(&format!("logs {}", pod["metadata"]["name"].as_str().unwrap())).trim().to_owned())
        .collect();
    said.sort();
    assert_eq!(said, ["part 0", "part 1", "part 2", "part 3"]);

    cluster.apply(&job("vain", "  backoffLimit: 0", "exit 3"));
    until("a job that has failed", PATIENCE, || {
        let status = cluster.json("get job vain")?["status"].clone();
        let failed = status["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|met| met["type"] == "Failed" && met["reason"] == "BackoffLimitExceeded")
        });
        so(failed && status["failed"] == 1, status.to_string())
    });
    let _ = cluster.done("delete job numbered");
    let _ = cluster.done("delete job vain");
    until("the pods of the jobs gone with them", PATIENCE, || {
        let left = cluster.done("get pods -l batch.kubernetes.io/job-name -o name");
        so(!left.contains("numbered") && !left.contains("vain"), left)
    });

    until("a run of the cron job", MINUTE + PATIENCE, || {
        let status = cluster.json("get cronjob minutely")?["status"].clone();
        so(status["lastSuccessfulTime"].is_string(), status.to_string())
    });
    let _ = cluster.done("delete cronjob minutely");
    let _ = cluster.done("delete daemonset agent");
    until("nothing left of them", PATIENCE, || {
        let left = cluster.done("get pods,jobs -o name");
        so(left.trim().is_empty(), left)
    });
}
