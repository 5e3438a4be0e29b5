//! Messages on a stream, TCP's (RFC 1035, 4.2.2) or QUIC's (RFC 9250, 4.2): two bytes of length, and the message.
//!
//! Invariant: a length is compared with the limit before anything is allocated for it.

use std::io;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::message::MAX_QUESTION;

/// Why a message could not be read from a stream.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a question of {0} bytes is beyond the limit of {MAX_QUESTION}")]
    TooLarge(usize),
    /// Shorter than a header.
    #[error("a question of {0} bytes is shorter than its own header")]
    TooShort(usize),
    /// The stream broke, or ended inside a message.
    #[error("the stream broke")]
    Broken(#[source] io::Error),
}

/// Reads a message; `None` if the stream ended before one began.
pub(crate) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Bytes>, FrameError> {
    const HEADER: usize = 12;
    let mut length = [0; 2];
    match reader.read(&mut length).await.map_err(FrameError::Broken)? {
        0 => return Ok(None),
        read => reader.read_exact(&mut length[read..]).await.map_err(FrameError::Broken)?,
    };
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_QUESTION {
        return Err(FrameError::TooLarge(length));
    }
    if length < HEADER {
        return Err(FrameError::TooShort(length));
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await.map_err(FrameError::Broken)?;
    Ok(Some(message.into()))
}

/// Writes a message, length and all at once, so that it leaves in one packet.
pub(crate) async fn write(writer: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    writer.write_all(&framed).await?;
    writer.flush().await
}
