//! `quorate dev down`: removes all of the cluster.
//!
//! It goes by names, not by what was written down, so it removes what a crash left half made, too.
//!
//! Invariant: what is not there is no failure; the place itself goes last, so that an interrupted removal can be repeated.

use std::{fs, io, path::Path};

use quorate_proto::refusal::{Reason, Refusal};
use tokio::time::Instant;

use super::{
    host, network,
    place::Place,
    plan::{self, Host},
    processes, took,
};
use crate::{config::Config, failure::Failure, output::Console};

const WHAT: &str = "the cluster was not removed";

pub(crate) async fn run(simulated: bool, contexts: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    let place = Place::new(simulated, WHAT)?;
    let names = place.traces();
    if !place.base.exists() && names.is_empty() && (simulated || !network::exists()) {
        writeln!(console.err, "There is no cluster to remove.")?;
        return Ok(());
    }
    let held = place.hold(WHAT)?;
    for name in &names {
        let host = trace(name, &place);
        processes::end(&host, simulated).await?;
        if !simulated {
            network::disconnect(&host.namespace, &host.link).await?;
        }
    }
    if !simulated {
        network::remove().await?;
        host::remove_control_groups()?;
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
    writeln!(console.out, "The cluster is removed: {} ({})", names.join(", "), took(begun))?;
    Ok(())
}

/// What a host of this name has, whatever was planned.
fn trace(name: &str, place: &Place) -> Host {
    Host {
        name: name.to_owned(),
        namespace: plan::namespace(name),
        link: format!("qdev-{name}"),
        address: std::net::Ipv4Addr::UNSPECIFIED,
        directory: place.base.join(name),
    }
}

fn forget(contexts: &Path, context: &str) -> Result<(), Refusal> {
    let refused = |error: crate::config::ConfigError| error.refusal(WHAT);
    let mut config = Config::read(contexts).map_err(refused)?;
    if config.contexts.remove(context).is_none() {
        return Ok(());
    }
    if config.current.as_deref() == Some(context) {
        config.current = config.contexts.keys().next().cloned();
    }
    config.write(contexts).map_err(refused)
}
