//! `quorate dev`: a cluster of several hosts on this machine.
//!
//! Each host has a network namespace, an address, a name, a Docker Engine and process numbers of its own, and runs this very binary as
//! any machine would: the first by `quorate up`, the others by `quorate join`. With `--simulated` the hosts are only processes on loopback
//! and their pods are simulated.
//!
//! Invariant: everything is found again by its name or by the kernel's own record of it, so that a crash at any moment leaves nothing that
//! `quorate dev down` would not remove, or a second `quorate dev up` repair.

mod cluster;
mod down;
mod host;
pub(crate) mod init;
mod network;
mod place;
mod plan;
mod processes;
mod ready;
mod remains;
mod shell;
mod status;
mod up;

use std::{path::Path, process::Stdio, time::Duration};

use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::Instant;

use self::{place::Place, plan::Plan};
use crate::{
    args::{Dev, DevWhich},
    failure::Failure,
    output::Console,
};

pub(crate) async fn run(verb: Dev, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    match verb {
        Dev::Up(arguments) => up::run(&arguments, contexts, console).await,
        Dev::Down(DevWhich { simulated }) => down::run(simulated, contexts, console).await,
        Dev::Status(DevWhich { simulated }) => {
            let place = match simulated {
                true => Place::new(true, status::WHAT)?,
                false => Place::existing(status::WHAT).await?,
            };
            status::run(&place, contexts, console).await
        }
        Dev::Load { archives } => load(&archives, console).await,
        Dev::Kill { which, host } => kill(&which, &host, console).await,
        Dev::Start { which, host } => start(&which, &host, console).await,
        Dev::Exec { host, command } => exec(&host, command).await,
    }
}

/// `1.3 s`: how long something took.
fn took(since: Instant) -> String {
    seconds(since.elapsed())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

async fn kill(which: &DevWhich, name: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let what = format!("{name} was not switched off");
    let place = Place::new(which.simulated, &what)?;
    let plan = place.planned(&what)?;
    let host = place.host(&plan, name, &what)?;
    let _held = place.hold(&what)?;
    processes::end(&host, plan.simulated).await?;
    writeln!(console.out, "{name} is switched off")?;
    Ok(())
}

async fn start(which: &DevWhich, name: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let what = format!("{name} was not switched on");
    let place = Place::new(which.simulated, &what)?;
    let plan = place.planned(&what)?;
    let host = place.host(&plan, name, &what)?;
    let _held = place.hold(&what)?;
    if !host::was_member(&host) {
        return Err(Refusal::new(Reason::Conflict, what, "it was never a node of the cluster")
            .hint("`quorate dev up` makes it one")
            .into());
    }
    if !plan.simulated {
        network::connect(&host).await?;
        host::switch_on(&host).await?;
        host::start_engine(&host).await?;
    }
    host::start_daemon(&host, &plan, host::Daemon::Up)?;
    writeln!(console.out, "{name} is switched on")?;
    Ok(())
}

/// The cluster with real hosts, which is what images and commands are for.
async fn real(what: &str) -> Result<(Place, Plan), Refusal> {
    let place = Place::existing(what).await?;
    if place.simulated {
        return Err(Refusal::new(
            Reason::BadRequest,
            what,
            "the cluster's pods are simulated: it has no hosts and needs no images",
        ));
    }
    let plan = place.planned(what)?;
    Ok((place, plan))
}

async fn load(archives: &[std::path::PathBuf], console: &mut Console<'_>) -> Result<(), Failure> {
    let what = "no image was loaded";
    let (place, plan) = real(what).await?;
    for archive in archives {
        let path = archive.display().to_string();
        for host in plan.hosts(&place.base) {
            let what = format!("{path} was not loaded on {}", host.name);
            let engine = format!("unix://{}", host.socket().display());
            let said = shell::run(&what, "docker", &["--host", &engine, "load", "--quiet", "--input", &path]).await?;
            for line in said.lines() {
                writeln!(console.out, "{}: {}", host.name, line.trim())?;
            }
        }
    }
    Ok(())
}

async fn exec(name: &str, command: Vec<String>) -> Result<(), Failure> {
    let what = format!("nothing was run on {name}");
    let (place, plan) = real(&what).await?;
    let host = place.host(&plan, name, &what)?;
    let words = host::enter(&host)?;
    let (program, rest) = words.split_first().ok_or(Failure::Exit(1))?;
    // Docker's own client then asks the host's engine.
    let status = tokio::process::Command::new(program)
        .args(rest)
        .args(&command)
        .env("DOCKER_HOST", format!("unix://{}", host.socket().display()))
        .stdin(Stdio::inherit())
        .status()
        .await
        .map_err(|error| Refusal::new(Reason::Internal, what, error.to_string()))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Failure::Exit(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
    }
}
