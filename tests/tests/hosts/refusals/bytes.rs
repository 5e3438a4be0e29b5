//! Bytes that nobody of ours would send.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use quorate_proto::{
    request::{Answer, Request},
    wire::{self, HEADER, cap},
};
use quorate_tests::hosts::cluster::{Cluster, HOSTS};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Datagrams that are sent to each host.
const DATAGRAMS: usize = 500;

/// The seed of what is in them.
const SEED: u64 = 1;

/// The local socket of a host's daemon, which has a `/run` of its own.
fn socket(cluster: &Cluster, host: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root/run/quorate/api.sock", cluster.daemon(host)))
}

/// Sends bytes to a daemon's local socket, and returns what it answers until it closes the connection.
fn send(cluster: &Cluster, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket(cluster, "n1")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn read(answer: &[u8]) -> Answer {
    let (header, body) = answer.split_first_chunk::<HEADER>().unwrap();
    assert_eq!(wire::length(*header, cap::API).unwrap(), body.len(), "one answer");
    wire::decode(body, cap::API).unwrap()
}

#[test]
fn a_malformed_frame_is_refused_by_name_and_garbage_on_the_port_changes_nothing() {
    let cluster = Cluster::up();
    cluster.settle();
    let (before, daemons) = (cluster.everything(), HOSTS.map(|host| cluster.daemon(host)));

    // What is sound is answered there, so what is not is refused for what it is.
    let sound = wire::frame(&Request::Status, cap::API).unwrap();
    assert!(matches!(read(&send(&cluster, &sound)), Answer::Status(_)));
    let mut version = sound.to_vec();
    version[HEADER] = 99;
    let variant = [&sound[..=HEADER], &[250]].concat();
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let too_long = (2_u32 << 20).to_be_bytes();
    let malformed = [
        ("another version", version),
        ("an unknown request", variant),
        ("random bytes", framed(&[1, 200, 201, 202, 203, 204, 205])),
        ("bytes behind the request", framed(&[&sound[HEADER..], &[0; 7]].concat())),
        ("a length beyond the limit", too_long.to_vec()),
        ("the greatest length", u32::MAX.to_be_bytes().to_vec()),
        ("no length at all", framed(&[])),
    ];
    for (what, bytes) in &malformed {
        match read(&send(&cluster, bytes)) {
            Answer::Refused(refusal) => {
                println!("{what}: {}", refusal.because);
                assert!(!refusal.because.is_empty() && refusal.hint.is_some(), "{what}: {refusal}");
                assert_eq!(refusal.exit_code(), 1, "{what}: {refusal}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // Half a frame is no request; there is nobody left to tell.
    assert!(send(&cluster, &sound[..sound.len() - 1]).is_empty());

    let port = UdpSocket::bind("10.99.0.254:0").unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    for number in 1..=3 {
        for _ in 0..DATAGRAMS {
            let mut datagram = vec![0; random.random_range(1..1400)];
            random.fill(&mut datagram[..]);
            if random.random_range(0..2) == 0 && datagram.len() > 5 {
                // The first packet of a connection, by its first five bytes (RFC 9000 §17.2.2).
                datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
            }
            port.send_to(&datagram, format!("10.99.0.{number}:7443")).unwrap();
        }
    }
    for host in ["1", "2", "3"] {
        let _ = cluster.done(&format!("get nodes --endpoint 10.99.0.{host}:7443"));
    }
    assert_eq!(cluster.everything(), before);
    assert_eq!(HOSTS.map(|host| cluster.daemon(host)), daemons, "no daemon minds");
}
