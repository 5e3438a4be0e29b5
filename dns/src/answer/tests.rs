use std::{net::Ipv4Addr, sync::Arc};

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, AXFR, CNAME, NS, PTR, SOA, SRV, TXT};
use ipnet::Ipv4Net;
use quorate_proto::endpoints::{Endpoint, PodPort, PortEndpoints, Protocol, ServiceAddress, ServiceEndpoints};

use super::*;
use crate::zone::Sources;

pub(crate) fn settings() -> Arc<Settings> {
    let range = |second| Ipv4Net::new_assert([10, second, 0, 0].into(), 16);
    let server = Ipv4Addr::new(10, 213, 0, 10);
    Arc::new(Settings::new("cluster.local", range(213), range(214), server, "n1").unwrap())
}

pub(crate) fn pod(node: &str, address: [u8; 4], ready: bool, hostname: Option<&str>) -> Endpoint {
    let hostname = hostname.map(str::to_owned);
    Endpoint { pod: format!("{address:?}"), address: address.into(), node: node.into(), ready, hostname }
}

pub(crate) fn service(name: &str, address: ServiceAddress, pods: &[Endpoint]) -> ServiceEndpoints {
    let behind = |port| pods.iter().map(|pod| PodPort { endpoint: pod.clone(), port }).collect();
    let port = |name: Option<&str>, protocol, port, target| PortEndpoints {
        name: name.map(str::to_owned),
        protocol,
        port,
        node_port: None,
        endpoints: behind(target),
    };
    ServiceEndpoints {
        namespace: "shop".into(),
        name: name.into(),
        address,
        ports: vec![
            port(Some("http"), Protocol::Tcp, 80, 8080),
            port(Some("dns"), Protocol::Udp, 53, 5353),
            port(None, Protocol::Tcp, 9, 9),
        ],
        pods: pods.to_vec(),
        publish_not_ready: false,
    }
}

fn zone() -> Zone {
    let cluster = ServiceAddress::Cluster([10, 213, 0, 20].into());
    let name = |name: &str| ServiceAddress::Name(name.into());
    let starting = [pod("n2", [10, 214, 2, 30], false, None)];
    let services = [
        service("web", cluster, &[pod("n1", [10, 214, 1, 5], true, None), pod("n2", [10, 214, 2, 6], false, None)]),
        service(
            "db",
            ServiceAddress::Headless,
            &[
                pod("n2", [10, 214, 2, 8], true, Some("db-0")),
                pod("n1", [10, 214, 1, 7], true, Some("db-1")),
                pod("n2", [10, 214, 2, 9], false, Some("db-2")),
                pod("n2", [10, 214, 2, 10], true, None),
            ],
        ),
        service("starting", ServiceAddress::Headless, &starting),
        ServiceEndpoints { publish_not_ready: true, ..service("peers", ServiceAddress::Headless, &starting) },
        service("out", name("www.example.com"), &[]),
        service("alias", name("web.shop.svc.cluster.local"), &[]),
        service("nowhere", name("missing.shop.svc.cluster.local."), &[]),
        service("loop", name("loop.shop.svc.cluster.local"), &[]),
        service("pending", ServiceAddress::Pending, &[]),
    ];
    let nodes = [("n1".to_owned(), [192, 168, 7, 1].into()), ("n2.rack".to_owned(), [192, 168, 7, 2].into())];
    let pods = [("other".to_owned(), [10, 214, 1, 99].into())];
    Zone::build(&settings(), &Sources { services: &services, pods: &pods, nodes: &nodes }, 42)
}

fn ask(zone: Option<&Zone>, name: &str, kind: RecordType) -> Verdict {
    // Always 0: an order that is the same each time, and not the one things were added in.
    answer(&settings(), zone, &Query::query(Name::from_ascii(name).unwrap(), kind), || 0)
}

/// A line per question: the code, what is answered with its TTL, `+` what rides along, `/` who decides that there is nothing.
fn table(zone: &Zone, questions: &[(&str, RecordType)]) -> String {
    let show = |records: &[Record]| {
        let each = records.iter().map(|record| format!(" {}({})", record.data, record.ttl));
        each.collect::<String>()
    };
    let line = |name: &str, kind: RecordType| {
        let (answer, after) = match ask(Some(zone), name, kind) {
            Verdict::Outside => return format!("{name} {kind}: outside"),
            Verdict::Alias(answer, target) => (answer, format!(" then outside: {target}")),
            Verdict::Answer(answer) => (answer, String::new()),
        };
        let riding = if answer.additionals.is_empty() { "" } else { " +" };
        let decides = answer.authorities.iter().map(|record| format!(" / {} {}", record.name, record.record_type()));
        format!(
            "{name} {kind}: {:?}{}{riding}{}{}{after}",
            answer.code,
            show(&answer.answers),
            show(&answer.additionals),
            decides.collect::<String>(),
        )
    };
    questions.iter().map(|(name, kind)| line(name, *kind) + "\n").collect()
}

#[test]
fn every_name_of_the_specification_has_its_answer() {
    let questions = [
        ("web.shop.svc.cluster.local.", A),
        ("WEB.Shop.svc.CLUSTER.local.", A),
        ("web.shop.svc.cluster.local.", AAAA),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV),
        ("_dns._udp.web.shop.svc.cluster.local.", SRV),
        ("_tcp.web.shop.svc.cluster.local.", SRV),
        ("_http._udp.web.shop.svc.cluster.local.", SRV),
        ("20.0.213.10.in-addr.arpa.", PTR),
        ("db.shop.svc.cluster.local.", A),
        ("db-0.db.shop.svc.cluster.local.", A),
        ("db-2.db.shop.svc.cluster.local.", A),
        ("10-214-2-10.db.shop.svc.cluster.local.", A),
        ("_http._tcp.db.shop.svc.cluster.local.", SRV),
        ("7.1.214.10.in-addr.arpa.", PTR),
        ("10.2.214.10.in-addr.arpa.", PTR),
        ("starting.shop.svc.cluster.local.", A),
        ("peers.shop.svc.cluster.local.", A),
        ("out.shop.svc.cluster.local.", A),
        ("out.shop.svc.cluster.local.", CNAME),
        ("alias.shop.svc.cluster.local.", A),
        ("alias.shop.svc.cluster.local.", AAAA),
        ("nowhere.shop.svc.cluster.local.", A),
        ("loop.shop.svc.cluster.local.", A),
        ("pending.shop.svc.cluster.local.", A),
        ("10-214-1-5.shop.pod.cluster.local.", A),
        ("10-214-1-99.other.pod.cluster.local.", A),
        ("10-214-1-98.other.pod.cluster.local.", A),
        ("n1.node.cluster.local.", A),
        ("n2.rack.node.cluster.local.", A),
        ("dns-version.cluster.local.", TXT),
        ("cluster.local.", SOA),
        ("cluster.local.", NS),
        ("cluster.local.", A),
    ];
    insta::assert_snapshot!(table(&zone(), &questions), @"
    web.shop.svc.cluster.local. A: NoError 10.213.0.20(30)
    WEB.Shop.svc.CLUSTER.local. A: NoError 10.213.0.20(30)
    web.shop.svc.cluster.local. AAAA: NoError / cluster.local. SOA
    _http._tcp.web.shop.svc.cluster.local. SRV: NoError 0 100 80 web.shop.svc.cluster.local.(30) + 10.213.0.20(30)
    _dns._udp.web.shop.svc.cluster.local. SRV: NoError 0 100 53 web.shop.svc.cluster.local.(30) + 10.213.0.20(30)
    _tcp.web.shop.svc.cluster.local. SRV: NoError / cluster.local. SOA
    _http._udp.web.shop.svc.cluster.local. SRV: NXDomain / cluster.local. SOA
    20.0.213.10.in-addr.arpa. PTR: NoError web.shop.svc.cluster.local.(30)
    db.shop.svc.cluster.local. A: NoError 10.214.1.7(5) 10.214.2.10(5) 10.214.2.8(5)
    db-0.db.shop.svc.cluster.local. A: NoError 10.214.2.8(5)
    db-2.db.shop.svc.cluster.local. A: NXDomain / cluster.local. SOA
    10-214-2-10.db.shop.svc.cluster.local. A: NoError 10.214.2.10(5)
    _http._tcp.db.shop.svc.cluster.local. SRV: NoError 0 100 8080 db-1.db.shop.svc.cluster.local.(5) 0 100 8080 10-214-2-10.db.shop.svc.cluster.local.(5) 0 100 8080 db-0.db.shop.svc.cluster.local.(5) + 10.214.1.7(5) 10.214.2.10(5) 10.214.2.8(5)
    7.1.214.10.in-addr.arpa. PTR: NoError db-1.db.shop.svc.cluster.local.(5)
    10.2.214.10.in-addr.arpa. PTR: NoError 10-214-2-10.db.shop.svc.cluster.local.(5)
    starting.shop.svc.cluster.local. A: NXDomain / cluster.local. SOA
    peers.shop.svc.cluster.local. A: NoError 10.214.2.30(5)
    out.shop.svc.cluster.local. A: NoError www.example.com.(30) then outside: www.example.com.
    out.shop.svc.cluster.local. CNAME: NoError www.example.com.(30)
    alias.shop.svc.cluster.local. A: NoError web.shop.svc.cluster.local.(30) 10.213.0.20(30)
    alias.shop.svc.cluster.local. AAAA: NoError web.shop.svc.cluster.local.(30) / cluster.local. SOA
    nowhere.shop.svc.cluster.local. A: NXDomain missing.shop.svc.cluster.local.(30) / cluster.local. SOA
    loop.shop.svc.cluster.local. A: ServFail
    pending.shop.svc.cluster.local. A: NXDomain / cluster.local. SOA
    10-214-1-5.shop.pod.cluster.local. A: NoError 10.214.1.5(5)
    10-214-1-99.other.pod.cluster.local. A: NoError 10.214.1.99(5)
    10-214-1-98.other.pod.cluster.local. A: NXDomain / cluster.local. SOA
    n1.node.cluster.local. A: NoError 192.168.7.1(30)
    n2.rack.node.cluster.local. A: NoError 192.168.7.2(30)
    dns-version.cluster.local. TXT: NoError 1.1.0(30)
    cluster.local. SOA: NoError ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5(5)
    cluster.local. NS: NoError ns.dns.cluster.local.(30) + 10.213.0.10(30)
    cluster.local. A: NoError / cluster.local. SOA
    ");
}

#[test]
fn what_is_not_there_is_denied_and_what_is_not_ours_is_left_to_others() {
    let questions = [
        ("missing.shop.svc.cluster.local.", A),
        ("shop.svc.cluster.local.", A),
        ("empty.svc.cluster.local.", A),
        ("svc.cluster.local.", A),
        ("web.shop.svc.cluster.local.", ANY),
        ("missing.shop.svc.cluster.local.", ANY),
        ("cluster.local.", AXFR),
        ("21.0.213.10.in-addr.arpa.", PTR),
        ("213.10.in-addr.arpa.", SOA),
        ("1.214.10.in-addr.arpa.", PTR),
        ("10.in-addr.arpa.", SOA),
        ("1.0.215.10.in-addr.arpa.", PTR),
        ("x.20.0.213.10.in-addr.arpa.", PTR),
        ("example.com.", A),
        ("local.", A),
        ("notcluster.local.", A),
        (".", NS),
    ];
    insta::assert_snapshot!(table(&zone(), &questions), @"
    missing.shop.svc.cluster.local. A: NXDomain / cluster.local. SOA
    shop.svc.cluster.local. A: NoError / cluster.local. SOA
    empty.svc.cluster.local. A: NXDomain / cluster.local. SOA
    svc.cluster.local. A: NoError / cluster.local. SOA
    web.shop.svc.cluster.local. ANY: NoError RFC8482 (30)
    missing.shop.svc.cluster.local. ANY: NXDomain / cluster.local. SOA
    cluster.local. AXFR: NotImp
    21.0.213.10.in-addr.arpa. PTR: NXDomain / 213.10.in-addr.arpa. SOA
    213.10.in-addr.arpa. SOA: NoError ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5(5)
    1.214.10.in-addr.arpa. PTR: NoError / 214.10.in-addr.arpa. SOA
    10.in-addr.arpa. SOA: outside
    1.0.215.10.in-addr.arpa. PTR: outside
    x.20.0.213.10.in-addr.arpa. PTR: outside
    example.com. A: outside
    local. A: outside
    notcluster.local. A: outside
    . NS: outside
    ");
}

#[test]
fn a_question_of_another_class_is_refused() {
    let mut question = Query::query(Name::from_ascii("version.bind.").unwrap(), TXT);
    question.query_class = DNSClass::CH;
    let refused = Verdict::Answer(Answer::empty(ResponseCode::Refused));
    assert_eq!(answer(&settings(), Some(&zone()), &question, || 0), refused);
}

#[test]
fn before_the_zone_is_known_names_of_the_cluster_fail_and_are_not_denied() {
    let failed = Verdict::Answer(Answer::empty(ResponseCode::ServFail));
    for name in ["web.shop.svc.cluster.local.", "cluster.local.", "20.0.213.10.in-addr.arpa."] {
        assert_eq!(ask(None, name, A), failed, "{name}");
    }
    assert_eq!(ask(None, "example.com.", A), Verdict::Outside);
}

#[test]
fn pods_of_this_node_come_first_and_all_others_each_get_their_turn() {
    let far: Vec<Endpoint> = (1..=8).map(|last| pod("n2", [10, 214, 2, last], true, None)).collect();
    let near = [pod("n1", [10, 214, 1, 1], true, None), pod("n1", [10, 214, 1, 2], true, None)];
    let services = [service("db", ServiceAddress::Headless, &[far, near.to_vec()].concat())];
    let zone = Zone::build(&settings(), &Sources { services: &services, ..Sources::default() }, 1);
    let numbers = crate::shuffle::Shuffle::new(7);
    let question = Query::query(Name::from_ascii("db.shop.svc.cluster.local.").unwrap(), A);
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let Verdict::Answer(found) = answer(&settings(), Some(&zone), &question, || numbers.number()) else { panic!() };
        let addresses: Vec<_> = found.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        assert_eq!(addresses.len(), 10);
        assert!(addresses[..2].iter().all(|address| address.to_string().starts_with("10.214.1.")), "{addresses:?}");
        firsts.insert((addresses[0], addresses[2]));
    }
    assert_eq!(firsts.len(), 16, "each of the two near pods with each of the eight far ones");
}

#[test]
fn a_range_that_ends_inside_an_octet_owns_its_reverse_zones_octet_by_octet() {
    let range = |second, prefix| Ipv4Net::new_assert([172, second, 0, 0].into(), prefix);
    let settings = Settings::new("q.internal.", range(16, 13), range(31, 24), Ipv4Addr::LOCALHOST, "n1").unwrap();
    let apex = |name: &str| settings.apex(&Name::from_ascii(name).unwrap().into()).map(|apex| apex.to_string());
    assert_eq!(apex("1.2.17.172.in-addr.arpa.").as_deref(), Some("17.172.in-addr.arpa."));
    assert_eq!(apex("1.0.24.172.in-addr.arpa."), None);
    assert_eq!(apex("9.0.31.172.in-addr.arpa.").as_deref(), Some("0.31.172.in-addr.arpa."));
    assert_eq!(apex("172.in-addr.arpa."), None);
}

#[test]
fn settings_that_make_no_sense_say_what_is_wrong() {
    let range = |prefix| Ipv4Net::new_assert([10, 0, 0, 0].into(), prefix);
    let refused = |zone, prefix| {
        Settings::new(zone, range(prefix), range(16), Ipv4Addr::LOCALHOST, "n1").unwrap_err().to_string()
    };
    assert_eq!(refused("a..b", 16), "the cluster zone \"a..b\" is not a domain name");
    assert_eq!(refused(".", 16), "the cluster zone is empty: the root zone is not ours to answer");
    assert_eq!(
        refused("cluster.local", 4),
        "10.0.0.0/4 is too wide a range: its addresses must have at least 8 bits in common"
    );
}
