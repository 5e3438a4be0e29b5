//! Join tokens as objects: made, listed, ended. Pure but for the secret, which is drawn once and shown once.
//!
//! Invariant: a token's secret is nowhere but in the token; the store keeps its verifier, sealed.

use std::time::Duration;

use quorate_mesh::join::Verifier;
use quorate_proto::{
    kinds::JOINTOKENS,
    object::Object,
    refusal::{Reason, Refusal},
    request::TokenInfo,
    snapshot::Snapshot,
    token::{Secret, Token, TokenId, TokenKind},
    txn::Txn,
    world::{Random, Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::secrets::Vault;

/// The longest a token may be good for.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many machines may join with one token at most.
const MAX_USES: u32 = 1000;

/// A new token, and what keeps it.
#[derive(Debug)]
pub(crate) struct NewToken {
    /// The token, secret included.
    pub token: Token,
    /// What stores its verifier.
    pub txn: Txn,
}

/// Makes a join token.
///
/// # Errors
/// If it is to be good for longer, or more often, than a token may.
pub(crate) fn make(
    pin: [u8; 32],
    addresses: Vec<String>,
    lifetime: Duration,
    uses: u32,
    vault: &Vault,
    random: &dyn Random,
    wall: Timestamp,
) -> Result<NewToken, Refusal> {
    let refuse = |because: String| Refusal::new(Reason::Invalid, "no token was made", because);
    if lifetime.is_zero() || lifetime > MAX_LIFETIME {
        let days = MAX_LIFETIME.as_secs() / 86400;
        return Err(refuse(format!("a token is good for at least a second and at most {days} days")));
    }
    if uses == 0 || uses > MAX_USES {
        return Err(refuse(format!("a token is good for 1 to {MAX_USES} machines, not {uses}")));
    }
    let (mut id, mut secret) = ([0; 5], [0; 16]);
    random.fill(&mut id);
    random.fill(&mut secret);
    let token = Token { kind: TokenKind::Node, pin, id: TokenId(id), secret: Secret(secret), addresses };
    let name = token.id.to_string();
    let verifier = Verifier::of(&token.secret);
    let expires = wall.checked_add(lifetime).map_err(|error| refuse(error.to_string()))?;
    let object = Object::from_value(json!({
        "apiVersion": JOINTOKENS.api_version(),
        "kind": JOINTOKENS.kind,
        "metadata": {"name": name, "uid": random.uid(), "creationTimestamp": rfc3339(wall), "generation": 1},
        "spec": {"verifier": vault.keep_verifier(&name, &verifier)?, "usesLeft": uses, "expires": rfc3339(expires)},
    }))
    .map_err(|error| refuse(error.to_string()))?;
    let key = JOINTOKENS.key(None, &name).map_err(|error| refuse(error.to_string()))?;
    Ok(NewToken { txn: Txn::new().create(key, object.to_document()), token })
}

/// All tokens whose time is not over, without their secrets.
#[must_use]
pub(crate) fn list(snapshot: &Snapshot, wall: Timestamp) -> Vec<TokenInfo> {
    let info = |object: &Object| TokenInfo {
        id: object.name().to_owned(),
        uses_left: object
            .at(&["spec", "usesLeft"])
            .and_then(Value::as_u64)
            .and_then(|uses| u32::try_from(uses).ok())
            .unwrap_or_default(),
        expires: object.text(&["spec", "expires"]).unwrap_or_default().to_owned(),
    };
    let usable = |token: &TokenInfo| token.expires.parse::<Timestamp>().is_ok_and(|expires| expires > wall);
    snapshot.list(&JOINTOKENS).map(|stored| info(&stored.object)).filter(usable).collect()
}

/// Ends a token.
///
/// # Errors
/// If there is none of this id.
pub(crate) fn revoke(snapshot: &Snapshot, id: &str) -> Result<Txn, Refusal> {
    let stored = snapshot.find(&JOINTOKENS, None, id).ok_or_else(|| {
        Refusal::new(Reason::NotFound, format!("token {id} was not revoked"), "there is no such token")
            .hint("the id is what `quorate token list` shows")
    })?;
    Ok(Txn::new().remove(stored.key.clone(), stored.modified))
}
