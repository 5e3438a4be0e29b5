//! What a program does that is told to stop: it lets go of everything, and so ends every process that it started.
//!
//! Invariant: what was running is dropped, not left behind.

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Goes on until the end, or until SIGINT, SIGTERM or SIGHUP comes.
///
/// # Errors
/// Of what is done, or which signal came.
pub async fn unless_told_to_stop<T>(done: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    tokio::select! {
        done = done => done,
        _ = interrupt.recv() => Err("it was interrupted".into()),
        _ = terminate.recv() => Err("it was told to stop".into()),
        _ = hangup.recv() => Err("its terminal went away".into()),
    }
}
