//! `quorate dev up`: makes the cluster, or what is missing of it.
//!
//! Hosts that were members start first, for they need each other for a quorum; the rest join with a token.
//!
//! Invariant: done means that every node is ready, and all vote that are to.

use std::{path::Path, time::Duration};

use futures_util::future::try_join_all;
use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::Instant;

use super::{
    host::{self, Daemon},
    network,
    place::Place,
    plan::{Host, Plan},
    processes, ready, shell, took,
};
use crate::{args::DevUp, commands::token, config::Config, failure::Failure, output::Console};

pub(super) const WHAT: &str = "the cluster was not made";

/// How long the token with which the others join is good for.
const JOINING: Duration = Duration::from_secs(600);

/// What hosts with Docker Engines are made with, and the Debian package it is in.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
];

pub(crate) async fn run(arguments: &DevUp, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    let place = Place::new(arguments.which.simulated, WHAT)?;
    if !place.simulated {
        check_tools(std::env::var_os("PATH").unwrap_or_default().as_os_str())?;
    }
    let there = place.plan(WHAT)?;
    let plan = Plan::new(arguments.nodes, arguments.range, place.simulated, there.as_ref())?;
    if !place.simulated {
        plan.check_routes(&shell::ip(WHAT, "-4 route").await?)?;
    }
    let _held = place.hold(WHAT)?;
    place.write(&plan, WHAT)?;
    let hosts = plan.hosts(&place.base);
    for host in &hosts {
        host::make_directory(host)?;
    }
    if plan.simulated {
        writeln!(console.err, "{} nodes on loopback; their pods are (simulated)", plan.nodes)?;
    } else {
        make_hosts(&plan, &hosts, console).await?;
    }
    start_cluster(&plan, &hosts, contexts, console).await?;
    writeln!(console.err, "The cluster is ready ({})", took(begun))?;
    Ok(())
}

fn check_tools(path: &std::ffi::OsStr) -> Result<(), Refusal> {
    let there = |tool: &str| std::env::split_paths(path).any(|directory| directory.join(tool).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| !there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(Refusal::new(Reason::NotFound, WHAT, format!("this machine has no {}", tools.join(", ")))
        .hint(format!("apt-get install {}; or --simulated, which needs none of them", packages.join(" "))))
}

/// Network, first processes, Docker Engines.
async fn make_hosts(plan: &Plan, hosts: &[Host], console: &mut Console<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    writeln!(console.err, "Making {} hosts in {} ...", plan.nodes, plan.range)?;
    network::make(plan).await?;
    for host in hosts {
        network::connect(host).await?;
        host::switch_on(host).await?;
    }
    let missing = hosts.iter().filter(|host| processes::find(host, false).engine.is_none());
    let missing: Vec<_> = missing.map(|host| host.name.as_str()).collect();
    if !missing.is_empty() {
        writeln!(console.err, "Starting the Docker Engine on {} ...", missing.join(", "))?;
    }
    try_join_all(hosts.iter().map(host::start_engine)).await?;
    writeln!(console.err, "  {} hosts, each with its own Docker Engine ({})", plan.nodes, took(begun))?;
    Ok(())
}

async fn start_cluster(plan: &Plan, hosts: &[Host], contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    let (mut members, others): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| host::was_member(host));
    let mut joining: &[&Host] = &others;
    if members.is_empty() {
        let Some((first, rest)) = others.split_first() else { return Ok(()) };
        // A context of an earlier cluster would be asked in vain.
        forget(contexts, plan)?;
        writeln!(console.err, "Founding the cluster on {}: quorate up ...", first.name)?;
        members.push(*first);
        joining = rest;
    }
    for host in &members {
        host::start_daemon(host, plan, Daemon::Up)?;
    }
    let client = ready::led(plan, &members, contexts).await?;
    if let Some(first) = members.first().filter(|_| joining.len() + 1 == hosts.len()) {
        writeln!(console.err, "  {} leads a cluster of one ({})", first.name, took(begun))?;
    }

    if !joining.is_empty() {
        let names: Vec<_> = joining.iter().map(|host| host.name.as_str()).collect();
        writeln!(console.err, "Joining {}: quorate join TOKEN ...", names.join(", "))?;
        let uses = u32::try_from(joining.len()).unwrap_or(u32::MAX);
        let token = token::create(&client, JOINING, uses).await?;
        for host in joining {
            host::start_daemon(host, plan, Daemon::Join(&token))?;
        }
    }
    ready::settled(plan, hosts, contexts, console).await?;
    name_endpoints(contexts, plan, hosts)?;
    Ok(())
}

fn forget(contexts: &Path, plan: &Plan) -> Result<(), Refusal> {
    let forgotten = Config::update(contexts, |config| config.contexts.remove(plan.context()));
    forgotten.map(drop).map_err(|error| error.refusal(WHAT))
}

/// Writes every host's address into the context, and makes it the current one: any node can be asked.
fn name_endpoints(contexts: &Path, plan: &Plan, hosts: &[Host]) -> Result<(), Refusal> {
    let named = Config::update(contexts, |config| {
        if let Some(context) = config.contexts.get_mut(plan.context()) {
            context.endpoints = hosts.iter().map(|host| host.endpoint().to_string()).collect();
        }
        config.current = Some(plan.context().to_owned());
    });
    named.map_err(|error| error.refusal(WHAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let directory = tempfile::tempdir().unwrap();
        for tool in ["ip", "nsenter", "unshare", "setsid"] {
            std::fs::write(directory.path().join(tool), "").unwrap();
        }
        insta::assert_snapshot!(check_tools(directory.path().as_os_str()).unwrap_err());
    }
}
