//! Joining, and every way it fails, over real UDP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use quorate_proto::{
    refusal::Reason,
    token::{Token, TokenKind},
    world::{Clock, Timestamp},
};

use super::*;
use crate::{
    Alpn, ClusterAuthority,
    outbound::Outbound,
    stream::Stream,
    testing::{Chance, Node, Start, Still, ask, authority, days, identity, wall, within},
    tls::Introducer,
};

const SETTINGS: &[u8] = b"the daemon's own";

struct Stored {
    verifier: Verifier,
    expires: Timestamp,
    uses: u32,
}

/// What the daemon does, in memory: tokens, names, and the authority's key.
struct Desk {
    ca: ClusterAuthority,
    tokens: Mutex<BTreeMap<TokenId, Stored>>,
    names: Mutex<Vec<String>>,
    seen: Mutex<Vec<JoinAttempt>>,
}

#[async_trait]
impl Admission for Desk {
    async fn admit(&self, attempt: JoinAttempt) -> Result<JoinGrantParts, Refusal> {
        let wish = attempt.wish().map_err(refuse::malformed)?;
        self.seen.lock().unwrap().push(attempt.clone());
        let mut tokens = self.tokens.lock().unwrap();
        let stored = tokens.get_mut(&wish.token).filter(|stored| check_proof(&stored.verifier, &attempt));
        let stored = stored.ok_or_else(refuse::unknown_token)?;
        if stored.expires < wall() {
            return Err(refuse::expired(&stored.expires.to_string()));
        }
        if stored.uses == 0 {
            return Err(refuse::spent());
        }
        let mut names = self.names.lock().unwrap();
        if names.contains(&wish.name) {
            return Err(refuse::name_taken(&wish.name));
        }
        stored.uses -= 1;
        names.push(wish.name.clone());
        let node = NodeId(names.len() as u128 + 100);
        let leaf = self.ca.issue_node(&wish.signing_request, node, wall(), &Chance::new(9)).unwrap();
        Ok(JoinGrantParts {
            node,
            name: wish.name,
            leaf,
            authorities: vec![self.ca.certificate().clone()],
            cluster_key: (&ClusterKey::from_bytes([7; 32])).into(),
            peers: vec![Peer { node: NodeId(1), addresses: vec![([10, 0, 0, 1], 7443).into()] }],
            settings: Bytes::from_static(SETTINGS),
        })
    }

    async fn replace(&self, attempt: ReplaceAttempt) -> Result<JoinGrantParts, Refusal> {
        let node = NodeId(attempt.node.0 + 100);
        let leaf = self.ca.issue_node(&attempt.wish.signing_request, node, wall(), &Chance::new(9)).unwrap();
        Ok(JoinGrantParts {
            node,
            name: format!("n{}", attempt.node.0),
            leaf,
            authorities: vec![self.ca.certificate().clone()],
            cluster_key: (&ClusterKey::from_bytes([7; 32])).into(),
            peers: Vec::new(),
            settings: Bytes::from_static(SETTINGS),
        })
    }
}

/// A cluster of one node, and a token for it.
fn cluster(number: u64) -> (Node, Arc<Desk>, Token) {
    let ca = authority(number);
    let mut start = Start::new(identity(&ca, 1));
    let (id, secret) = (TokenId([1, 2, 3, 4, 5]), Secret(*b"sixteen secrets!"));
    let stored = Stored { verifier: Verifier::of(&secret), expires: days(1), uses: 1 };
    let pin = ca.pin().unwrap();
    let desk = Arc::new(Desk {
        ca,
        tokens: Mutex::new([(id, stored)].into()),
        names: Mutex::new(vec!["n1".to_owned()]),
        seen: Mutex::default(),
    });
    start.admission = Some(Arc::<Desk>::clone(&desk));
    let node = start.run();
    let addresses = vec![node.address().to_string()];
    (node, desk, Token { kind: TokenKind::Node, pin, id, secret, addresses })
}

async fn join_as(token: &Token, name: &str, seed: u64) -> Result<JoinGrant, Refusal> {
    within(join(token, name, Vec::new(), "test", Arc::new(Still::default()), &Chance::new(seed))).await
}

#[tokio::test]
async fn who_holds_a_token_joins_and_is_a_peer_from_then_on() {
    let (n1, _desk, token) = cluster(1);
    let token: Token = token.reveal().parse().unwrap();
    let grant = join_as(&token, "n2", 1).await.unwrap();
    assert_eq!((grant.name.as_str(), grant.settings.as_ref()), ("n2", SETTINGS));
    assert_eq!(grant.cluster_key, ClusterKey::from_bytes([7; 32]));
    assert_eq!(grant.peers[0].node, NodeId(1));
    let directory = tempfile::tempdir().unwrap();
    grant.identity.store(directory.path()).unwrap();
    let n2 = Start::new(Identity::load(directory.path()).unwrap()).run();
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    let mut stream = within(n2.mesh.open(n1.id(), Alpn::Peer)).await.unwrap();
    let answer = within(ask(&mut stream, "hi")).await.unwrap();
    assert_eq!(answer, format!("peer heard hi from node/{} for quorate-peer/1", n2.id()));
}

#[tokio::test]
async fn every_refusal_says_what_because_of_what_and_what_to_do() {
    let (_n1, desk, token) = cluster(1);
    let (_other, _, elsewhere) = cluster(2);
    let guess = Token { secret: Secret(*b"a sixteen guess!"), ..token.clone() };
    let unknown = Token { id: TokenId([9; 5]), ..token.clone() };
    let foreign = Token { addresses: elsewhere.addresses, ..token.clone() };
    let nowhere = Token { addresses: vec!["127.0.0.1:9".to_owned()], ..token.clone() };
    let login = Token { kind: TokenKind::User, ..token.clone() };
    let blind = Token { addresses: Vec::new(), ..token.clone() };

    let because = |refused: Result<JoinGrant, Refusal>| {
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.what, "this machine did not join the cluster");
        assert!(refusal.hint.is_some(), "{refusal}");
        (refusal.reason, refusal.because)
    };
    let not_known = (Reason::Unauthorized, "the token is not known to the cluster".to_owned());
    assert_eq!(because(join_as(&guess, "n2", 1).await), not_known);
    assert_eq!(because(join_as(&unknown, "n2", 2).await), not_known);
    let (reason, taken) = because(join_as(&token, "n1", 3).await);
    assert_eq!((reason, taken.as_str()), (Reason::AlreadyExists, "a node named `n1` is already a member"));
    desk.tokens.lock().unwrap().get_mut(&token.id).unwrap().expires = days(-1);
    let (reason, expired) = because(join_as(&token, "n2", 4).await);
    assert_eq!((reason, expired.as_str()), (Reason::Forbidden, "the token expired at 2027-01-14T08:00:00Z"));
    desk.tokens.lock().unwrap().get_mut(&token.id).unwrap().expires = days(1);
    desk.tokens.lock().unwrap().get_mut(&token.id).unwrap().uses = 0;
    let (reason, spent) = because(join_as(&token, "n2", 5).await);
    assert_eq!((reason, spent.as_str()), (Reason::Forbidden, "the token was used up by another join"));
    // That were five within the minute.
    let (reason, many) = because(join_as(&token, "n2", 6).await);
    assert_eq!(reason, Reason::TooManyRequests);
    assert_eq!(many, "more than 5 joins per minute were tried from this address");
    let (reason, other) = because(join_as(&foreign, "n2", 7).await);
    assert_eq!(reason, Reason::Unauthorized);
    assert!(other.starts_with("who answered is not the cluster that made the token"), "{other}");
    let (reason, gone) = because(join_as(&nowhere, "n2", 8).await);
    assert_eq!((reason, gone.as_str()), (Reason::Unavailable, "no member answered (127.0.0.1:9: no answer)"));
    assert_eq!(because(join_as(&login, "n2", 9).await).0, Reason::BadRequest);
    assert_eq!(because(join_as(&blind, "n2", 10).await).1, "the token names no member's address");
}

#[tokio::test]
async fn a_machine_whose_clock_is_far_off_is_told_to_look_at_it() {
    let (_n1, _, token) = cluster(1);
    let clock = Arc::new(Still::default());
    clock.advance(std::time::Duration::from_secs(40 * 86_400));
    let refusal = within(join(&token, "n2", Vec::new(), "test", clock, &Chance::new(1))).await.unwrap_err();
    assert!(refusal.because.starts_with("the member's certificate is not good at this machine's time"), "{refusal}");
    assert!(refusal.hint.unwrap().contains("clocks"));
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_followed_by_the_next() {
    let (_n1, _, mut token) = cluster(1);
    token.addresses.insert(0, "127.0.0.1:9".to_owned());
    assert_eq!(join_as(&token, "n2", 1).await.unwrap().name, "n2");
}

#[tokio::test]
async fn a_proof_replayed_in_another_session_is_worth_nothing() {
    let (n1, desk, token) = cluster(1);
    desk.tokens.lock().unwrap().get_mut(&token.id).unwrap().uses = 2;
    join_as(&token, "n2", 1).await.unwrap();
    let stolen = desk.seen.lock().unwrap()[0].clone();
    let clock: Arc<dyn Clock> = Arc::new(Still::default());
    let introducer = Introducer::pinned(token.pin);
    let outbound = within(Outbound::dial(n1.address(), Alpn::Join, None, &introducer, &clock)).await.unwrap();
    let streams = outbound.connection.open_bi().await.unwrap();
    let mut stream = Stream::new(&outbound.connection, tokio_util::task::TaskTracker::new().token(), streams);
    let replay = Ask::V1 { request: stolen.request.clone(), proof: stolen.proof };
    stream.write_frame(&replay, cap::CONTROL).await.unwrap();
    let answer = within(stream.read_frame::<Answer>(cap::CONTROL)).await.unwrap();
    assert!(matches!(answer, Some(Answer::Refused(refusal)) if refusal == refuse::unknown_token()));
    assert_eq!(desk.tokens.lock().unwrap()[&token.id].uses, 1, "nothing was spent");
}

#[test]
fn a_proof_fits_one_session_one_request_and_one_secret() {
    let verifier = Verifier::of(&Secret(*b"sixteen secrets!"));
    let attempt = |exporter: [u8; 32], request: &'static [u8], proof: [u8; 32]| JoinAttempt {
        request: Bytes::from_static(request),
        exporter,
        proof,
        source: ([10, 0, 0, 1], 1).into(),
    };
    let proof = verifier.proof(&[1; 32], b"request");
    assert!(check_proof(&verifier, &attempt([1; 32], b"request", proof)));
    assert!(!check_proof(&verifier, &attempt([2; 32], b"request", proof)));
    assert!(!check_proof(&verifier, &attempt([1; 32], b"request with another key", proof)));
    assert!(!check_proof(&Verifier::of(&Secret(*b"a sixteen guess!")), &attempt([1; 32], b"request", proof)));
    for bit in 0..256 {
        let mut changed = proof;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!check_proof(&verifier, &attempt([1; 32], b"request", changed)), "bit {bit}");
    }
}

#[test]
fn a_verifier_is_not_the_secret_and_neither_is_shown() {
    let secret = Secret(*b"sixteen secrets!");
    let verifier = Verifier::of(&secret);
    assert_ne!(&verifier.as_bytes()[..16], secret.0.as_slice());
    assert_eq!(Verifier::from_bytes(*verifier.as_bytes()), verifier);
    let attempt =
        JoinAttempt { request: Bytes::new(), exporter: [1; 32], proof: [2; 32], source: ([10, 0, 0, 1], 1).into() };
    assert_eq!(format!("{verifier:?} {attempt:?}"), "… JoinAttempt { source: 10.0.0.1:1, .. }");
}

async fn replaced(old: &Identity, member: &Node) -> Result<JoinGrant, Refusal> {
    let clock = Arc::new(Still::default());
    within(replace(old, RequestId(5), &[member.address()], Vec::new(), "test", clock)).await
}

#[tokio::test]
async fn a_member_that_lost_its_data_begins_anew_by_its_certificate() {
    let (n1, desk, _) = cluster(1);
    let old = identity(&desk.ca, 2);
    let grant = replaced(&old, &n1).await.unwrap();
    assert_eq!((grant.identity.node, grant.name.as_str()), (NodeId::from(102), "n2"));
    assert_ne!(grant.identity.credentials.key, old.credentials.key);
    let n2 = Start::new(grant.identity).run();
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    assert!(within(n2.mesh.open(n1.id(), Alpn::Peer)).await.is_ok());
}

#[tokio::test]
async fn nobody_begins_anew_without_a_certificate_of_this_cluster() {
    let (n1, _, _) = cluster(1);
    let refused = replaced(&identity(&authority(2), 2), &n1).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unavailable, "{refused}");
    assert!(refused.because.contains("another cluster answered"), "{refused}");
}
