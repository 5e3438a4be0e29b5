//! Reads everything a store keeps, and compares what must agree: damage that nobody happens to read is found before it spreads.
//!
//! The running hash covers what was applied, not what became of it on the disk. So the present (`kv_cur`) is compared with the newest
//! versions of the history (`kv_hist`), and the history with the order of its revisions (`kv_rev`): rows that were lost whole, which no
//! checksum sees, leave a difference.
//!
//! Invariant: a scrub changes nothing; what it reads does not push anything out of the caches.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use quorate_proto::txn::Revision;
use tokio::{runtime::Handle, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    columns::{self, Column},
    engine::{Engine, View, look},
    machine::{self, Current, Meta},
    record,
    snapshot::{SnapshotFile, Vault},
};

/// How often everything is read.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// After so many bytes a scrub lets others go first: it reads at most 20 MiB a second.
const STEP: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Rows, however many: two sums are equal if their rows are, and hardly otherwise. The order does not matter.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(value);
        self.rows += 1;
        self.hashes = self.hashes.wrapping_add(u64::from(hasher.finalize()));
    }
}

/// What is called with the bytes of each row that was read: it may wait, or end the scrub by an error.
pub(crate) type Pace<'a> = dyn FnMut(usize) -> io::Result<()> + 'a;

/// Reads everything once a day, and at once after a process was killed; what it finds raises the fence.
pub(crate) async fn keep(
    engine: Arc<dyn Engine>,
    vault: Vault,
    killed: bool,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut pause = if killed { Duration::ZERO } else { EVERY };
    while shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
        pause = EVERY;
        let (engine, vault, shutdown) = (Arc::clone(&engine), vault.clone(), shutdown.clone());
        let read = tasks.spawn_blocking(move || all(&*engine, &vault, &mut gently(shutdown))).await;
        match read {
            Ok(Ok(())) => tracing::info!("everything that is kept was read, and is whole"),
            Ok(Err(error)) => tracing::warn!(%error, "what is kept was not read to its end"),
            Err(error) => tracing::warn!(%error, "the scrub ended"),
        }
    }
}

/// Checks everything.
///
/// # Errors
/// If something is damaged or missing, or the pace ends it.
fn all(engine: &dyn Engine, vault: &Vault, pace: &mut Pace<'_>) -> io::Result<()> {
    look(engine, |view| {
        state(view, pace)?;
        rest(view, pace)
    })?;
    vault.current()?.map_or(Ok(()), |kept| snapshot(&kept, pace))
}

/// A pace that leaves the disk to others most of the time, and ends with the store.
fn gently(shutdown: CancellationToken) -> impl FnMut(usize) -> io::Result<()> {
    let mut read = 0;
    move |bytes| {
        read += bytes;
        if read >= STEP {
            read = 0;
            Handle::current().block_on(shutdown.run_until_cancelled(sleep(PAUSE)));
        }
        if shutdown.is_cancelled() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Checks the state: every row of it, and that its columns agree.
///
/// # Errors
/// If something is damaged or missing, or the pace ends it.
pub(crate) fn state(view: &dyn View, pace: &mut Pace<'_>) -> io::Result<()> {
    let meta = Meta::load(view)?;
    let mut present = Sum::default();
    view.sweep(Column::Current, &mut |key, row| {
        record::decode::<Current>(row)?;
        present.add(key, row);
        pace(key.len() + row.len())?;
        Ok(ControlFlow::Continue(()))
    })?;

    let (mut newest, mut versions) = (Sum::default(), Sum::default());
    let mut before: Vec<u8> = Vec::new();
    view.sweep(Column::History, &mut |key, row| {
        let version = columns::version_of(key);
        let version = version.and_then(|(name, revision)| Some((columns::unescape(name)?, revision)));
        let (name, revision) = version.ok_or_else(|| record::damaged("a key of kv_hist".to_owned()))?;
        let version: Option<Current> = record::decode(row)?;
        if name != before {
            if let Some(current) = &version {
                newest.add(&name, &record::encode(current)?);
            }
            before.clone_from(&name);
        }
        if revision > meta.compacted {
            versions.add(&name, &revision_row(revision, version.is_none()));
        }
        pace(key.len() + row.len())?;
        Ok(ControlFlow::Continue(()))
    })?;
    if present != newest {
        return Err(record::damaged(format!(
            "the present has {} keys, the newest versions of the history {}, or other ones",
            present.rows, newest.rows
        )));
    }

    let mut operations = Sum::default();
    view.sweep(Column::Revisions, &mut |key, row| {
        let (revision, _) = columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        if revision > meta.compacted {
            let (key, deleted) = machine::operation(row)?;
            operations.add(key.as_str().as_bytes(), &revision_row(revision, deleted));
        }
        pace(key.len() + row.len())?;
        Ok(ControlFlow::Continue(()))
    })?;
    if operations == versions {
        Ok(())
    } else {
        Err(record::damaged(format!(
            "the revisions have {} operations, the history {} versions, or other ones",
            operations.rows, versions.rows
        )))
    }
}

/// Reads every row of the columns that [`state`] does not.
///
/// # Errors
/// If something is damaged, or the pace ends it.
pub(crate) fn rest(view: &dyn View, pace: &mut Pace<'_>) -> io::Result<()> {
    for column in Column::ALL {
        if matches!(column, Column::Current | Column::History | Column::Revisions) {
            continue;
        }
        view.sweep(column, &mut |key, row| {
            if column == Column::RaftLog {
                record::unseal::<record::Entry>(row)?;
            }
            pace(key.len() + row.len())?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// Reads every block of a snapshot.
///
/// # Errors
/// If something is damaged, or the pace ends it.
pub(crate) fn snapshot(snapshot: &SnapshotFile, pace: &mut Pace<'_>) -> io::Result<()> {
    for index in 0..snapshot.blocks() {
        pace(snapshot.block(index)?.len())?;
    }
    snapshot.verify().map(drop)
}

fn revision_row(revision: Revision, deleted: bool) -> [u8; 9] {
    let mut row = [u8::from(deleted); 9];
    row[..8].copy_from_slice(&revision.0.to_be_bytes());
    row
}

#[cfg(test)]
mod tests;
