//! The hosts' network: a bridge on this machine, a namespace and a cable for each host.
//!
//! There is no way from the hosts out of this machine: no route, no address translation.
//!
//! Invariant: making what is there and removing what is not are both harmless.

use std::path::Path;

use quorate_proto::refusal::Refusal;

use super::{
    plan::{BRIDGE, Host, Plan},
    processes,
    shell::{ip, run},
};

const WHAT: &str = "the hosts' network was not made";

/// The rule that lets frames through the bridge: a Docker Engine on this machine drops them otherwise.
const RULE: [&str; 7] = ["FORWARD", "-i", BRIDGE, "-j", "ACCEPT", "-m", "comment"];
const COMMENT: [&str; 2] = ["--comment", "quorate dev"];

fn rule(verb: &str) -> Vec<&str> {
    let mut words = vec!["-w", verb];
    words.extend(RULE);
    words.extend(COMMENT);
    words
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// Makes the bridge.
pub(crate) async fn make(plan: &Plan) -> Result<(), Refusal> {
    plan.check_routes(&ip(WHAT, "-4 route").await?)?;
    if !link_exists(BRIDGE) {
        ip(WHAT, &format!("link add {BRIDGE} type bridge")).await?;
    }
    ip(WHAT, &format!("addr replace {}/24 dev {BRIDGE}", plan.gateway())).await?;
    ip(WHAT, &format!("link set {BRIDGE} up")).await?;
    if run(WHAT, "iptables", &rule("-C")).await.is_err() {
        run(WHAT, "iptables", &rule("-I")).await?;
    }
    Ok(())
}

/// Makes a host's namespace and cable.
pub(crate) async fn connect(host: &Host) -> Result<(), Refusal> {
    let Host { namespace, link, address, .. } = host;
    if processes::find(host, false).adrift {
        // What lives in a network that has lost its name cannot be reached again: the host is switched on anew.
        processes::end(host, false).await?;
        disconnect(namespace, link).await?;
    }
    if !namespace_exists(namespace) {
        ip(WHAT, &format!("netns add {namespace}")).await?;
    }
    ip(WHAT, &format!("-n {namespace} link set lo up")).await?;
    if !link_exists(link) {
        ip(WHAT, &format!("link add {link} type veth peer name eth0 netns {namespace}")).await?;
    }
    ip(WHAT, &format!("link set {link} master {BRIDGE} up")).await?;
    ip(WHAT, &format!("-n {namespace} addr replace {address}/24 dev eth0")).await?;
    ip(WHAT, &format!("-n {namespace} link set eth0 up")).await?;
    Ok(())
}

/// Removes a host's namespace, and with it its cable.
pub(crate) async fn disconnect(namespace: &str, link: &str) -> Result<(), Refusal> {
    const WHAT: &str = "the hosts' network was not removed";
    if link_exists(link) {
        ip(WHAT, &format!("link del {link}")).await?;
    }
    if namespace_exists(namespace) {
        ip(WHAT, &format!("netns del {namespace}")).await?;
    }
    Ok(())
}

/// Removes the bridge and the rule.
pub(crate) async fn remove() -> Result<(), Refusal> {
    const WHAT: &str = "the hosts' network was not removed";
    while run(WHAT, "iptables", &rule("-C")).await.is_ok() {
        run(WHAT, "iptables", &rule("-D")).await?;
    }
    if link_exists(BRIDGE) {
        ip(WHAT, &format!("link del {BRIDGE}")).await?;
    }
    Ok(())
}

/// What is there of the network that belongs to no single host.
pub(crate) async fn seen() -> Vec<String> {
    let bridge = link_exists(BRIDGE).then(|| format!("bridge {BRIDGE}"));
    // Without iptables there is no rule either.
    let rule = run(WHAT, "iptables", &rule("-C")).await.is_ok().then(|| format!("firewall rule for {BRIDGE}"));
    bridge.into_iter().chain(rule).collect()
}
