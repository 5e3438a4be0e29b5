//! Every connection is verified by itself.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::{DistinguishedName, server::danger::ClientCertVerified};

use super::*;
use crate::testing::{Still, authority, identity, within};

/// Counts how often a client is really verified.
#[derive(Debug)]
struct Counting(Arc<dyn ClientCertVerifier>, AtomicUsize);

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.verify_client_cert(leaf, chain, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[tokio::test]
async fn three_connections_are_verified_three_times() {
    let authority = authority(1);
    let (n1, n2) = (identity(&authority, 1).credentials, identity(&authority, 2).credentials);
    let clock: Arc<dyn Clock> = Arc::new(Still::default());
    let trusted = roots(&n1.authorities).unwrap();
    let counting = Arc::new(Counting(client_verifier(Arc::clone(&trusted)).unwrap(), AtomicUsize::new(0)));
    let verifier: Arc<dyn ClientCertVerifier> = Arc::<Counting>::clone(&counting);
    let accepting = server(&n1, verifier, &[Alpn::Peer], Arc::clone(&clock)).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let server = Endpoint::server(ServerConfig::with_crypto(Arc::new(accepting)), any).unwrap();
    let dialling = client(Some(&n2), server_verifier(trusted).unwrap(), Alpn::Peer, clock).unwrap();
    let config = ClientConfig::new(Arc::new(dialling));
    let dialler = Endpoint::client(any).unwrap();
    let name = server_name(authority.cluster(), quorate_proto::ids::NodeId::from(1));
    for connections in 1..=3 {
        let dial = dialler.connect_with(config.clone(), server.local_addr().unwrap(), &name).unwrap();
        let accept = async { server.accept().await.unwrap().await.unwrap() };
        let (dialled, accepted) = within(async { tokio::join!(dial, accept) }).await;
        let dialled = dialled.unwrap();
        // A ticket for resumption would arrive by now: whatever the server sends first comes before this byte.
        let mut word = accepted.open_uni().await.unwrap();
        word.write_all(b"x").await.unwrap();
        word.finish().unwrap();
        assert_eq!(within(dialled.accept_uni()).await.unwrap().read_to_end(1).await.unwrap(), b"x");
        assert_eq!(counting.1.load(Ordering::SeqCst), connections);
        dialled.close(0_u32.into(), &[]);
    }
}

#[test]
fn tls_rests_on_ring_and_speaks_nothing_older_than_1_3() {
    let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.version().version).collect();
    assert!(suites.iter().all(|version| *version == rustls::ProtocolVersion::TLSv1_3), "{suites:?}");
}
