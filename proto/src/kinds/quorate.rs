//! The cluster's own records: objects like any other, but not served as such.

use super::{AGE, Access, Kind, NAME};

const fn internal(kind: &'static str, plural: &'static str, singular: &'static str) -> Kind {
    Kind {
        group: "quorate.dev",
        version: "v1",
        kind,
        plural,
        singular,
        short: &[],
        namespaced: false,
        access: Access::Internal,
        columns: &[NAME, AGE],
    }
}

/// The cluster itself, one object named `cluster`: ranges, zone, the CA's certificates and its sealed key.
pub const CLUSTERS: Kind = internal("Cluster", "clusters", "cluster");

/// Join tokens: a sealed verifier, how many uses are left, until when.
pub const JOINTOKENS: Kind = internal("JoinToken", "jointokens", "jointoken");

/// Addresses that are taken: one object per service address and per node's pod range, created with a compare so that none is
/// given out twice.
pub const ADDRESSES: Kind = internal("Address", "addresses", "address");
