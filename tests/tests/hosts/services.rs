//! Names and connections: on every node, over UDP and TCP, in every container.

use std::time::Duration;

use hickory_proto::rr::RecordType::{A, AAAA, SOA, SRV};
use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    names::{self, Answered, Transport},
    pods,
    wait::{now, since, so, until},
};

fn cluster_ip(cluster: &Cluster, service: &str) -> String {
    let shown = cluster.json(&format!("get service {service}")).unwrap();
    shown["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

#[test]
fn the_name_of_a_service_resolves_on_every_node_and_its_pods_are_told_where_it_is() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(&(pods::service("web").trim_start().to_owned() + "---" + &pods::deployment("web", 3)));
    until("three ready pods", PATIENCE, || pods::ready(&cluster, "web", 3, &HOSTS));
    let address = cluster_ip(&cluster, "web");
    assert!(address.starts_with("10.213."), "{address}");

    for host in HOSTS {
        until("the name on every node", PATIENCE, || {
            let answer = names::ask(host, Transport::Udp, "web.default.svc.cluster.local.", A);
            so(answer.as_ref().is_ok_and(|answer| answer.records == [address.clone()]), format!("{answer:?}"))
        });
        for transport in [Transport::Udp, Transport::Tcp] {
            let ask = |name: &str, kind| names::ask(host, transport, name, kind).unwrap();
            let found = |records: &[&str]| Answered {
                code: "NoError".to_owned(),
                records: records.iter().map(|record| (*record).to_owned()).collect(),
                authority: Vec::new(),
            };
            assert_eq!(ask("web.default.svc.cluster.local.", A), found(&[&address]));
            assert_eq!(ask("WEB.default.svc.cluster.LOCAL.", A), found(&[&address]));
            assert_eq!(
                ask("_http._tcp.web.default.svc.cluster.local.", SRV),
                found(&["0 100 80 web.default.svc.cluster.local."])
            );

            let no_such_kind = ask("web.default.svc.cluster.local.", AAAA);
            let nothing = |code: &str| Answered { code: code.to_owned(), records: Vec::new(), authority: vec![SOA] };
            assert_eq!(no_such_kind, nothing("NoError"), "the name exists, with no address of this kind");
            assert_eq!(ask("nobody.default.svc.cluster.local.", A), nothing("NXDomain"));

            // These hosts reach nobody who knows other names: that is said, soon enough to ask someone else.
            let begun = now();
            let outside = ask("www.example.com.", A);
            assert_eq!(outside.code, "ServFail", "{outside:?}");
            assert!(begun.elapsed() < Duration::from_secs(8), "after {}", since(begun));
        }
        let said = cluster.on(host, "busybox nslookup -type=a web.default.svc.cluster.local 10.213.0.10").done();
        assert!(said.contains(&address), "{said}");
    }

    let mut fetched = 0;
    for pod in pods::of(&cluster, "web").unwrap() {
        let container = until("its container", PATIENCE, || pods::container(&cluster, &pod.node, &pod.name));
        let run = |words: &str| cluster.on(&pod.node, &format!("docker exec {container} {words}"));
        let environment = run("env").done();
        for line in [format!("WEB_SERVICE_HOST={address}"), "WEB_SERVICE_PORT=80".to_owned()] {
            assert!(environment.lines().any(|found| found == line), "{line} in\n{environment}");
        }
        let resolver = run("cat /etc/resolv.conf").done();
        assert!(resolver.contains("default.svc.cluster.local"), "{resolver}");
        let said = run("nslookup -type=a web.default.svc.cluster.local").done();
        assert!(said.contains(&address), "{said}");
        let page = until("a page", PATIENCE, || {
            let said = run("fetch web.default.svc.cluster.local");
            if said.out.starts_with("hello from web-") { Ok(said.out) } else { Err(said.to_string()) }
        });
        println!("{} fetched: {}", pod.name, page.trim());
        fetched += 1;
    }
    assert_eq!(fetched, 3);
}

#[test]
fn a_pod_whose_config_map_does_not_exist_says_so_and_starts_when_it_appears() {
    let cluster = Cluster::up();
    cluster.load_images();
    let mounted = "          volumeMounts:
            - name: config
              mountPath: /etc/later
      volumes:
        - name: config
          configMap:
            name: later
";
    cluster.apply(&(pods::deployment("web", 1) + mounted));
    let pod = until("a pod that says what it waits for", PATIENCE, || {
        let pods = pods::of(&cluster, "web")?;
        let pod = pods.into_iter().next().ok_or("no pod")?;
        let said = cluster.run(&format!("describe pod {}", pod.name));
        let why = said.out.lines().any(|line| line.contains("later") && line.contains("not found"));
        so(why, said.to_string()).map(|()| pod)
    });
    let table = cluster.done("get pods");
    println!("{table}");
    assert!(!pod.ready && table.contains("0/1") && !table.contains("Running"), "{table}");
    let events = cluster.done("events");
    assert!(events.contains("later"), "{events}");

    let begun = now();
    cluster.apply(&pods::config_map("later", "greeting", "hello"));
    let pods = until("a pod that is ready", PATIENCE, || pods::ready(&cluster, "web", 1, &HOSTS));
    println!("it runs {} after what it waited for", since(begun));
    let node = &pods[0].node;
    let container = until("its container", PATIENCE, || pods::container(&cluster, node, &pod.name));
    let read = cluster.on(node, &format!("docker exec {container} cat /etc/later/greeting")).done();
    assert_eq!(read, "hello");
}
