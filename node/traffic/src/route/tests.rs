use std::process::Command;

use super::*;

fn range(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn ranges_overlap_if_one_contains_the_other() {
    let overlap = |one, other| overlaps(range(one), range(other)) && overlaps(range(other), range(one));
    assert!(overlap("10.213.0.0/16", "10.213.7.0/24"));
    assert!(overlap("10.96.0.0/12", "10.99.0.0/24"));
    assert!(overlap("10.213.0.0/16", "10.213.0.0/16"));
    assert!(!overlap("10.213.0.0/16", "10.214.0.0/16"));
    assert!(!overlap("10.213.0.1/32", "10.213.0.0/32"));
}

/// The routes of the table for addresses of this machine, and of the main one, as people list them.
fn listed(table: &str) -> String {
    let output = Command::new("ip").args(["-4", "route", "show", "table", table]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Runs the test below in a network namespace of its own, which is gone with its process; no root is needed where the kernel lets
/// users have namespaces.
#[test]
fn service_addresses_become_local_and_are_given_back() {
    let itself = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(itself)
        .args(["--exact", "--ignored", "--nocapture", "route::tests::in_a_namespace_of_its_own"])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "changes routes: run by the test above, in a network namespace of its own"]
async fn in_a_namespace_of_its_own() {
    assert_eq!(listed("main"), "", "not in a namespace of its own");
    ip("link set lo up");
    let services = range("10.213.0.0/16");
    add(services).await.unwrap();
    assert!(listed("local").contains("local 10.213.0.0/16 dev lo"), "{}", listed("local"));
    let socket = std::net::UdpSocket::bind("10.213.77.1:0").unwrap();
    drop(socket);
    // Once more, as after a restart.
    add(services).await.unwrap();

    ip("link add v0 type veth peer name v1");
    ip("address add 10.96.3.1/24 dev v0");
    ip("link set v0 up");
    for taken in ["10.96.0.0/12", "10.96.3.0/28", "10.96.3.0/24"] {
        let error = add(range(taken)).await.unwrap_err();
        assert!(matches!(error, RouteError::Overlap { .. }), "{taken}: {error}");
        let refusal = error.refusal();
        assert!(refusal.because.starts_with(&format!("the service range {taken} overlaps 10.96.3.")), "{refusal}");
    }
    // A default route gives way to any other.
    ip("route add default via 10.96.3.9");
    add(services).await.unwrap();

    remove(services).await.unwrap();
    assert!(!listed("local").contains("10.213"), "{}", listed("local"));
    remove(services).await.unwrap();
    assert!(std::net::UdpSocket::bind("10.213.77.1:0").is_err());
}
