//! Carries the store's own verbs out. What they may reach was checked before (`access.rs`).
//!
//! Invariant: nothing of the cluster's own is in an answer, and every answer fits into a frame: a delivery that does not comes in pieces.

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, Stream},
};
use quorate_proto::{
    lease::Lease,
    refusal::Refusal,
    request::Answer,
    store::{PIECE, StoreAnswer, StoreRequest, is_users},
};

use crate::{
    seam::{Ended, KeyValue, Unread},
    verbs::{Answers, one},
};

/// The answers to a verb.
pub(crate) async fn answers(store: &dyn KeyValue, request: StoreRequest) -> Result<Answers, Refusal> {
    let answer = match request {
        StoreRequest::Query { read, query } => match store.query(read, &query).await {
            Ok(page) => StoreAnswer::Page(page),
            Err(Unread::Compacted { oldest }) => StoreAnswer::Compacted { oldest },
            Err(Unread::FutureRevision { asked, at }) => StoreAnswer::FutureRevision { asked, at },
            Err(Unread::Refused(refusal)) => return Err(refusal),
        },
        StoreRequest::Execute(command) => StoreAnswer::Outcome(store.execute(&command).await?),
        StoreRequest::Watch(spec) => match store.watch(spec) {
            Ok((after, deliveries)) => {
                let begun = stream::iter([Answer::Store(StoreAnswer::Watching(after))]);
                return Ok(begun.chain(deliveries.flat_map(told)).boxed());
            }
            Err(end) => return Ok(one(ended(end))),
        },
        StoreRequest::KeepAlive(lease) => {
            let kept = store.keep_alive(lease).await?;
            StoreAnswer::Kept(kept.map(|time| time.as_secs()))
        }
        StoreRequest::TimeToLive(lease) => shown(store.lease(lease).await?),
    };
    Ok(one(Answer::Store(answer)))
}

/// The answers that tell a delivery: one, unless it is very large.
fn told(delivery: Result<Bytes, Ended>) -> impl Stream<Item = Answer> + Send {
    let (mut rest, end) = match delivery {
        Ok(bytes) => (Some(bytes), None),
        Err(end) => (None, Some(ended(end))),
    };
    let pieces = std::iter::from_fn(move || {
        let mut bytes = rest.take()?;
        if bytes.len() > PIECE {
            rest = Some(bytes.split_off(PIECE));
        }
        Some(Answer::Store(StoreAnswer::Watched { bytes, more: rest.is_some() }))
    });
    stream::iter(pieces.chain(end))
}

fn ended(end: Ended) -> Answer {
    match end {
        Ended::Compacted { oldest } => Answer::Store(StoreAnswer::Compacted { oldest }),
        Ended::Cancelled { after, because } => Answer::Store(StoreAnswer::Cancelled { after, because }),
        Ended::Refused(refusal) => Answer::Refused(refusal),
    }
}

/// A lease with as many of its users' keys as fit.
fn shown(lease: Option<Lease>) -> StoreAnswer {
    let Some(mut lease) = lease else { return StoreAnswer::Lease { lease: None, more: false } };
    let mut room = PIECE;
    lease.keys.retain(is_users);
    let fitting = lease.keys.iter().take_while(|key| {
        let fits = room.checked_sub(key.as_str().len() + 9);
        room = fits.unwrap_or(0);
        fits.is_some()
    });
    let fitting = fitting.count();
    let more = fitting < lease.keys.len();
    lease.keys.truncate(fitting);
    StoreAnswer::Lease { lease: Some(lease), more }
}

#[cfg(test)]
mod tests;
