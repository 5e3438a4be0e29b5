//! Chooses how fast this node's elections are, when it starts.
//!
//! The first time the disk is probed; from then on, what the last run saw counts.
//!
//! Invariant: a node whose disk cannot be probed is careful, and starts all the same.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use quorate_proto::world::Clock;
use quorate_raft::{Measured, Pace};

use crate::home::Record;

/// How many syncs a probe takes, and how large each is, in bytes.
const SYNCS: usize = 8;
const SIZE: usize = 4096;
/// A probe that has taken so long has seen enough.
const ENOUGH: Duration = Duration::from_millis(400);
/// A few syncs seldom show the slowest: so many times as long is expected.
const UNSEEN: u32 = 3;

/// The pace for this run. What it was chosen by is put into the record.
pub(super) fn choose(record: &mut Record, data: &Path, clock: &dyn Clock) -> Pace {
    let measured = record.measured.map_or_else(|| probe(data, clock), Ok);
    let pace = match measured {
        Ok(measured) => {
            record.measured = Some(measured);
            Pace::fitting(measured, record.pace)
        }
        Err(error) => {
            tracing::warn!(%error, "the disk could not be measured: elections are careful");
            Pace::Careful
        }
    };
    record.pace = Some(pace);
    let millis = |micros: u64| micros.div_ceil(1000);
    let Measured { sync_micros, round_trip_micros } = record.measured.unwrap_or_default();
    let (sync, way) = (millis(sync_micros), millis(round_trip_micros));
    tracing::info!(%pace, "elections go by a sync of {sync} ms and a way of {way} ms to other voters and back");
    pace
}

fn probe(data: &Path, clock: &dyn Clock) -> io::Result<Measured> {
    let mut file = tempfile::tempfile_in(data)?;
    let began = clock.now();
    let mut slowest = Duration::ZERO;
    for _ in 0..SYNCS {
        let before = clock.now();
        file.write_all(&[0x5a; SIZE])?;
        file.sync_data()?;
        slowest = slowest.max(clock.now().since(before));
        if clock.now().since(began) >= ENOUGH {
            break;
        }
    }
    Ok(Measured::default().renewed(Some(slowest * UNSEEN), None))
}
