//! The node that a command asks is lost: the command, or the next one, goes on with another.

use std::{
    fs::{self, File},
    io::Write as _,
    process::{Child, Stdio},
};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods,
    wait::{now, since, so, until},
};

/// A pod on a node that writes `line 0`, `line 1`, … ten times a second.
fn counting(node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: counting
spec:
  nodeSelector:
    kubernetes.io/hostname: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: counting
      image: shop/hello:1
      command: [sh, -c, 'i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done']
"
    )
}

/// A command that goes on, and what it has printed so far.
struct Running {
    child: Child,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Running {
    /// Starts it with a context that names only the first node.
    fn start(cluster: &Cluster, name: &str, words: &str) -> Self {
        know_only(cluster, "10.99.0.1:7443");
        let path = |kind: &str| cluster.directory().join(format!("{name}.{kind}"));
        let (out, err) = (path("out"), path("err"));
        let file = |path| Stdio::from(File::create(path).unwrap());
        let mut command = cluster.command(words);
        let child = command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
        Self { child, out, err }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.out).unwrap();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(str::to_owned).collect()
    }

    fn says(&mut self) -> String {
        let ended = self.child.try_wait().unwrap();
        format!("{:?}, ended: {ended:?}, stderr: {}", self.lines(), fs::read_to_string(&self.err).unwrap())
    }

    fn quiet(&self) -> bool {
        fs::read_to_string(&self.err).unwrap().is_empty()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which the story then has told.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Takes all but one endpoint from the context, as it was when the cluster was founded.
fn know_only(cluster: &Cluster, endpoint: &str) {
    let path = cluster.directory().join(".config/quorate/config.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    config["contexts"]["dev"]["endpoints"] = toml::Value::from(vec![endpoint]);
    // Whole or not at all: a command that was begun before may be reading it.
    let mut whole = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    whole.write_all(config.to_string().as_bytes()).unwrap();
    whole.persist(&path).unwrap();
}

#[test]
fn a_context_that_knew_only_the_first_node_leads_to_the_others_when_that_is_lost() {
    let cluster = Cluster::up();
    know_only(&cluster, "10.99.0.1:7443");
    let _ = cluster.done("get nodes");
    let contexts = cluster.done("context list");
    assert!(contexts.contains("10.99.0.1:7443,10.99.0.2:7443,10.99.0.3:7443"), "{contexts}");

    let _ = cluster.done("dev kill n1");
    let nodes = cluster.done("get nodes -o name");
    assert_eq!(nodes.lines().collect::<Vec<_>>(), HOSTS.map(|host| format!("node/{host}")));
}

#[test]
fn what_is_watched_and_followed_goes_on_when_the_node_that_tells_of_it_is_lost() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(&pods::config_map("before", "a", "b"));
    cluster.apply(&counting("n2"));
    until("a pod that runs", PATIENCE, || {
        let shown = cluster.done("get pods");
        so(shown.contains("1/1"), shown)
    });
    let mut watch = Running::start(&cluster, "watch", "get configmaps -w -o name");
    let mut table = Running::start(&cluster, "table", "get configmaps -w");
    let mut log = Running::start(&cluster, "log", "logs counting -f");
    until("what there is", PATIENCE, || {
        let begun = watch.lines() == ["configmap/before"] && table.lines().len() == 2 && log.lines().len() > 20;
        so(begun, format!("{}\n{}\n{}", watch.says(), table.says(), log.says()))
    });

    let killed = now();
    let _ = cluster.done("dev kill n1");
    let seen = log.lines().len();
    cluster.apply(&pods::config_map("after", "a", "b"));
    until("what happened after the loss", PATIENCE, || {
        so(watch.lines().len() >= 2 && table.lines().len() >= 3, format!("{}\n{}", watch.says(), table.says()))
    });
    println!("the watch tells what happened after the loss {} after it", since(killed));
    until("lines written after the loss", PATIENCE, || so(log.lines().len() > seen + 200, log.says()));
    println!("the log goes on {} after the loss", since(killed));

    assert_eq!(watch.lines(), ["configmap/before", "configmap/after"], "each once");
    let names: Vec<_> =
        table.lines().iter().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    assert_eq!(names, ["NAME", "before", "after"], "each once");
    let lines = log.lines();
    let expected = (0..lines.len()).map(|number| format!("line {number}"));
    assert!(lines.iter().cloned().eq(expected), "no line is left out or doubled: {lines:#?}");
    assert!(watch.quiet() && table.quiet() && log.quiet(), "{}\n{}\n{}", watch.says(), table.says(), log.says());
}
