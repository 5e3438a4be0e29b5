//! Daemons that cannot start.

use quorate_tests::hosts::cluster::Cluster;

use super::{in_vain, left_nothing};

#[test]
fn a_daemon_whose_port_is_taken_or_that_finds_no_docker_engine_leaves_nothing() {
    let cluster = Cluster::up();
    cluster.settle();
    let data = cluster.directory().join("vain");
    let context = cluster.done("context list");
    let start = |verb: &str, rest: &str| {
        let words = format!("{verb} --context vain --data-dir {} --name n9 {rest}", data.display());
        let said = in_vain(&cluster, || cluster.start_in_vain(Some("n1"), &words));
        left_nothing(&data);
        assert_eq!(cluster.done("context list"), context, "no way into a cluster that is not there");
        said
    };
    let token = cluster.done("token create");
    let join = format!("join {}", token.trim());

    for verb in ["up", &join] {
        let taken = start(verb, "--listen 10.99.0.1:7443 --docker unix:///var/lib/quorate-dev/n1/docker.sock");
        taken.refused(1, &["10.99.0.1:7443", "--listen"]);
        let engine = start(verb, "--listen 10.99.0.1:7500 --docker unix:///nonexistent/docker.sock");
        engine.refused(1, &["/nonexistent/docker.sock", "--docker", "--simulated"]);
    }
    start("up", "--listen 10.99.0.1:7500 --docker tcp://127.0.0.1:2375")
        .refused(2, &["tcp://127.0.0.1:2375", "unix://"]);

    let second = cluster
        .start_in_vain(Some("n1"), "up --context vain --listen 10.99.0.1:7501 --data-dir /var/lib/quorate-dev/n1/data");
    second.refused(1, &["/var/lib/quorate-dev/n1/data", "--data-dir"]);
}
