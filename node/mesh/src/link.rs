//! One live connection to a peer, after both hellos.
//!
//! Invariant: a connection that was superseded opens no new streams here, and is closed only when its streams have ended.

use std::{net::SocketAddr, time::Duration};

use quinn::VarInt;
use quorate_proto::ids::NodeId;
use tokio_util::task::TaskTracker;

use crate::{addresses::canonical, alpn::Alpn, peers::Rank, stream::Stream};

/// A superseded connection stays this long for streams the peer opened before it knew, and for what is still on the way.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection is closed, as told to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    Done,
    Superseded,
    Forbidden,
    NotMember,
    Expired,
    Protocol,
    Busy,
    Stopping,
    OtherEpoch,
    LeftBehind,
}

impl Close {
    pub(crate) const fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::Superseded => 0x101,
            Self::Forbidden => 0x102,
            Self::NotMember => 0x103,
            Self::Expired => 0x104,
            Self::Protocol => 0x105,
            Self::Busy => 0x106,
            Self::Stopping => 0x107,
            Self::OtherEpoch => 0x110,
            Self::LeftBehind => 0x111,
        })
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Superseded => "a newer connection replaced this one",
            Self::Forbidden => "the caller may not speak this protocol here",
            Self::NotMember => "the caller is not a member of this cluster, or not any more",
            Self::Expired => "the caller's certificate has expired",
            Self::Protocol => "the hello is not what the certificate says",
            Self::Busy => "too many connections from this address",
            Self::Stopping => "the node is stopping",
            Self::OtherEpoch => {
                "the cluster was recovered, and the caller does not belong to its new epoch: it joins again as a new node"
            }
            Self::LeftBehind => "this node was left behind when the cluster was recovered",
        }
    }

    pub(crate) fn close(self, connection: &quinn::Connection) {
        connection.close(self.code(), self.reason().as_bytes());
    }

    /// Whether the other side closed the connection for this reason.
    pub(crate) fn is(self, error: &quinn::ConnectionError) -> bool {
        matches!(error, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == self.code())
    }
}

/// A connection in use.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) alpn: Alpn,
    pub(crate) rank: Rank,
    pub(crate) connection: quinn::Connection,
    pub(crate) streams: TaskTracker,
}

impl Link {
    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Where the peer is now: what it dialled from may have moved.
    pub(crate) fn remote(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// Whether we dialled it.
    pub(crate) fn is_ours(&self) -> bool {
        self.rank.dialler.0 != self.peer
    }

    pub(crate) async fn open(&self) -> Result<Stream, quinn::ConnectionError> {
        let streams = self.connection.open_bi().await?;
        Ok(self.stream(streams))
    }

    pub(crate) fn stream(&self, streams: (quinn::SendStream, quinn::RecvStream)) -> Stream {
        Stream::new(&self.connection, self.streams.token(), streams)
    }

    /// Lets the streams end, then closes.
    pub(crate) async fn retire(&self) {
        tokio::time::sleep(LINGER).await;
        self.streams.close();
        tokio::select! {
            () = self.streams.wait() => tokio::time::sleep(LINGER).await,
            _ = self.connection.closed() => {}
        }
        Close::Superseded.close(&self.connection);
    }
}
