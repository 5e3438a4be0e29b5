//! A bidirectional stream inside a connection, in our own types.
//!
//! Invariant: a stream that is dropped before it was finished is reset, so that the other side never takes a part for the whole.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::VarInt;
use quorate_proto::wire;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::frame::{self, FrameError};

/// The code of a stream that was dropped before it was finished.
const ABANDONED: u32 = 1;

/// Keeps the stream's connection from being closed as unused.
#[derive(Debug)]
struct Hold {
    connection: quinn::Connection,
    _in_use: TaskTrackerToken,
}

/// Both directions of a stream.
#[derive(Debug)]
pub struct Stream {
    /// What we say.
    pub send: SendStream,
    /// What we hear.
    pub receive: ReceiveStream,
}

impl Stream {
    pub(crate) fn new(
        connection: &quinn::Connection,
        in_use: TaskTrackerToken,
        (send, receive): (quinn::SendStream, quinn::RecvStream),
    ) -> Self {
        let hold = Arc::new(Hold { connection: connection.clone(), _in_use: in_use });
        Self {
            send: SendStream { inner: send, ended: false, _hold: Arc::clone(&hold) },
            receive: ReceiveStream { inner: receive, hold },
        }
    }

    /// Writes one frame, of at most `cap` bytes.
    ///
    /// # Errors
    /// As [`frame::write`].
    pub async fn write_frame<T: Serialize + Sync>(&mut self, value: &T, cap: usize) -> Result<(), FrameError> {
        frame::write(&mut self.send, value, cap).await
    }

    /// Reads one frame, of at most `cap` bytes; `None` if the other side finished before it.
    ///
    /// # Errors
    /// As [`frame::read`].
    pub async fn read_frame<T: DeserializeOwned>(&mut self, cap: usize) -> Result<Option<T>, FrameError> {
        frame::read(&mut self.receive, cap).await
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// If the stream was cut.
    pub fn finish(&mut self) -> io::Result<()> {
        self.send.finish()
    }

    /// Both directions apart, to be used by two tasks.
    #[must_use]
    pub fn into_split(self) -> (SendStream, ReceiveStream) {
        (self.send, self.receive)
    }

    /// Closes the stream's whole connection with a code of the protocol spoken on it: for DNS over QUIC, whose framing errors end the
    /// connection (RFC 9250 §4.3).
    pub fn close_connection(&self, code: u32) {
        self.receive.hold.connection.close(VarInt::from_u32(code), &[]);
    }
}

/// The sending direction of a stream.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
    ended: bool,
    _hold: Arc<Hold>,
}

impl SendStream {
    /// Says that nothing more will be written. What was written is still delivered.
    ///
    /// # Errors
    /// If the stream was cut.
    pub fn finish(&mut self) -> io::Result<()> {
        self.ended = true;
        self.inner.finish().map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))
    }

    /// Gives the stream up: the other side gets an error with `code` instead of the rest.
    pub fn reset(&mut self, code: u32) {
        self.ended = true;
        // It fails only for a stream that has ended already.
        self.inner.reset(VarInt::from_u32(code)).unwrap_or_default();
    }

    /// Streams of higher priority are sent first; 0 is the default. Votes and heartbeats +10, snapshots and logs −10.
    pub fn set_priority(&self, priority: i32) {
        // It fails only for a stream that has ended already.
        self.inner.set_priority(priority).unwrap_or_default();
    }

    /// Waits until the other side wants no more of this stream, has all of it, or is gone.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.inner.stopped();
        // An error is the third case.
        async move { stopped.await.map(drop).unwrap_or_default() }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(ABANDONED);
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.ended { Ok(()) } else { self.finish() })
    }
}

/// The receiving direction of a stream. Dropped before its end, it tells the other side to stop.
#[derive(Debug)]
pub struct ReceiveStream {
    inner: quinn::RecvStream,
    hold: Arc<Hold>,
}

impl ReceiveStream {
    /// Tells the other side to stop sending, with `code`.
    pub fn stop(&mut self, code: u32) {
        // It fails only for a stream that has ended already.
        self.inner.stop(VarInt::from_u32(code)).unwrap_or_default();
    }

    /// Reads what is left, up to `limit` bytes.
    ///
    /// # Errors
    /// If there is more, or the stream was cut.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, FrameError> {
        self.inner.read_to_end(limit).await.map_err(|error| match error {
            quinn::ReadToEndError::TooLong => wire::WireError::TooLarge { length: limit + 1, cap: limit }.into(),
            quinn::ReadToEndError::Read(error) => FrameError::Stream(error.into()),
        })
    }
}

impl AsyncRead for ReceiveStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.inner), context, buffer)
    }
}
