//! Every way a join fails, in the words a person needs. One place, so that the same failure reads the same on every node.
//!
//! Invariant: who cannot prove a secret learns nothing of the token: unknown and wrong read the same.

use quorate_proto::refusal::{Reason, Refusal};

use crate::error::{Tried, list};

const WHAT: &str = "this machine did not join the cluster";
const NEW_TOKEN: &str = "make a new token on any member with `quorate token create`";

/// The token is not known, or the proof does not fit: told apart by nobody.
#[must_use]
pub fn unknown_token() -> Refusal {
    Refusal::new(Reason::Unauthorized, WHAT, "the token is not known to the cluster").hint(NEW_TOKEN)
}

/// The token has no uses left. Only for who proved the secret.
#[must_use]
pub fn spent() -> Refusal {
    Refusal::new(Reason::Forbidden, WHAT, "the token was used up by another join").hint(NEW_TOKEN)
}

/// The token's time is over. Only for who proved the secret.
#[must_use]
pub fn expired(since: &str) -> Refusal {
    Refusal::new(Reason::Forbidden, WHAT, format!("the token expired at {since}")).hint(NEW_TOKEN)
}

/// A node of that name exists.
#[must_use]
pub fn name_taken(name: &str) -> Refusal {
    Refusal::new(Reason::AlreadyExists, WHAT, format!("a node named `{name}` is already a member")).hint(format!(
        "choose another with `--name`, or, if that machine is gone for good, `quorate delete node {name}`"
    ))
}

/// The request makes no sense.
#[must_use]
pub fn malformed(because: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::BadRequest, WHAT, format!("the request was not understood: {because}"))
        .hint("use the same version of quorate on both machines")
}

/// Five attempts per minute and address, or 64 at a time.
pub(super) fn too_many(because: &str) -> Refusal {
    Refusal::new(Reason::TooManyRequests, WHAT, because).hint("wait a minute and try again")
}

/// The cluster took too long.
pub(super) fn no_decision() -> Refusal {
    Refusal::new(Reason::Timeout, WHAT, "the cluster did not decide within 10 seconds")
        .hint("check with `quorate status` on a member that most voters are up, then run the same command again")
}

/// The token is for people.
pub(super) fn not_for_nodes() -> Refusal {
    Refusal::new(Reason::BadRequest, WHAT, "the token is for a user's login, not for a node").hint(NEW_TOKEN)
}

/// The token carries no address.
pub(super) fn no_address() -> Refusal {
    Refusal::new(Reason::BadRequest, WHAT, "the token names no member's address")
        .hint("append `@HOST:PORT` of a member to the token")
}

/// Someone answered who is not of the token's cluster.
pub(super) fn other_cluster(tried: &[Tried]) -> Refusal {
    let because = format!("who answered is not the cluster that made the token ({})", list(tried));
    Refusal::new(Reason::Unauthorized, WHAT, because)
        .hint("check the address behind `@`, and that the cluster was not set up anew since the token was made")
}

/// The certificate that answered is of the right cluster, but not good now.
pub(super) fn not_good_now(tried: &[Tried]) -> Refusal {
    let because = format!("the member's certificate is not good at this machine's time ({})", list(tried));
    Refusal::new(Reason::Unauthorized, WHAT, because).hint("check the clocks of both machines with `date -u`")
}

/// Nobody answered.
pub(super) fn unreachable(tried: &[Tried]) -> Refusal {
    Refusal::new(Reason::Unavailable, WHAT, format!("no member answered ({})", list(tried)))
        .hint("check that a member runs there and that UDP reaches it: a firewall often lets only TCP through")
}

/// What was granted does not hold together.
pub(super) fn bad_grant(because: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Internal, WHAT, format!("the answer was not usable: {because}"))
        .hint("check the clocks of both machines with `date -u`, and that both run the same version of quorate")
}

/// This machine cannot even ask.
pub(super) fn cannot_ask(because: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Internal, WHAT, because.to_string())
}
