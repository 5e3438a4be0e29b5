//! The daemon ends and comes back: the containers do not notice.

use std::time::Duration;

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods, process,
    wait::{now, since, so, until},
};

#[test]
fn a_daemon_that_is_killed_and_started_again_restarts_no_container_and_its_pods_stay_ready() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(&pods::deployment("web", 6));
    let before = until("six ready pods", PATIENCE, || pods::ready(&cluster, "web", 6, &HOSTS));
    let containers = pods::containers(&cluster);
    assert_eq!(containers.len(), 12, "a holder and a container for each pod: {containers:#?}");

    for host in HOSTS {
        let (daemon, engine) = (cluster.daemon(host), cluster.engine(host));
        process::end(daemon);
        let begun = now();
        let _ = cluster.done("dev up");
        println!("{host} has its daemon again after {}", since(begun));
        assert_ne!(cluster.daemon(host), daemon);
        assert_eq!(cluster.engine(host), engine, "the engine went on");
        cluster.wait_for_voters();
        // A new pod shows that the new daemon works, and so has looked at the old ones.
        let probe = format!("after-{host}");
        let on_host = pods::deployment(&probe, 1)
            .replace("    spec:\n", &format!("    spec:\n      nodeSelector: {{kubernetes.io/hostname: {host}}}\n"));
        cluster.apply(&on_host);
        until("a new pod on the host", PATIENCE, || pods::ready(&cluster, &probe, 1, &[host]));
        let _ = cluster.done(&format!("delete deployment {probe}"));
        until("the end of the new pod", PATIENCE, || {
            let left = pods::of(&cluster, &probe)?;
            so(left.is_empty(), format!("{left:#?}"))
        });
        assert_eq!(
            pods::of(&cluster, "web").unwrap(),
            before,
            "ready, on the same nodes, since the same moment, with no restart"
        );
        until("the same containers as before, and no other", Duration::from_secs(20), || {
            let now = pods::containers(&cluster);
            so(now == containers, format!("{now:#?}\nwhere there were\n{containers:#?}"))
        });
    }
}
