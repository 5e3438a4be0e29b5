//! Frames on a stream: the form every message between nodes has (`quorate_proto::wire`).
//!
//! Invariant: a length is checked before anything is allocated for it, and a buffer grows only as bytes arrive, 64 KiB at a time.

use std::io;

use bytes::BytesMut;
use quorate_proto::wire::{self, HEADER, WireError};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How far a buffer grows ahead of what has arrived, in bytes.
const STEP: usize = 64 << 10;

/// Why a frame was not read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Its bytes are no frame of this type, or beyond its cap.
    #[error("not a frame of the expected kind")]
    Wire(#[from] WireError),
    /// The stream was reset, or its connection lost.
    #[error("the stream was cut")]
    Stream(#[from] io::Error),
    /// The stream ended inside a frame, or before one that had to come.
    #[error("the stream ended too early")]
    Ended,
}

/// Writes a frame. Does not finish the stream.
///
/// # Errors
/// If the value is beyond `cap` bytes, or the stream was cut.
pub async fn write<T: Serialize + Sync>(
    to: &mut (impl AsyncWrite + Unpin),
    value: &T,
    cap: usize,
) -> Result<(), FrameError> {
    let frame = wire::frame(value, cap)?;
    to.write_all(&frame).await?;
    Ok(to.flush().await?)
}

/// Reads a frame; `None` if the stream ended before it. Not cancel-safe: what was read of a frame is lost with the future.
///
/// # Errors
/// If the frame is beyond `cap` bytes or malformed, or the stream was cut or ended inside it.
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    cap: usize,
) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match from.read(&mut header[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(FrameError::Ended),
            read => filled += read,
        }
    }
    let length = wire::length(header, cap)?;
    let mut body = BytesMut::new();
    while body.len() < length {
        let step = STEP.min(length - body.len());
        body.reserve(step);
        if (&mut *from).take(step as u64).read_buf(&mut body).await? == 0 {
            return Err(FrameError::Ended);
        }
    }
    Ok(Some(wire::decode(&body, cap)?))
}

/// Reads a frame that must come.
///
/// # Errors
/// As [`read`], and if the stream ended before it.
pub async fn expect<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), cap: usize) -> Result<T, FrameError> {
    read(from, cap).await?.ok_or(FrameError::Ended)
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::cap;

    use super::*;

    #[tokio::test]
    async fn frames_read_back_as_they_were_written_until_the_stream_ends() {
        let (mut near, mut far) = tokio::io::duplex(100);
        let large = vec![7_u8; 200_000];
        let writing = async {
            write(&mut near, &large, cap::API).await.unwrap();
            write(&mut near, &"second", cap::CONTROL).await.unwrap();
            drop(near);
        };
        let reading = async {
            assert_eq!(expect::<Vec<u8>>(&mut far, cap::API).await.unwrap(), large);
            assert_eq!(expect::<String>(&mut far, cap::CONTROL).await.unwrap(), "second");
            assert!(read::<String>(&mut far, cap::CONTROL).await.unwrap().is_none());
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn a_frame_beyond_its_cap_is_refused_by_its_length_alone() {
        let mut bytes: &[u8] = &u32::MAX.to_be_bytes();
        let error = read::<String>(&mut bytes, cap::CONTROL).await.unwrap_err();
        assert!(matches!(error, FrameError::Wire(WireError::TooLarge { length: 0xffff_ffff, cap: cap::CONTROL })));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_told_from_one_that_ends_before_it() {
        let whole = wire::frame(&"word", cap::CONTROL).unwrap();
        for cut in 1..whole.len() {
            let mut bytes = &whole[..cut];
            assert!(matches!(read::<String>(&mut bytes, cap::CONTROL).await, Err(FrameError::Ended)), "{cut}");
        }
    }
}
