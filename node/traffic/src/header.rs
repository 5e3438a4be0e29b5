//! What a stream between two nodes begins with: whose connection it is and where it goes, and one byte that answers.
//!
//! Invariant: a header is read within its cap; variants are only ever added at the end, statuses never reused.

use std::{
    fmt, io,
    net::{SocketAddr, SocketAddrV4},
};

use quorate_proto::wire::{self, WireError, cap};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The first frame on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Header {
    /// A TCP connection: the bytes that follow are its own.
    Connection(Flow),
    /// A UDP session: datagrams follow, each behind two bytes of length (big endian).
    Session(Flow),
}

/// Who goes where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Names it in the logs of both nodes.
    pub(crate) id: u64,
    /// Who connected, as the node that took the connection saw it.
    pub(crate) source: SocketAddr,
    /// The service's namespace.
    pub(crate) namespace: String,
    /// The service's name.
    pub(crate) service: String,
    /// The service's port.
    pub(crate) port: u16,
    /// Where the pod listens.
    pub(crate) endpoint: SocketAddrV4,
}

/// How the far node answers: one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The pod is connected.
    Connected,
    /// The pod is not one of this node's, or no longer.
    NotHere,
    /// The pod does not accept.
    Refused,
    /// The node that opened the stream has too many.
    TooMany,
    /// What was asked for is not known here.
    Unsupported,
}

/// A header could not be read or written.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// It is no header.
    #[error("not a header")]
    Malformed(#[source] WireError),
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[source] io::Error),
}

pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), header: &Header) -> Result<(), HeaderError> {
    let frame = wire::frame(header, cap::CONTROL).map_err(HeaderError::Malformed)?;
    to.write_all(&frame).await.map_err(HeaderError::Broken)?;
    to.flush().await.map_err(HeaderError::Broken)
}

pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Header, HeaderError> {
    let mut length = [0; wire::HEADER];
    from.read_exact(&mut length).await.map_err(HeaderError::Broken)?;
    let mut body = vec![0; wire::length(length, cap::CONTROL).map_err(HeaderError::Malformed)?];
    from.read_exact(&mut body).await.map_err(HeaderError::Broken)?;
    wire::decode(&body, cap::CONTROL).map_err(HeaderError::Malformed)
}

impl Status {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::NotHere => 1,
            Self::Refused => 2,
            Self::TooMany => 3,
            Self::Unsupported => 4,
        }
    }

    /// A status this version does not know is none that lets us go on.
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Connected,
            1 => Self::NotHere,
            2 => Self::Refused,
            3 => Self::TooMany,
            _ => Self::Unsupported,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connected => "the pod is connected",
            Self::NotHere => "the pod is not one of its own",
            Self::Refused => "the pod does not accept",
            Self::TooMany => "this node has too many streams open there",
            Self::Unsupported => "it does not know this kind of stream",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Header {
        Header::Connection(Flow {
            id: 7,
            source: "10.214.1.5:40000".parse().unwrap(),
            namespace: "shop".into(),
            service: "web".into(),
            port: 80,
            endpoint: "10.214.2.9:8080".parse().unwrap(),
        })
    }

    #[tokio::test]
    async fn a_header_reads_back_as_it_was_written() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        write(&mut near, &connection()).await.unwrap();
        assert_eq!(read(&mut far).await.unwrap(), connection());
    }

    #[test]
    fn a_header_has_the_bytes_it_always_had() {
        let frame = wire::frame(&connection(), cap::CONTROL).unwrap();
        let expected = [
            &[0, 0, 0, 28, 1, 0, 7, 0, 10, 214, 1, 5, 251, 64, 156, 4][..],
            b"shop\x03web",
            &[80, 10, 214, 2, 9, 251, 144, 31],
        ];
        assert_eq!(frame, expected.concat());
    }

    #[tokio::test]
    async fn a_header_beyond_its_cap_is_refused_by_its_length() {
        let mut bytes: &[u8] = &u32::MAX.to_be_bytes();
        assert!(matches!(read(&mut bytes).await, Err(HeaderError::Malformed(WireError::TooLarge { .. }))));
    }
}
