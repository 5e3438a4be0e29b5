//! What users keep in the store, as the API's verbs reach it.
//!
//! Invariant: a store's error becomes a refusal that says whether anything may have been done; what the state machine refused is an
//! outcome, no error.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_api::{Deliveries, Ended, KeyValue, Unread};
use quorate_proto::{
    lease::{Lease, LeaseId},
    query::{Page, Query},
    refusal::{Reason, Refusal, chain},
    request::Read,
    store::MAX_DELIVERY,
    txn::{Command, CommandOutcome, CommandRefusal, Revision},
    watch::{Delivery, WatchSpec},
    wire::{self, WireError, cap},
};
use quorate_raft::{CommandError, Delivered, RangeWatch, ReadError, Store, WatchError};

use crate::desired::{not_proposed, not_read, not_watched};

/// The store, for those who keep keys in it.
pub(crate) struct Kept(Store);

impl Kept {
    /// In this store.
    #[must_use]
    pub(crate) const fn new(store: Store) -> Self {
        Self(store)
    }
}

#[async_trait]
impl KeyValue for Kept {
    async fn query(&self, read: Read, query: &Query) -> Result<Page, Unread> {
        self.0.query(read, query).await.map_err(|error| match error {
            ReadError::Compacted { oldest } => Unread::Compacted { oldest },
            ReadError::FutureRevision { asked, at } => Unread::FutureRevision { asked, at },
            error => Unread::Refused(not_read(&error)),
        })
    }

    async fn execute(&self, command: &Command) -> Result<CommandOutcome, Refusal> {
        match self.0.execute(command).await {
            Ok(outcome) => Ok(outcome),
            Err(CommandError::Refused(refusal)) => Ok(CommandOutcome::Refused(refusal)),
            Err(error) => Err(not_executed(&error)),
        }
    }

    fn watch(&self, spec: WatchSpec) -> Result<(Revision, Deliveries), Ended> {
        let watch = self.0.watch_range(spec).map_err(|error| ended(&error, None))?;
        let after = watch.delivered();
        let deliveries = stream::unfold(Some((watch, after)), async |state| {
            let (mut watch, told) = state?;
            match next(&mut watch, told).await {
                Ok((bytes, told)) => Some((Ok(bytes), Some((watch, told)))),
                Err(end) => Some((Err(end), None)),
            }
        });
        Ok((after, deliveries.boxed()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, Refusal> {
        found(self.0.keep_alive(lease).await)
    }

    async fn lease(&self, lease: LeaseId) -> Result<Option<Lease>, Refusal> {
        found(self.0.lease(lease).await)
    }
}

/// The next delivery's envelope, and up to which revision all was told with it.
async fn next(watch: &mut RangeWatch, told: Revision) -> Result<(bytes::Bytes, Revision), Ended> {
    let delivered = watch.next().await.map_err(|error| ended(&error, Some(told)))?;
    let (envelope, upto) = match &delivered {
        Delivered::Update(update) => (update.frame(), update.update().revision),
        Delivered::Progress(revision) => (wire::encode(&Delivery::Progress(*revision), cap::CONTROL), *revision),
    };
    envelope.map(|bytes| (bytes, upto)).map_err(|error| {
        Ended::Refused(match error {
            WireError::TooLarge { .. } => {
                let because = format!("what revision {upto} did there is larger than {MAX_DELIVERY} bytes, the limit");
                let hint = format!("watch after revision {upto}, without previous rows or in smaller ranges");
                Refusal::new(Reason::TooLarge, "the watch ended", because).hint(hint)
            }
            error => Refusal::new(Reason::Internal, "the watch ended", chain(&error)),
        })
    })
}

/// Why a watch ends that has told everything up to a revision, or has not begun.
fn ended(error: &WatchError, told: Option<Revision>) -> Ended {
    match (error, told) {
        (WatchError::Compacted { oldest }, _) => Ended::Compacted { oldest: *oldest },
        (error, Some(after)) => Ended::Cancelled { after, because: chain(error) },
        (error, None) => Ended::Refused(not_watched(error)),
    }
}

fn found<T>(left: Result<T, CommandError>) -> Result<Option<T>, Refusal> {
    match left {
        Ok(left) => Ok(Some(left)),
        Err(CommandError::Refused(CommandRefusal::NoSuchLease(_))) => Ok(None),
        Err(error) => Err(not_executed(&error)),
    }
}

fn not_executed(error: &CommandError) -> Refusal {
    match error {
        CommandError::Propose(error) => not_proposed(error),
        error => Refusal::new(Reason::Invalid, "nothing was written", chain(error)),
    }
}

#[cfg(test)]
mod tests;
