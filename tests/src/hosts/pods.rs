//! Pods as users see them, and the containers they are made of as the engines show them.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::cluster::{Cluster, HOSTS};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it runs; empty while it waits for a node.
    pub node: String,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// Since when it is, or is not.
    pub since: String,
    /// How often its containers were restarted.
    pub restarts: u64,
    /// Whether it is told to end.
    pub ending: bool,
}

/// A deployment of `shop/hello:1` whose pods answer probes. What they are made of does not heed SIGTERM: they get a second to stop.
#[must_use]
pub fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector:
    matchLabels:
      app: {name}
  template:
    metadata:
      labels:
        app: {name}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: hello
          image: shop/hello:1
          ports:
            - name: http
              containerPort: 8080
          readinessProbe:
            httpGet:
              path: /healthz
              port: 8080
            periodSeconds: 1
          resources:
            requests:
              cpu: 20m
              memory: 16Mi
            limits:
              memory: 32Mi
"
    )
}

/// A service in front of such a deployment.
#[must_use]
pub fn service(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector:
    app: {name}
  ports:
    - name: http
      port: 80
      targetPort: 8080
"
    )
}

/// A ConfigMap with one value.
#[must_use]
pub fn config_map(name: &str, key: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  {key}: \"{value}\"\n")
}

/// The pods of an app.
///
/// # Errors
/// With what was said instead.
///
/// # Panics
/// If what is shown are no pods.
pub fn of(cluster: &Cluster, app: &str) -> Result<Vec<Pod>, String> {
    let shown = cluster.json(&format!("get pods -l app={app}"))?;
    let mut pods: Vec<_> = shown["items"].as_array().unwrap().iter().map(pod).collect();
    pods.sort();
    Ok(pods)
}

fn pod(object: &Value) -> Pod {
    let status = &object["status"];
    let none = Vec::new();
    let list = |name: &str| status[name].as_array().unwrap_or(&none).iter();
    let ready = list("conditions").find(|condition| condition["type"] == "Ready");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Pod {
        name: text(&object["metadata"]["name"]),
        node: text(&object["spec"]["nodeName"]),
        ready: ready.is_some_and(|condition| condition["status"] == "True"),
        since: ready.map(|condition| text(&condition["lastTransitionTime"])).unwrap_or_default(),
        restarts: list("containerStatuses").filter_map(|container| container["restartCount"].as_u64()).sum(),
        ending: !object["metadata"]["deletionTimestamp"].is_null(),
    }
}

/// All pods of an app if so many are ready on these hosts.
///
/// # Errors
/// With what there is instead.
pub fn ready(cluster: &Cluster, app: &str, count: usize, hosts: &[&str]) -> Result<Vec<Pod>, String> {
    let pods = of(cluster, app)?;
    let ready = pods.iter().filter(|pod| pod.ready && !pod.ending && hosts.contains(&pod.node.as_str())).count();
    if ready == count { Ok(pods) } else { Err(format!("{ready} of {count} pods are ready on {hosts:?}: {pods:#?}")) }
}

/// Every container on every host, by its id, with its name, when it was started, and its process.
///
/// # Panics
/// If an engine does not say.
#[must_use]
pub fn containers(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for host in HOSTS {
        let ids = cluster.on(host, "docker ps --quiet --no-trunc").done();
        let ids: Vec<_> = ids.split_whitespace().collect();
        if ids.is_empty() {
            continue;
        }
        let format = "{{.Id}}={{.Name}},{{.State.StartedAt}},{{.State.Pid}}";
        let shown = cluster.on(host, &format!("docker inspect --format {format} {}", ids.join(" "))).done();
        for line in shown.lines() {
            let (id, rest) = line.split_once('=').unwrap();
            found.insert(id.to_owned(), format!("{host} {rest}"));
        }
    }
    found
}

/// The container of an app's pod on a host.
///
/// # Errors
/// If none runs there.
pub fn container(cluster: &Cluster, host: &str, app: &str) -> Result<String, String> {
    let filter = "--filter status=running --filter label=io.kubernetes.container.name=hello";
    let said = cluster.on(host, &format!("docker ps {filter} --format {{{{.ID}}}}={{{{.Names}}}}"));
    let line = said.out.lines().find(|line| line.contains(app));
    line.and_then(|line| line.split_once('=')).map(|(id, _)| id.to_owned()).ok_or_else(|| said.to_string())
}
