//! A watch of a range, with filters, previous rows and progress marks.
//!
//! Invariant: a mark is never ahead of what was delivered, and never behind a revision that the watch began after.

use std::{sync::Arc, time::Duration};

use quorate_proto::{
    txn::Revision,
    watch::{WatchFrom, WatchSpec},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Cursor, Feed, SharedUpdate, WatchError};
use crate::engine::Engine;

/// What a watch of a range is told.
#[derive(Debug, Clone)]
pub enum Delivered {
    /// What one revision did within its range and filters.
    Update(Arc<SharedUpdate>),
    /// There is nothing up to this revision that was not delivered: a watch may be resumed after it.
    Progress(Revision),
}

/// A watch of a range. Resumed, here or on another node, after the last revision that it was told of.
pub struct RangeWatch {
    cursor: Cursor,
    spec: WatchSpec,
    told: Instant,
}

impl RangeWatch {
    pub(crate) fn new(
        feed: Arc<Feed>,
        engine: Arc<dyn Engine>,
        stopped: CancellationToken,
        spec: WatchSpec,
    ) -> Result<Self, WatchError> {
        let from = match spec.from {
            WatchFrom::Now => feed.progress().borrow().revision,
            WatchFrom::After(revision) => revision,
        };
        let cursor = Cursor::new(feed, engine, stopped, from, spec.previous)?;
        Ok(Self { cursor, spec, told: Instant::now() })
    }

    /// What comes next. Waits until there is something.
    ///
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// See [`WatchError`]; afterwards the watch is of no more use.
    pub async fn next(&mut self) -> Result<Delivered, WatchError> {
        loop {
            let revised = match self.spec.progress_millis {
                None => self.cursor.next().await?,
                Some(millis) => {
                    match timeout_at(self.told + Duration::from_millis(millis.max(1)), self.cursor.next()).await {
                        Ok(revised) => revised?,
                        Err(_) => {
                            self.told = Instant::now();
                            let reached = self.cursor.progress.borrow().revision >= self.cursor.delivered;
                            match reached {
                                true => return Ok(Delivered::Progress(self.cursor.delivered)),
                                false => continue,
                            }
                        }
                    }
                }
            };
            if let Some(update) = revised.within(&self.spec) {
                self.told = Instant::now();
                return Ok(Delivered::Update(update));
            }
        }
    }

    /// The last revision that was looked at: there is nothing up to it that was not delivered.
    #[must_use]
    pub const fn delivered(&self) -> Revision {
        self.cursor.delivered
    }
}
