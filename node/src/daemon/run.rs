//! Runs a member's node for as long as it can be one: again when it begins anew, or has room again.
//!
//! A node that finds its data damaged begins anew as another member (`fenced.rs`), one whose disk is full waits for room; both in this
//! same process, while its containers go on.
//!
//! Invariant: a node begins again only when nothing of it is left: its tasks have ended, its store is closed, its port is free.

use std::{sync::Arc, time::Duration};

use quorate_mesh::Identity;
use quorate_proto::{
    overview::Standing,
    refusal::{Refusal, chain},
};
use quorate_raft::{Fault, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Daemon, NOT_STARTED,
    ending::Ending,
    fenced, gave_up, not_started, pace,
    start::{NotStarted, Started, bind, start},
};
use crate::{
    admission,
    home::{Fenced, Record},
    secrets::Vault,
    socket,
};

/// How long a node that has left still answers on this machine.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a disk that is full is looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// How a node's life ends.
enum Ended {
    /// It was told to.
    Stopped,
    /// Its data is damaged, and that is written down.
    Fenced,
    /// Its disk has no room.
    Full(String),
}

/// Runs the node until `shutdown` is cancelled or it cannot go on: again as often as it begins anew, or has room again.
pub(super) async fn run(daemon: Daemon, mut record: Record, shutdown: CancellationToken) -> Result<(), Refusal> {
    loop {
        if let Some(fenced) = daemon.fenced()? {
            let answering = answer_fenced(&daemon, &fenced, &record);
            let renewed = tokio::select! {
                renewed = daemon.take_new_id(&fenced, &record, &shutdown) => renewed?,
                refusal = answering => return Err(refusal),
            };
            let Some(renewed) = renewed else { return Ok(()) };
            daemon.begin_anew(&fenced, &renewed)?;
            record = renewed;
        }
        if shutdown.run_until_cancelled(room(&daemon)).await.is_none() {
            return Ok(());
        }
        match live(&daemon, &mut record, &shutdown).await? {
            Ended::Stopped => return Ok(()),
            Ended::Fenced => {}
            Ended::Full(because) => tracing::error!(because, "this node waits until its disk has room"),
        }
    }
}

/// Waits until there is room to open the store.
async fn room(daemon: &Daemon) {
    let mut told = false;
    // A disk that cannot be asked is asked for more when it is used.
    while let Ok(disk) = nix::sys::statvfs::statvfs(daemon.home.path()) {
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free >= quorate_raft::FLOOR {
            return;
        }
        if !told {
            tracing::error!(
                mebibytes = free >> 20,
                "the disk is full: this node waits for {} MiB of room; its containers go on",
                quorate_raft::FLOOR >> 20
            );
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells whoever asks on this machine that the node is fenced; returns only if it cannot.
async fn answer_fenced(daemon: &Daemon, fenced: &Fenced, record: &Record) -> Refusal {
    match bind(daemon) {
        Ok(listener) => {
            let alone = fenced::others(fenced, record).is_empty();
            socket::refuse(listener, fenced::refusal(fenced, alone)).await
        }
        Err(refusal) => refusal,
    }
}

/// Runs the node once.
async fn live(daemon: &Daemon, record: &mut Record, shutdown: &CancellationToken) -> Result<Ended, Refusal> {
    let identity = Identity::load(daemon.home.path()).map_err(|error| not_started(&error))?;
    if let Some(lost) = fenced::lost(daemon, record) {
        return daemon.fence(&identity, &lost).map(|_| Ended::Fenced);
    }
    record.incarnation += 1;
    let pace = pace::choose(record, daemon.home.path(), &*daemon.clock);
    let timing = daemon.settings.timing.unwrap_or_else(|| pace.timing());
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))?;
    let key = daemon.home.cluster_key().map_err(|error| error.refusal(NOT_STARTED))?;
    let vault = Vault::new(key, Arc::clone(&daemon.random));

    let ending = Ending::default();
    let started = start(daemon, record, timing, identity.clone(), vault, &ending).await;
    let result = match started {
        Ok(started) => {
            tracing::info!(node = record.name, cluster = %record.cluster.cluster_id, "the node is up");
            let store = started.store.clone();
            let ended = watch_over(daemon, record, &identity, started, &ending.stop, shutdown).await;
            tracing::info!("the node stops; its containers go on");
            store.shutdown().await;
            remember_measured(daemon, record, &store);
            ended
        }
        Err(NotStarted::Damaged(because)) => daemon.fence(&identity, &because).map(|_| Ended::Fenced),
        Err(NotStarted::Refused(refusal)) => Err(refusal),
    };
    ending.wait().await;
    result
}

/// Waits for what ends the node, and remembers where its peers are meanwhile.
async fn watch_over(
    daemon: &Daemon,
    record: &mut Record,
    identity: &Identity,
    started: Started,
    stop: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<Ended, Refusal> {
    let Started { store, mut snapshots, mut standing } = started;
    let mut status = store.status();
    snapshots.mark_changed();
    let fault = loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Ended::Stopped),
            () = left(&mut standing) => {
                record.left = true;
                daemon.home.remember(record).map_err(|error| error.refusal("that this node has left was not written down"))?;
                return Ok(Ended::Stopped);
            }
            () = stop.cancelled() => return Err(gave_up("a part of the node failed; its log says which")),
            failed = status.wait_for(|status| status.fault.is_some()) => {
                break failed.ok().and_then(|status| status.fault.clone());
            }
            Ok(()) = snapshots.changed() => {
                let peers = admission::peers(&snapshots.borrow_and_update());
                if !peers.is_empty() && peers != record.peers {
                    record.peers = peers;
                    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))?;
                }
            }
        }
    };
    match fault {
        Some(fault) if fault.is_damage() => {
            let fenced = daemon.fence(identity, &fault.to_string())?;
            // Until there is a new id, pods, names and routes go on with what was known last.
            tokio::select! {
                () = stop.cancelled() => {}
                renewed = daemon.take_new_id(&fenced, record, shutdown) => match renewed? {
                    Some(renewed) => *record = renewed,
                    None => return Ok(Ended::Stopped),
                }
            }
            Ok(Ended::Fenced)
        }
        Some(Fault::Full(because)) => Ok(Ended::Full(because)),
        fault => Err(gave_up(&fault.map_or_else(|| "the store ended".to_owned(), |fault| fault.to_string()))),
    }
}

/// Keeps what this run measured for the next one, which may go on without it.
fn remember_measured(daemon: &Daemon, record: &mut Record, store: &Store) {
    let (sync, round_trip) = store.measured();
    let measured = record.measured.unwrap_or_default().renewed(sync, round_trip);
    if record.measured.replace(measured) != Some(measured)
        && let Err(error) = daemon.home.remember(record)
    {
        tracing::warn!(error = %chain(&error), "what was measured of disk and network was not kept");
    }
}

/// Waits until the node has left its cluster, and for a moment more, in which it can still say so.
async fn left(standing: &mut watch::Receiver<Standing>) {
    match standing.wait_for(|standing| *standing == Standing::Left).await {
        Ok(_) => tokio::time::sleep(FAREWELL).await,
        // Whoever told the standing has ended with the rest of the node.
        Err(_) => std::future::pending().await,
    }
}
