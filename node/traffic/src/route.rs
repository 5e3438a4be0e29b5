//! Makes service addresses local to this node: `ip route replace local <range> dev lo`, by netlink.
//!
//! With that route any socket can listen on any address of the range, and containers on any bridge reach it; no interface, no netfilter.
//!
//! Invariant: no network that this node already reaches is taken away from it: a range that overlaps a route is refused.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use quorate_proto::refusal::{Reason, Refusal};
use rtnetlink::{
    Error, Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType},
    },
};
use thiserror::Error;

/// The index of `lo`, the same in every network namespace (Linux, include/net/net_namespace.h: `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// The routing table the kernel looks at first, for addresses of this machine (rt_tables: `local`).
const LOCAL_TABLE: u32 = 255;
/// `ESRCH`: what the kernel says when the route to be removed is not there.
const NOT_THERE: i32 = -3;

/// Why the route was not made or removed.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The range is in use.
    #[error("the service range {range} overlaps {existing}, which this node already reaches ({how})")]
    Overlap {
        /// The range that was to be made local.
        range: Ipv4Net,
        /// The network of the existing route.
        existing: Ipv4Net,
        /// Where that route is: its table and interface.
        how: String,
    },
    /// The kernel cannot be talked to about routes.
    #[error("routes cannot be asked for or changed by netlink")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("the kernel did not {what} the route of the service range {range}")]
    Kernel {
        /// `add`, `list` or `remove`.
        what: &'static str,
        /// The range.
        range: Ipv4Net,
        /// What it said.
        #[source]
        source: Error,
    },
}

impl RouteError {
    /// The same for a person, with what to do about it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let because = std::error::Error::source(self).map_or_else(|| self.to_string(), ToString::to_string);
        let refusal = Refusal::new(Reason::Unavailable, "service addresses were not made local to this node", because);
        match self {
            Self::Overlap { .. } => refusal.hint("choose another service range for the cluster, or remove that route"),
            Self::Kernel { .. } | Self::Socket(_) => refusal.hint("this needs root, or CAP_NET_ADMIN"),
        }
    }
}

/// Makes the range local. Making it local again changes nothing.
///
/// # Errors
/// If it overlaps a route of another kind, or the kernel refuses.
pub async fn add(range: Ipv4Net) -> Result<(), RouteError> {
    with_kernel(async |handle| {
        let failed = |what| move |source| RouteError::Kernel { what, range, source };
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = handle.route().get(every).execute();
        while let Some(route) = routes.try_next().await.map_err(failed("list"))? {
            if let Some(existing) = in_the_way(range, &route) {
                return Err(RouteError::Overlap { range, existing, how: place(&route) });
            }
        }
        handle.route().add(local(range)).replace().execute().await.map_err(failed("add"))
    })
    .await
}

/// Removes what [`add`] made. Removing it again changes nothing.
///
/// # Errors
/// If the kernel refuses.
pub async fn remove(range: Ipv4Net) -> Result<(), RouteError> {
    with_kernel(async |handle| match handle.route().del(local(range)).execute().await {
        Err(Error::NetlinkError(message)) if message.raw_code() == NOT_THERE => Ok(()),
        removed => removed.map_err(|source| RouteError::Kernel { what: "remove", range, source }),
    })
    .await
}

/// Talks to the kernel as long as `talk` takes.
async fn with_kernel(talk: impl AsyncFnOnce(Handle) -> Result<(), RouteError>) -> Result<(), RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    tokio::select! {
        said = talk(handle) => said,
        () = connection => Err(RouteError::Socket(std::io::ErrorKind::ConnectionAborted.into())),
    }
}

fn local(range: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .output_interface(LOOPBACK)
        .table_id(LOCAL_TABLE)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build()
}

/// The network of a route, if the range would take part of it away. The default route gives way to every other, and our own is ours.
fn in_the_way(range: Ipv4Net, route: &RouteMessage) -> Option<Ipv4Net> {
    if route.header.address_family != AddressFamily::Inet {
        return None;
    }
    let existing = Ipv4Net::new(destination(route)?, route.header.destination_prefix_length).ok()?;
    let ours = existing == range.trunc() && route.header.kind == RouteType::Local && interface(route) == Some(LOOPBACK);
    (existing.prefix_len() > 0 && !ours && overlaps(existing, range)).then_some(existing)
}

/// Whether any address is in both: then one contains the other.
fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn destination(route: &RouteMessage) -> Option<Ipv4Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn place(route: &RouteMessage) -> String {
    let table = match route.header.table {
        RouteHeader::RT_TABLE_MAIN => "main".to_owned(),
        other => other.to_string(),
    };
    let interface = interface(route).map_or_else(String::new, |index| format!(", interface number {index}"));
    format!("routing table {table}{interface}")
}

#[cfg(test)]
mod tests;
