//! Who is let in, and who is not: every caller against every purpose, over real UDP.

use quorate_proto::{ids::ClusterId, wire::cap};

use super::*;
use crate::{
    Credentials, PrivateKey, UserIdentity,
    testing::{Chance, Node, Start, Still, ask, authority, days, identity, wall, within},
};

/// Dials a node as whoever, for whatever, and says how far it came.
async fn call(to: &Node, alpn: &str, who: Option<&Credentials>, name: &str) -> String {
    let roots = tls::roots(&to.authorities).unwrap();
    let builder = rustls::ClientConfig::builder_with_details(tls::provider(), Arc::new(Fixed))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match who {
        Some(who) => {
            let key = rustls::sign::SingleCertAndKey::from(tls::certified_key(who).unwrap());
            builder.with_client_cert_resolver(Arc::new(key))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.into()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let dialled = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), to.address(), name).unwrap();
    let connection = match within(dialled).await {
        Ok(connection) => connection,
        Err(error) => return format!("handshake: {error}"),
    };
    let talk = async {
        let streams = connection.open_bi().await?;
        let mut stream = Stream::new(&connection, TaskTracker::new().token(), streams);
        match ask(&mut stream, "hi").await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(connection.closed().await),
        }
    };
    match within(talk).await {
        Ok(answer) => answer,
        Err(error) => format!("closed: {}", crate::error::because(&error)),
    }
}

#[derive(Debug)]
struct Fixed;

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(wall().as_second() as u64)))
    }
}

const FORBIDDEN: &str = "closed: refused: the caller may not speak this protocol here";
const NOT_MEMBER: &str = "closed: refused: the caller is not a member of this cluster, or not any more";

#[tokio::test]
async fn every_caller_gets_what_the_table_says() {
    let (ca, other_ca) = (authority(1), authority(1));
    let mut start = Start::new(identity(&ca, 1));
    start.members = Arc::new(|node: NodeId| node != NodeId(9));
    let n1 = start.run();
    let name = server_name(ca.cluster(), n1.id());
    let node = identity(&ca, 2).credentials;
    let removed = identity(&ca, 9).credentials;
    let expired = Identity::issue(&ca, NodeId(3), days(-40), &Chance::new(3)).unwrap().credentials;
    let early = Identity::issue(&ca, NodeId(4), days(1), &Chance::new(4)).unwrap().credentials;
    let foreign = identity(&other_ca, 2).credentials;
    let itself = identity(&ca, 1).credentials;
    let user = UserIdentity::issue(&ca, "ada", wall(), &Chance::new(5)).unwrap().credentials;
    let ada = "heard hi from user/ada for";
    let two = format!("heard hi from node/{} for", NodeId(2));

    // Peers: a hello that is no hello ends the connection, but only a node gets as far as that.
    let no_hello = "closed: refused: the hello is not what the certificate says";
    for alpn in ["quorate-peer/1", "quorate-data/1"] {
        assert_eq!(call(&n1, alpn, Some(&node), &name).await, no_hello, "{alpn}");
        assert_eq!(call(&n1, alpn, Some(&removed), &name).await, NOT_MEMBER, "{alpn}");
        assert_eq!(call(&n1, alpn, Some(&itself), &name).await, FORBIDDEN, "{alpn}");
        assert_eq!(call(&n1, alpn, Some(&user), &name).await, FORBIDDEN, "{alpn}");
        assert_eq!(call(&n1, alpn, None, &name).await, FORBIDDEN, "{alpn}");
    }
    // Clients.
    assert_eq!(call(&n1, "quorate-client/1", Some(&user), &name).await, format!("client {ada} quorate-client/1"));
    assert_eq!(call(&n1, "quorate-client/1", Some(&node), &name).await, format!("client {two} quorate-client/1"));
    assert_eq!(call(&n1, "quorate-client/1", Some(&removed), &name).await, NOT_MEMBER);
    assert_eq!(call(&n1, "quorate-client/1", None, &name).await, FORBIDDEN);
    // DNS: anyone.
    assert_eq!(call(&n1, "doq", None, &name).await, "doq heard hi from nobody for doq");
    assert_eq!(call(&n1, "doq", Some(&node), &name).await, format!("doq {two} doq"));
    // Joins: this node has no admission, and does not offer them; nobody speaks what nobody knows.
    for alpn in ["quorate-join/1", "h3"] {
        let refused = call(&n1, alpn, None, &name).await;
        assert!(refused.starts_with("handshake: "), "{alpn}: {refused}");
    }
    // Bad certificates, for every purpose: the connection ends before a word is heard.
    for alpn in ["quorate-peer/1", "quorate-data/1", "quorate-client/1", "doq"] {
        for (what, bad) in [("expired", &expired), ("not yet good", &early), ("of another CA", &foreign)] {
            let refused = call(&n1, alpn, Some(bad), &name).await;
            let early_end =
                refused.starts_with("closed: refused in the handshake") || refused.starts_with("handshake: ");
            assert!(early_end, "{what}, {alpn}: {refused}");
        }
    }
    // The wrong node's name: the caller hangs up.
    let wrong = call(&n1, "quorate-client/1", Some(&user), &server_name(ca.cluster(), NodeId(5))).await;
    assert!(wrong.starts_with("handshake: ") && wrong.contains("certificate"), "{wrong}");
}

#[test]
fn a_certificate_of_another_cluster_is_refused_even_if_its_chain_were_good() {
    let own = identity(&authority(1), 1);
    let leaf = Leaf { cluster: ClusterId::from(2), subject: Subject::Node(NodeId(2)), not_after: days(30) };
    for alpn in Alpn::ALL {
        assert_eq!(admit(alpn, Some(&leaf), &own, &|_: NodeId| true), Err(Close::Forbidden), "{alpn}");
    }
}

#[test]
fn a_certificate_with_two_names_or_none_names_nobody() {
    use rcgen::{CertificateParams, KeyPair, SanType};
    let key = KeyPair::generate().unwrap();
    for count in [0, 2] {
        let mut params = CertificateParams::default();
        for node in 1..=count {
            let uri = crate::certificate::uri(ClusterId(1), &Subject::Node(NodeId(node)));
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let certificate = params.self_signed(&key).unwrap();
        let read = crate::certificate::read_leaf(certificate.der());
        assert!(matches!(read, Err(IdentityError::UriNames(found)) if found == count as usize));
    }
}

#[test]
fn names_are_matched_exactly() {
    use rcgen::{CertificateParams, KeyPair, SanType};
    let key = KeyPair::generate().unwrap();
    let (cluster, node) = (ClusterId(1), NodeId(2));
    for uri in [
        format!("spiffe://{cluster}/node/{node}/x"),
        format!("spiffe://{cluster}/node/{node}?x"),
        format!("spiffe://{cluster}/Node/{node}"),
        format!("spiffe://{cluster}/nodes/{node}"),
        format!("SPIFFE://{cluster}/node/{node}"),
        format!("https://{cluster}/node/{node}"),
        format!("spiffe://{cluster}x/node/{node}"),
        format!("spiffe://{cluster}/user/a/b"),
        format!("spiffe://{cluster}/user/"),
        format!("spiffe://{cluster}"),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.clone().try_into().unwrap()));
        let certificate = params.self_signed(&key).unwrap();
        let read = crate::certificate::read_leaf(certificate.der());
        assert!(matches!(read, Err(IdentityError::Name(_))), "{uri}: {read:?}");
    }
}

#[tokio::test]
async fn a_connection_ends_when_the_callers_certificate_does() {
    let ca = authority(1);
    let clock = Arc::new(Still::default());
    let mut start = Start::new(identity(&ca, 1));
    start.clock = Arc::clone(&clock);
    let n1 = start.run();
    let user = UserIdentity::issue(&ca, "ada", days(-365), &Chance::new(5));
    assert!(user.is_ok(), "its last second is still good");
    let user = user.unwrap();
    let client = within(crate::Client::connect(&[n1.address().to_string()], &user, clock)).await.unwrap();
    let mut stream = client.open().await.unwrap();
    assert!(ask(&mut stream, "hi").await.is_err());
    assert!(
        matches!(client.why_closed(), Some(crate::ClientError::Refused { because }) if because.contains("expired"))
    );
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let taken = socket::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = socket::bind(taken.local_addr().unwrap()).unwrap_err();
    assert!(error.to_string().contains("is in use: is Quorate running already?"), "{error}");
    let error = socket::bind(([192, 0, 2, 1], 0).into()).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1 is not an address of this machine"), "{error}");
}

#[tokio::test]
async fn a_frame_beyond_its_cap_costs_the_caller_its_stream_and_nobody_else_anything() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let user = UserIdentity::issue(&ca, "ada", wall(), &Chance::new(5)).unwrap();
    let clock = Arc::new(Still::default());
    let client = within(crate::Client::connect(&[n1.address().to_string()], &user, clock)).await.unwrap();
    let mut bad = client.open().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut bad.send, &u32::MAX.to_be_bytes()).await.unwrap();
    let answer = within(bad.read_frame::<String>(cap::CONTROL)).await;
    assert!(matches!(answer, Ok(None)), "the handler ended the stream: {answer:?}");
    let mut good = client.open().await.unwrap();
    assert!(within(ask(&mut good, "hi")).await.unwrap().contains("user/ada"));
}

#[tokio::test]
async fn a_stream_dropped_before_it_was_finished_is_not_taken_for_whole() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let user = UserIdentity::issue(&ca, "ada", wall(), &Chance::new(5)).unwrap();
    let clock = Arc::new(Still::default());
    let client = within(crate::Client::connect(&[n1.address().to_string()], &user, clock)).await.unwrap();
    let (mut send, mut receive) = client.open().await.unwrap().into_split();
    crate::frame::write(&mut send, &"hi", cap::CONTROL).await.unwrap();
    within(crate::frame::expect::<String>(&mut receive, cap::CONTROL)).await.unwrap();
    drop(send);
    // The handler's loop ends on the reset, and it then finishes its own side properly.
    assert!(within(crate::frame::read::<String>(&mut receive, cap::CONTROL)).await.unwrap().is_none());
}

#[test]
fn a_key_that_is_not_the_certificates_is_noticed_before_the_port_opens() {
    let mut identity = identity(&authority(1), 1);
    identity.credentials.key = PrivateKey::generate().unwrap();
    assert!(matches!(tls::certified_key(&identity.credentials), Err(IdentityError::KeyMismatch)));
}

/// The first datagram of a handshake, from who will never send a second.
fn first_datagram(to: &Node, seed: u8) -> Vec<u8> {
    let roots = tls::server_verifier(tls::roots(&to.authorities).unwrap()).unwrap();
    let crypto = tls::client(None, roots, Alpn::Doq, Arc::new(Still::default())).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let now = tokio::time::Instant::now().into_std();
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, true, Some([seed; 32]));
    let (_, mut connection) = endpoint.connect(now, config, to.address(), "join.quorate.internal").unwrap();
    let mut datagram = Vec::new();
    let sent = connection.poll_transmit(now, 1, &mut datagram).unwrap();
    datagram.truncate(sent.size);
    datagram
}

#[tokio::test]
async fn many_who_knock_and_say_no_more_must_prove_their_address_and_keep_nobody_out() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for seed in 0..=u8::try_from(RETRY_ABOVE + 16).unwrap() {
        stranger.send_to(&first_datagram(&n1, seed), n1.address()).await.unwrap();
    }
    let retried = async {
        let mut answer = [0; 2048];
        loop {
            stranger.recv_from(&mut answer).await.unwrap();
            // A long header of type Retry (RFC 9000 §17.2.5): nothing is kept for who gets it.
            if answer[0] & 0xf0 == 0xf0 {
                return;
            }
        }
    };
    within(retried).await;
    let user = UserIdentity::issue(&ca, "ada", wall(), &Chance::new(5)).unwrap();
    let clock = Arc::new(Still::default());
    let client = within(crate::Client::connect(&[n1.address().to_string()], &user, clock)).await.unwrap();
    let mut stream = client.open().await.unwrap();
    assert!(within(ask(&mut stream, "hi")).await.unwrap().contains("user/ada"));
}
