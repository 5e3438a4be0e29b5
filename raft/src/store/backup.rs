//! A backup of the running store: one consistent state, written while everything goes on.
//!
//! Invariant: a backup holds up nothing and takes memory for a few pieces, however large the state is; one that nobody reads any more
//! ends.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use quorate_proto::{request::Read, world::Timestamp};
use tokio::{runtime::Handle, sync::mpsc};

use super::{ReadError, Store};
use crate::{
    backup,
    engine::{Engine, look},
};

/// Pieces that wait for their reader.
const AHEAD: usize = 4;

/// A reader that takes no piece for so long is given up: the state it reads from would be kept for ever.
const IDLE: Duration = Duration::from_secs(60);

impl Store {
    /// The state as a backup, at one revision that is as fresh as `read` asks for: its bytes, in pieces of at most [`backup::PIECE`].
    ///
    /// `taken` is the wall time that it will say. The stream ends with an error if the state cannot be read to its end, or if its reader
    /// pauses for more than a minute.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn backup(
        &self,
        read: Read,
        taken: Timestamp,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ReadError> {
        self.read(read).await?;
        let (engine, cluster, taken) = (Arc::clone(&self.inner.engine), self.inner.cluster, taken.as_second());
        let write = move |engine: &dyn Engine, send: &mut dyn FnMut(Bytes) -> io::Result<()>| {
            look(engine, |view| backup::write(view, cluster, taken, send))
        };
        if !self.inner.blocking {
            // In memory nothing waits, and a simulated run must not leave its thread.
            let mut pieces = Vec::new();
            let written = write(&*engine, &mut |piece| {
                pieces.push(Ok(piece));
                Ok(())
            });
            return Ok(stream::iter(pieces.into_iter().chain(written.err().map(Err))).boxed());
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let runtime = Handle::current();
        let writing = tokio::task::spawn_blocking(move || {
            write(&*engine, &mut |piece| {
                runtime.block_on(sender.send_timeout(piece, IDLE)).map_err(|_| io::Error::other("nobody reads it"))
            })
        });
        let pieces = stream::unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await?), receiver)));
        let ended = stream::once(writing).filter_map(async |ended| match ended {
            Ok(written) => written.err().map(Err),
            Err(_) => Some(Err(io::Error::other("it was not finished"))),
        });
        Ok(pieces.chain(ended).boxed())
    }
}
