//! Talks with other nodes: who a node is, how it joins, and one QUIC port for everything between nodes and from clients.
//!
//! [`Mesh`] owns the port: it accepts, dials and keeps one connection per peer and purpose. [`join`] makes a machine a member,
//! [`Client`] is the way in for the command line, [`Identity`] is what all of it rests on.
//!
//! Invariant: identity is a key and an id, never an address (D5). No type of the QUIC, TLS or certificate libraries leaves this crate.

mod addresses;
mod alpn;
mod authority;
mod certificate;
mod client;
mod error;
pub mod frame;
mod identity;
pub mod join;
mod limits;
mod link;
mod mesh;
mod outbound;
mod peers;
mod port;
mod seal;
mod settings;
mod socket;
mod stream;
#[cfg(test)]
mod testing;
mod tls;

pub use alpn::Alpn;
pub use authority::ClusterAuthority;
pub use certificate::Subject;
pub use client::{Client, ClientError};
pub use error::{MeshError, PortError};
pub use identity::{Credentials, Identity, IdentityError, PrivateKey, UserIdentity};
pub use mesh::{Config, Handlers, Membership, Mesh, PeerState, Peers, WeakMesh};
pub use port::{Caller, Handler, PortInUse};
pub use seal::{ClusterKey, SealError};
pub use settings::LinkClass;
pub use stream::{ReceiveStream, SendStream, Stream};
