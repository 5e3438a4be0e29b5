//! Frames and envelopes: how values become bytes. The one file that names bincode (D7).
//!
//! A frame is `u32 length (big endian) | version byte | bincode`, where the length counts the version byte and the body. An envelope,
//! which is stored, is the same without the length. Types may only grow at the end of their enums; golden bytes are in `tests/golden`.
//!
//! Invariant: a length is compared with the cap of its type before anything is allocated for it, and no byte is left over.

use std::cell::Cell;

use bytes::{BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The version all frames and envelopes have today.
pub const VERSION: u8 = 1;

/// Bytes of a frame's length.
pub const HEADER: usize = 4;

/// The largest buffer that a thread keeps for what it encodes next, in bytes.
const KEPT: usize = 64 << 10;

/// Caps on frames, by what they carry, in bytes.
pub mod cap {
    /// Hello, join, heartbeats, votes, stream headers.
    pub const CONTROL: usize = 64 << 10;
    /// Requests and replies: one object or transaction, and what surrounds it. A list is sent in several frames.
    pub const API: usize = (3 << 19) + (64 << 10);
    /// Log entries: at least one of the largest.
    pub const APPEND: usize = 4 << 20;
    /// A block of a snapshot.
    pub const SNAPSHOT: usize = (256 << 10) + 1024;
}

/// Why bytes are no frame or envelope.
#[derive(Debug, Error)]
pub enum WireError {
    /// The length is beyond the cap.
    #[error("a frame of {length} bytes is beyond the limit of {cap}")]
    TooLarge {
        /// What the frame claims or has.
        length: usize,
        /// What its type allows.
        cap: usize,
    },
    /// The frame is empty.
    #[error("a frame without a version byte")]
    Empty,
    /// Written by another version.
    #[error("version {0} is not known here (this node knows {VERSION}): one of the two needs an upgrade")]
    Version(u8),
    /// Not what its type says.
    #[error("malformed: {0}")]
    Malformed(String),
    /// More bytes than the value needs.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// Writes an envelope: version byte and body.
///
/// # Errors
/// If the value is beyond the cap.
pub fn encode<T: Serialize>(value: &T, cap: usize) -> Result<Bytes, WireError> {
    scratch(|bytes| put(value, cap, bytes))
}

/// Writes a frame: length, version byte and body.
///
/// # Errors
/// If the value is beyond the cap.
pub fn frame<T: Serialize>(value: &T, cap: usize) -> Result<Bytes, WireError> {
    scratch(|bytes| {
        bytes.put_u32(0);
        put(value, cap, bytes)?;
        let length = bytes.len() - HEADER;
        let header = u32::try_from(length).map_err(|_| WireError::TooLarge { length, cap })?;
        bytes[..HEADER].copy_from_slice(&header.to_be_bytes());
        Ok(())
    })
}

fn put<T: Serialize>(value: &T, cap: usize, bytes: &mut Vec<u8>) -> Result<(), WireError> {
    let start = bytes.len();
    bytes.put_u8(VERSION);
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    let length = bytes.len() - start;
    if length > cap { Err(WireError::TooLarge { length, cap }) } else { Ok(()) }
}

/// Has bytes written where there is room already, and returns as many as were: a buffer that grows is moved again and again.
fn scratch(write: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>) -> Result<Bytes, WireError> {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Whatever encodes while something is encoded finds an empty one, and is slower for it.
    let mut bytes = SCRATCH.take();
    bytes.clear();
    let written = write(&mut bytes).map(|()| Bytes::copy_from_slice(&bytes));
    if bytes.capacity() <= KEPT {
        SCRATCH.set(bytes);
    }
    written
}

/// Reads a frame's length, before its body is read.
///
/// # Errors
/// If it is beyond the cap, or zero.
pub const fn length(header: [u8; HEADER], cap: usize) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(header) as usize;
    if length > cap {
        Err(WireError::TooLarge { length, cap })
    } else if length == 0 {
        Err(WireError::Empty)
    } else {
        Ok(length)
    }
}

/// Reads an envelope, or the part of a frame behind its length.
///
/// # Errors
/// If it is beyond the cap, of another version, malformed, or has bytes left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], cap: usize) -> Result<T, WireError> {
    if bytes.len() > cap {
        return Err(WireError::TooLarge { length: bytes.len(), cap });
    }
    let (version, body) = bytes.split_first().ok_or(WireError::Empty)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    let (value, read) =
        bincode::serde::decode_from_slice(body, bounded()).map_err(|error| WireError::Malformed(error.to_string()))?;
    if read == body.len() { Ok(value) } else { Err(WireError::Trailing(body.len() - read)) }
}

/// bincode's own limit: no length inside a body makes it allocate more than the largest body could fill.
const fn bounded() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<{ cap::APPEND }>,
> {
    bincode::config::standard().with_limit::<{ cap::APPEND }>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::RequestId,
        key::Key,
        txn::{Command, Document, Revision, Txn},
    };

    fn command() -> Command {
        let key = Key::new("", "pods", Some("default"), "web").unwrap();
        Command::Apply {
            request: RequestId(7),
            txn: Txn::new().update(key, Revision(300), Document(Bytes::from_static(b"{}"))),
        }
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let frame = frame(&command(), cap::API).unwrap();
        let header = frame[..HEADER].try_into().unwrap();
        assert_eq!(length(header, cap::API).unwrap(), frame.len() - HEADER);
        assert_eq!(decode::<Command>(&frame[HEADER..], cap::API).unwrap(), command());
    }

    #[test]
    fn a_length_beyond_the_cap_is_refused_before_its_body_is_read() {
        let error = length(u32::MAX.to_be_bytes(), cap::CONTROL).unwrap_err();
        assert_eq!(error.to_string(), "a frame of 4294967295 bytes is beyond the limit of 65536");
        assert!(matches!(length([0; 4], cap::CONTROL), Err(WireError::Empty)));
    }

    #[test]
    fn a_length_inside_a_body_does_not_make_it_allocate() {
        let mut bytes = vec![VERSION, 253];
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&bytes, cap::CONTROL), Err(WireError::Malformed(_))));
    }

    #[test]
    fn other_versions_and_left_over_bytes_are_refused() {
        let envelope = encode(&command(), cap::API).unwrap();
        let mut other = envelope.to_vec();
        other[0] = 9;
        assert!(matches!(decode::<Command>(&other, cap::API), Err(WireError::Version(9))));
        let mut longer = envelope.to_vec();
        longer.push(0);
        assert!(matches!(decode::<Command>(&longer, cap::API), Err(WireError::Trailing(1))));
        assert!(matches!(decode::<Command>(&[], cap::API), Err(WireError::Empty)));
    }

    #[test]
    fn a_value_beyond_the_cap_is_not_written() {
        assert!(matches!(frame(&vec![0_u8; cap::CONTROL], cap::CONTROL), Err(WireError::TooLarge { .. })));
    }
}
