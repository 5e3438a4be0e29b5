//! When writes were acknowledged: how long a fault keeps everybody from writing.
//!
//! Invariant: a write counts as one after a fault only if it was asked for after it.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// What is known of the acknowledged writes; times are the record's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beat {
    /// How many there are.
    pub(super) acknowledged: u64,
    /// The longest time between two of them.
    pub(super) longest: u64,
    last: Option<u64>,
    /// When the mark was set, and how long after it the first write was acknowledged that was asked for later.
    marked: u64,
    back: Option<u64>,
}

/// Told of every acknowledged write.
pub(super) struct Pulse(watch::Sender<Beat>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Beat::default()))
    }

    /// A write that was asked for at one time was acknowledged at another.
    pub(super) fn acknowledged(&self, called: u64, now: u64) {
        self.0.send_modify(|beat| {
            beat.acknowledged += 1;
            beat.longest = beat.longest.max(beat.last.map_or(0, |last| now.saturating_sub(last)));
            beat.last = Some(now);
            if called > beat.marked {
                beat.back.get_or_insert(now - beat.marked);
            }
        });
    }

    /// Nobody writes for a while on purpose.
    pub(super) fn rests(&self) {
        self.0.send_modify(|beat| beat.last = None);
    }

    /// What is known.
    pub(super) fn beat(&self) -> Beat {
        *self.0.borrow()
    }

    /// Sets the mark.
    pub(super) fn mark(&self, now: u64) {
        self.0.send_modify(|beat| (beat.marked, beat.back) = (now, None));
    }

    /// How long after the mark writes came back, as soon as they do, if they do in time.
    pub(super) async fn back(&self, patience: Duration) -> Option<Duration> {
        let mut beats = self.0.subscribe();
        let beat = timeout(patience, beats.wait_for(|beat| beat.back.is_some())).await.ok()?.ok()?;
        beat.back.map(Duration::from_micros)
    }
}
