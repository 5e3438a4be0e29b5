//! DNS over QUIC (RFC 9250), one stream at a time: the daemon owns the connection and hands in its streams.
//!
//! Each stream carries one question and its answer, so there is no limit to how many a connection may ask.
//!
//! Invariant: message ids are 0 both ways (RFC 9250, 4.2.1); a stream that breaks the protocol is never answered, and its error says
//! that the whole connection must be closed.

use std::{io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

pub use crate::stream::FrameError;
use crate::{
    names::{Names, Transport},
    stream,
};

/// The ALPN of DNS over QUIC.
pub const ALPN: &[u8] = b"doq";
/// The code to close a connection with when its peer broke the protocol (RFC 9250, 8.4).
pub const DOQ_PROTOCOL_ERROR: u32 = 2;
/// The code to reset a stream with when the fault is ours.
pub const DOQ_INTERNAL_ERROR: u32 = 1;
/// How long a question may take to arrive whole, and an answer to be taken.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Why a stream was not answered.
#[derive(Debug, Error)]
pub enum DoqError {
    /// Not one framed message.
    #[error("the stream carries no question")]
    Frame(#[from] FrameError),
    /// It ended before a question began.
    #[error("the stream ended before a question")]
    Ended,
    /// There is more than one question.
    #[error("more than one question on a stream")]
    Trailing,
    /// Its id is not 0.
    #[error("a question with id {0}, which must be 0")]
    Id(u16),
    /// It is an answer, not a question.
    #[error("an answer where a question must be")]
    NoQuestion,
    /// It did not arrive, or was not taken, in time.
    #[error("nothing moved for {} seconds", DEADLINE.as_secs())]
    Deadline,
    /// The answer could not be sent.
    #[error("the answer could not be sent")]
    Send(#[source] io::Error),
}

impl DoqError {
    /// The code to close the whole connection with; `None` if only this stream is lost.
    #[must_use]
    pub const fn closes_connection(&self) -> Option<u32> {
        match self {
            Self::Frame(FrameError::Broken(_)) | Self::Deadline | Self::Send(_) => None,
            Self::Frame(_) | Self::Ended | Self::Trailing | Self::Id(_) | Self::NoQuestion => Some(DOQ_PROTOCOL_ERROR),
        }
    }
}

/// Answers the question on one stream.
///
/// # Errors
/// If there is none, or it is not framed as it must be; [`DoqError::closes_connection`] tells what to do.
pub async fn serve<S, R>(names: &Names, mut send: S, mut receive: R, source: SocketAddr) -> Result<(), DoqError>
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let question = timeout(DEADLINE, question(&mut receive)).await.map_err(|_| DoqError::Deadline)??;
    let answer = names.answer(&question, Transport::Quic, source).await.ok_or(DoqError::NoQuestion)?;
    let send = async {
        stream::write(&mut send, &answer).await?;
        send.shutdown().await
    };
    timeout(DEADLINE, send).await.map_err(|_| DoqError::Deadline)?.map_err(DoqError::Send)
}

/// One question, and the end of the stream: a client must send it together with its question (RFC 9250, 4.2).
async fn question(receive: &mut (impl AsyncRead + Unpin)) -> Result<bytes::Bytes, DoqError> {
    let question = stream::read(receive).await?.ok_or(DoqError::Ended)?;
    let more = receive.read(&mut [0]).await.map_err(FrameError::Broken)?;
    if more > 0 {
        return Err(DoqError::Trailing);
    }
    match u16::from_be_bytes([question[0], question[1]]) {
        0 => Ok(question),
        id => Err(DoqError::Id(id)),
    }
}

#[cfg(test)]
mod tests;
