//! Which endpoint gets the next connection: pure.
//!
//! A ready one; on this node, if there is one; of two such drawn at random, the one with fewer connections open. Two draws spread nearly
//! as evenly as asking all would, and do not send everyone to the same idle pod at once (Mitzenmacher, 2001).
//!
//! Invariant: a pod that is not ready, or was already tried for this connection, is never picked.

use std::net::SocketAddrV4;

use quorate_proto::endpoints::PodPort;

/// Where a pod listens.
#[must_use]
pub const fn address(endpoint: &PodPort) -> SocketAddrV4 {
    SocketAddrV4::new(endpoint.endpoint.address, endpoint.port)
}

/// Picks an endpoint; `None` if there is none left. `open` tells how many connections an endpoint has, `random` is any random number.
pub fn pick<'a>(
    endpoints: &'a [PodPort],
    node: &str,
    tried: &[SocketAddrV4],
    open: impl Fn(SocketAddrV4) -> usize,
    random: u64,
) -> Option<&'a PodPort> {
    let usable = endpoints.iter().filter(|end| end.endpoint.ready && !tried.contains(&address(end)));
    let (here, elsewhere): (Vec<_>, Vec<_>) = usable.partition(|end| end.endpoint.node == node);
    let candidates = if here.is_empty() { elsewhere } else { here };
    let [low, high] = [random & 0xffff_ffff, random >> 32].map(|half| usize::try_from(half).unwrap_or_default());
    let count = candidates.len();
    if count < 2 {
        return candidates.first().copied();
    }
    let first = low % count;
    let second = (first + 1 + high % (count - 1)) % count;
    let [first, second] = [candidates[first], candidates[second]];
    Some(if open(address(second)) < open(address(first)) { second } else { first })
}

#[cfg(test)]
mod tests;
