//! `quorate dev down`: removes all of the cluster.
//!
//! It goes by names, not by what was written down, so it removes what a crash left half made, too.
//!
//! Invariant: what is not there is no failure; the place itself goes last, so that an interrupted removal can be repeated.

use std::{fs, io, path::Path, time::Duration};

use nix::mount::{MntFlags, umount2};
use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::{Instant, sleep};

use super::{
    network,
    place::Place,
    plan::{self, Host},
    processes,
    remains::{self, Remains},
    took,
};
use crate::{config::Config, failure::Failure, output::Console};

const WHAT: &str = "the cluster was not removed";

/// How long the control groups of processes that have ended may be in use.
const UNUSED: Duration = Duration::from_secs(5);

pub(crate) async fn run(simulated: bool, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    let place = Place::new(simulated, WHAT)?;
    let found = match simulated {
        true => Remains { hosts: remains::named(&place.base, ""), ..Remains::default() },
        false => Remains::find(&place.base).await,
    };
    if !place.base.exists() && found.is_empty() {
        writeln!(console.err, "There is no cluster to remove.")?;
        return Ok(());
    }
    let held = place.hold(WHAT)?;
    for name in &found.hosts {
        let host = trace(name, &place);
        processes::end(&host, simulated).await?;
        if !simulated {
            network::disconnect(&host.namespace, &host.link).await?;
        }
    }
    if !simulated {
        network::remove().await?;
        remove_control_groups().await?;
        unmount(&place.base)?;
    }
    forget(contexts, if simulated { plan::SIMULATED_CONTEXT } else { plan::CONTEXT })?;
    match fs::remove_dir_all(&place.base) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let because = format!("{}: {error}", place.base.display());
            return Err(Refusal::new(Reason::Internal, WHAT, because).into());
        }
        _ => {}
    }
    drop(held);
    let what = if found.hosts.is_empty() { found.others } else { found.hosts };
    writeln!(console.out, "The cluster is removed: {} ({})", what.join(", "), took(begun))?;
    Ok(())
}

/// A group is in use until the last of its processes has been collected, which may be a moment after its end.
async fn remove_control_groups() -> Result<(), Refusal> {
    let deadline = Instant::now() + UNUSED;
    loop {
        match remains::remove_control_groups() {
            Ok(()) => return Ok(()),
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            Err((group, error)) => {
                let because = format!("the control group {}: {error}", group.display());
                return Err(Refusal::new(Reason::Internal, WHAT, because));
            }
        }
    }
}

/// Unmounts what somebody has mounted in the place: what is in there is not the cluster's, and must not be deleted with it.
fn unmount(base: &Path) -> Result<(), Refusal> {
    let failed = |because: String| Refusal::new(Reason::Internal, WHAT, because);
    let table =
        fs::read_to_string("/proc/self/mounts").map_err(|error| failed(format!("/proc/self/mounts: {error}")))?;
    for mount in remains::mounts_below(base, &table) {
        umount2(&mount, MntFlags::MNT_DETACH).map_err(|error| failed(format!("{}: {error}", mount.display())))?;
    }
    Ok(())
}

/// What a host of this name has, whatever was planned.
fn trace(name: &str, place: &Place) -> Host {
    Host {
        name: name.to_owned(),
        namespace: plan::namespace(name),
        link: plan::link(name),
        address: std::net::Ipv4Addr::UNSPECIFIED,
        directory: place.base.join(name),
    }
}

fn forget(contexts: &Path, context: &str) -> Result<(), Refusal> {
    let refused = |error: crate::config::ConfigError| error.refusal(WHAT);
    let forgotten = Config::update(contexts, |config| {
        if config.contexts.remove(context).is_some() && config.current.as_deref() == Some(context) {
            config.current = config.contexts.keys().next().cloned();
        }
    });
    forgotten.map_err(refused)
}
