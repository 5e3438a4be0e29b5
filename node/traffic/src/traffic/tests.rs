use std::{collections::BTreeSet, io::ErrorKind, net::SocketAddr, time::Duration};

use quorate_proto::endpoints::Protocol::{Tcp, Udp};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{world::*, *};
use crate::header::{self, Flow, Header, Status};

#[tokio::test]
async fn connections_reach_every_ready_pod_of_every_node_and_no_other() {
    let world = World::new();
    let (n1, _n2, _n3) = (world.node("n1"), world.far_node("n2"), world.far_node("n3"));
    let pods = [echo().await, echo().await, echo().await];
    let starting = echo().await;
    let endpoints = [
        endpoint("n2", pods[0], true),
        endpoint("n3", pods[1], true),
        endpoint("n3", pods[2], true),
        endpoint("n2", starting, false),
    ];
    world.publish(&[service(1, Tcp, &endpoints)]);
    listening(&n1, 1).await;
    let mut reached = BTreeSet::new();
    let mut open = Vec::new();
    for _ in 0..60 {
        let (stream, pod) = greeted(address(1)).await.unwrap();
        reached.insert(pod);
        open.push(stream);
    }
    assert_eq!(reached, BTreeSet::from(pods));
}

#[tokio::test]
async fn pods_of_the_same_node_come_first() {
    let world = World::new();
    let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
    let (near, far) = (echo().await, echo().await);
    world.publish(&[service(2, Tcp, &[endpoint("n2", far, true), endpoint("n1", near, true)])]);
    listening(&n1, 1).await;
    for _ in 0..10 {
        assert_eq!(greeted(address(2)).await.unwrap().1, near);
    }
}

#[tokio::test]
async fn a_client_that_has_said_all_still_hears_the_answer_from_near_and_far() {
    for (test, node) in [(3, "n1"), (4, "n2")] {
        let world = World::new();
        let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
        world.publish(&[service(test, Tcp, &[endpoint(node, echo().await, true)])]);
        listening(&n1, 1).await;
        let long: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for said in [&b""[..], b"hello", &long] {
            let (mut stream, _) = greeted(address(test)).await.unwrap();
            // The pod answers only after the client's end, and its end is the end.
            assert!(say(&mut stream, said).await.unwrap() == said, "{} bytes by {node}", said.len());
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_on_one_side_breaks_on_the_other() {
    for (test, node) in [(5, "n1"), (6, "n2")] {
        let world = World::new();
        let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
        let (at, mut accepted) = pod().await;
        world.publish(&[service(test, Tcp, &[endpoint(node, at, true)])]);
        listening(&n1, 1).await;

        let mut client = TcpStream::connect(address(test)).await.unwrap();
        let pod = soon(accepted.recv()).await.unwrap();
        pod.set_zero_linger().unwrap();
        drop(pod);
        let heard = soon(client.read(&mut [0; 8])).await;
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset, "pod on {node} broke");

        let client = TcpStream::connect(address(test)).await.unwrap();
        let mut pod = soon(accepted.recv()).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        let heard = soon(pod.read(&mut [0; 8])).await;
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset, "client of {node} broke");
    }
}

#[tokio::test]
async fn a_service_without_ready_pods_says_so_at_once() {
    let world = World::new();
    let n1 = world.node("n1");
    world.publish(&[service(7, Tcp, &[endpoint("n1", echo().await, false)])]);
    listening(&n1, 1).await;
    assert_eq!(greeted(address(7)).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_pod_that_does_not_accept_and_a_node_that_is_gone_are_passed_over() {
    let world = World::new();
    let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
    let alive = echo().await;
    let endpoints =
        [endpoint("n1", nobody().await, true), endpoint("n2", nobody().await, true), endpoint("n2", alive, true)];
    world.publish(&[service(8, Tcp, &endpoints)]);
    listening(&n1, 1).await;
    for _ in 0..20 {
        assert_eq!(greeted(address(8)).await.unwrap().1, alive);
    }
    world.publish(&[service(8, Tcp, &[endpoint("gone", nobody().await, true), endpoint("n2", alive, true)])]);
    for _ in 0..20 {
        assert_eq!(greeted(address(8)).await.unwrap().1, alive);
    }
}

#[tokio::test]
async fn a_pod_that_leaves_gets_no_new_connections_and_keeps_those_it_has() {
    for (test, node) in [(9, "n1"), (10, "n2")] {
        let world = World::new();
        let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
        let (leaving, staying) = (echo().await, echo().await);
        world.publish(&[service(test, Tcp, &[endpoint(node, leaving, true)])]);
        listening(&n1, 1).await;
        let (mut old, _) = greeted(address(test)).await.unwrap();

        world.publish(&[service(test, Tcp, &[endpoint(node, leaving, false), endpoint(node, staying, true)])]);
        for _ in 0..10 {
            assert_eq!(greeted(address(test)).await.unwrap().1, staying);
        }
        // Even without the service the connection stays; new ones find nobody.
        world.publish(&[]);
        listening(&n1, 0).await;
        assert_eq!(greeted(address(test)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(say(&mut old, b"still here").await.unwrap(), b"still here");

        world.publish(&[service(test, Tcp, &[endpoint(node, staying, true)])]);
        listening(&n1, 1).await;
        assert_eq!(greeted(address(test)).await.unwrap().1, staying);
    }
}

#[tokio::test]
async fn beyond_the_limit_of_connections_new_ones_are_reset_until_others_end() {
    let world = World::with(|limits| limits.connections_per_service = 2);
    let n1 = world.node("n1");
    world.publish(&[service(11, Tcp, &[endpoint("n1", echo().await, true)])]);
    listening(&n1, 1).await;
    let (mut first, _) = greeted(address(11)).await.unwrap();
    let _second = greeted(address(11)).await.unwrap();
    assert_eq!(greeted(address(11)).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    say(&mut first, b"").await.unwrap();
    soon(async { while greeted(address(11)).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_node_beyond_its_limit_of_streams_is_refused_and_another_node_is_not() {
    let world = World::with(|limits| limits.streams_per_peer = 1);
    let n2 = world.far_node("n2");
    let at = echo().await;
    world.publish(&[service(12, Tcp, &[endpoint("n2", at, true)])]);
    let (first, _kept) = asked(&n2, "n1", Header::Connection(flow(at))).await;
    let (second, _) = asked(&n2, "n1", Header::Connection(flow(at))).await;
    let (other, _kept_too) = asked(&n2, "n3", Header::Connection(flow(at))).await;
    assert_eq!([first, second, other], [Status::Connected, Status::TooMany, Status::Connected]);
}

#[tokio::test]
async fn other_nodes_reach_nothing_here_but_pods_behind_services() {
    let world = World::new();
    let n2 = world.far_node("n2");
    let (ours, private, elsewhere) = (echo().await, echo().await, echo().await);
    world.publish(&[service(13, Tcp, &[endpoint("n2", ours, false), endpoint("n3", elsewhere, true)])]);
    let status = async |header| asked(&n2, "n1", header).await.0;
    assert_eq!(status(Header::Connection(flow(ours))).await, Status::Connected, "ready or leaving");
    assert_eq!(status(Header::Connection(flow(private))).await, Status::NotHere);
    assert_eq!(status(Header::Connection(flow(elsewhere))).await, Status::NotHere);
    assert_eq!(status(Header::Session(flow(ours))).await, Status::NotHere, "its TCP port is no UDP port");
}

#[tokio::test]
async fn a_node_that_hears_later_than_its_caller_of_a_pod_of_its_own_does_not_refuse_it() {
    let world = World::new();
    let n2 = world.far_node("n2");
    let at = echo().await;
    let looking = async |most| {
        while n2.inner.table.receiver_count() < most {
            tokio::task::yield_now().await;
        }
    };
    // Those who dial and those who listen look at the table; the third is who was asked, and finds no such pod yet.
    soon(looking(2)).await;
    let (answered, ()) = tokio::join!(asked(&n2, "n1", Header::Connection(flow(at))), async {
        soon(looking(3)).await;
        world.publish(&[service(21, Tcp, &[endpoint("n2", at, true)])]);
    });
    assert_eq!(answered.0, Status::Connected);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_is_given_up() {
    let world = World::with(|limits| limits.dial = Duration::from_millis(50));
    let n2 = world.far_node("n2");
    let ((send, _far_receive), (_far_send, receive)) = (pipe(), pipe());
    let error = soon(n2.accept("n1", send, receive)).await.unwrap_err();
    assert_eq!(error.to_string(), "a stream of node n1 did not begin within the dial limit");
}

#[tokio::test]
async fn a_connection_that_carries_nothing_for_too_long_ends() {
    let world = World::with(|limits| limits.idle = Duration::from_millis(50));
    let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
    world.publish(&[service(14, Tcp, &[endpoint("n2", echo().await, true)])]);
    listening(&n1, 1).await;
    let (mut stream, _) = greeted(address(14)).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_node_port_leads_to_the_same_pods() {
    let world = World::new();
    let n1 = world.node("n1");
    let at = echo().await;
    world.publish(&[service(15, Tcp, &[endpoint("n1", at, true)])]);
    n1.publish_addresses(vec![[127, 9, 15, 1].into()]);
    listening(&n1, 2).await;
    assert_eq!(greeted("127.9.15.1:30080".parse().unwrap()).await.unwrap().1, at);
    // The node moves.
    n1.publish_addresses(vec![[127, 9, 15, 2].into()]);
    soon(async { while greeted("127.9.15.2:30080".parse().unwrap()).await.is_err() {} }).await;
    assert!(greeted("127.9.15.1:30080".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_listened_on_once_it_is_free() {
    let world = World::new();
    let n1 = world.node("n1");
    let at = echo().await;
    let squatter = TcpListener::bind(address(16)).await.unwrap();
    world.publish(&[service(16, Tcp, &[endpoint("n1", at, true)])]);
    let listen = Listen { protocol: Tcp, address: address(16) };
    let mut health = n1.health();
    let reported = soon(health.wait_for(|health| !health.unbound.is_empty())).await.unwrap().clone();
    assert!(reported.unbound[&listen].contains("in use"), "{reported:?}");
    drop(squatter);
    listening(&n1, 1).await;
    assert!(n1.health().borrow().unbound.is_empty());
    assert_eq!(greeted(address(16)).await.unwrap().1, at);
}

#[tokio::test]
async fn an_address_outside_the_range_is_reported_and_one_of_another_part_is_left_to_it() {
    let world = World::new();
    let n1 = world.node("n1");
    let at = |text: &str| {
        let address: std::net::SocketAddrV4 = text.parse().unwrap();
        let mut service = service(17, Tcp, &[]);
        service.address = quorate_proto::endpoints::ServiceAddress::Cluster(*address.ip());
        service.ports[0].port = address.port();
        service
    };
    world.publish(&[at("127.213.0.10:53"), at("127.77.0.1:8080")]);
    let health = soon(n1.health().wait_for(|health| !health.unbound.is_empty())).await.unwrap().clone();
    let reported: Vec<String> = health.unbound.iter().map(|(listen, because)| format!("{listen}: {because}")).collect();
    assert_eq!(reported, ["127.77.0.1:8080/TCP: 127.77.0.1 is outside the service range 127.213.0.0/16"]);
    assert_eq!(health.listening, 0);
}

#[tokio::test]
async fn datagrams_reach_a_pod_and_come_back_from_the_service_near_and_far() {
    for (test, node) in [(18, "n1"), (19, "n2")] {
        let world = World::new();
        let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
        let pods = [udp_echo().await, udp_echo().await];
        let all = [endpoint(node, pods[0], true), endpoint(node, pods[1], true)];
        world.publish(&[service(test, Udp, &all)]);
        listening(&n1, 1).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let first = exchange(&client, test, b"one").await;
        assert!(pods.iter().any(|pod| first == format!("{pod} one").into_bytes()), "{first:?}");
        // A session stays with its pod, and keeps datagrams apart, empty and large ones too.
        let pod = String::from_utf8(first).unwrap().replace("one", "");
        for said in [&b""[..], b"two", &[b'x'; 60_000]] {
            assert!(exchange(&client, test, said).await == [pod.as_bytes(), said].concat(), "{} bytes", said.len());
        }
        // When its pod is gone, it goes to another.
        let (gone, other): (Vec<_>, Vec<_>) = all.iter().partition(|end| pod.starts_with(&end.endpoint.pod));
        assert_eq!((gone.len(), other.len()), (1, 1));
        world.publish(&[service(test, Udp, &[other[0].clone()])]);
        let expected = format!("{} three", other[0].endpoint.pod).into_bytes();
        // One sent while the old session ends may be lost with it.
        let again = || tokio::time::timeout(Duration::from_millis(100), exchange(&client, test, b"three"));
        soon(async { while again().await.as_ref() != Ok(&expected) {} }).await;
    }
}

#[tokio::test]
async fn everything_stops_at_the_token() {
    let world = World::new();
    let (n1, _n2) = (world.node("n1"), world.far_node("n2"));
    let both = [endpoint("n2", echo().await, true)];
    world.publish(&[service(20, Tcp, &both), service(20, Udp, &both)]);
    listening(&n1, 2).await;
    let (mut stream, _) = greeted(address(20)).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"x", address(20)).await.unwrap();
    world.shutdown.cancel();
    world.tasks.close();
    soon(world.tasks.wait()).await;
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(greeted(address(20)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn flow(endpoint: std::net::SocketAddrV4) -> Flow {
    let source: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    Flow { id: 1, source, namespace: "shop".into(), service: "web".into(), port: 8080, endpoint }
}

/// What a node answers to a stream of another; the stream lasts as long as what is returned with it.
async fn asked(node: &Traffic, caller: &str, header: Header) -> (Status, (Sender, Receiver)) {
    let ((mut send, far_receive), (far_send, mut receive)) = (pipe(), pipe());
    let (node, caller) = (node.clone(), caller.to_owned());
    TaskTracker::new().spawn(async move { node.accept(&caller, far_send, far_receive).await.ok() });
    header::write(&mut send, &header).await.unwrap();
    let status = soon(receive.read_u8()).await.unwrap();
    (Status::from_byte(status), (send, receive))
}

/// Sends a datagram to the service, and returns what comes back.
async fn exchange(client: &UdpSocket, test: u8, said: &[u8]) -> Vec<u8> {
    client.send_to(said, address(test)).await.unwrap();
    let mut buffer = vec![0; 65536];
    let (length, from) = soon(client.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(from, SocketAddr::V4(address(test)), "answers come from the address that was asked");
    buffer.truncate(length);
    buffer
}
