//! TLS for every connection: 1.3 only, ring only, no resumption, no early data.
//!
//! Chains, times and signatures are left to the stock WebPKI verifiers; what a caller may do is decided behind them, in `port.rs`.
//!
//! Invariant: every connection is verified by itself. A resumed session would skip the client verifier, so none is ever resumed; and
//! whatever cannot be verified is refused.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quorate_proto::world::{Clock, Timestamp};
use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::{
    alpn::Alpn,
    certificate::{self, ANY_NODE, Leaf, Subject, server_name},
    identity::{Credentials, IdentityError},
};

/// ring, named explicitly: nothing relies on a process-wide default. QUIC's first packets need AES-128-GCM.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The wall clock that was passed in, as rustls wants it.
struct Wall(Arc<dyn Clock>);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        unix(self.0.wall())
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wall")
    }
}

fn unix(time: Timestamp) -> Option<UnixTime> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

/// The key and the chain that is presented: the leaf and the authority that signed it, so that a joiner finds the one it pinned.
pub(crate) fn certified_key(credentials: &Credentials) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = std::iter::once(&credentials.leaf).chain(credentials.authorities.first()).map(der).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key.der().to_vec()));
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => IdentityError::KeyMismatch,
        other => IdentityError::Untrusted(other),
    })
}

/// Checks that a leaf was signed by its first authority and is good at `wall`: a node's for serving, a user's for calling.
pub(crate) fn check_leaf(credentials: &Credentials, wall: Timestamp) -> Result<(), rustls::Error> {
    let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let leaf = certificate::read_leaf(&credentials.leaf).map_err(|_| unknown())?;
    let now = unix(wall).ok_or(rustls::Error::FailedToGetCurrentTime)?;
    let first = credentials.authorities.first().ok_or_else(unknown)?;
    let roots = roots(std::slice::from_ref(first))?;
    match &leaf.subject {
        Subject::Node(node) => {
            let name = name(server_name(leaf.cluster, *node))?;
            let verifier = server_verifier(roots)?;
            verifier.verify_server_cert(&der(&credentials.leaf), &[], &name, &[], now).map(drop)
        }
        Subject::User(_) => client_verifier(roots)?.verify_client_cert(&der(&credentials.leaf), &[], now).map(drop),
    }
}

pub(crate) fn roots(authorities: &[bytes::Bytes]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(der(authority))?;
    }
    Ok(Arc::new(roots))
}

pub(crate) fn server_verifier(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Callers without a certificate get through: joiners and DNS clients. What they may do is decided in `port.rs`.
pub(crate) fn client_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// TLS for accepting, with the given purposes.
pub(crate) fn server(
    credentials: &Credentials,
    verifier: Arc<dyn ClientCertVerifier>,
    alpns: &[Alpn],
    clock: Arc<dyn Clock>,
) -> Result<QuicServerConfig, IdentityError> {
    let mut config = rustls::ServerConfig::builder_with_details(provider(), Arc::new(Wall(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Untrusted)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(credentials)?)));
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.name().into()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config)
        .map_err(|error| IdentityError::Untrusted(rustls::Error::General(error.to_string())))
}

/// TLS for dialling, for one purpose; without credentials, as nobody.
pub(crate) fn client(
    credentials: Option<&Credentials>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: Alpn,
    clock: Arc<dyn Clock>,
) -> Result<QuicClientConfig, IdentityError> {
    let builder = rustls::ClientConfig::builder_with_details(provider(), Arc::new(Wall(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Untrusted)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(credentials) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(credentials)?)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.name().into()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config)
        .map_err(|error| IdentityError::Untrusted(rustls::Error::General(error.to_string())))
}

/// What a connection's other side presented. Without a certificate, `leaf` is `None`; with a bad name, an error.
pub(crate) fn presented(connection: &quinn::Connection) -> (Option<Alpn>, Result<Option<Leaf>, IdentityError>) {
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol.as_deref().and_then(Alpn::from_wire));
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_deref().and_then(|chain| chain.first()).map(|leaf| certificate::read_leaf(leaf)).transpose();
    (alpn, leaf)
}

/// Verifies a server for someone who knows no node's id: a client with the cluster's authorities, or a joiner with a pin.
///
/// A joiner's authority is found by its pinned public key in the presented chain, and is the only one trusted. Why a server was not
/// trusted is remembered, since the connection's error carries it as text only.
pub(crate) struct Introducer {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    failure: Mutex<Option<rustls::Error>>,
}

enum Trust {
    Authorities(Arc<WebPkiServerVerifier>),
    Pin([u8; 32]),
}

impl Introducer {
    pub(crate) fn pinned(pin: [u8; 32]) -> Arc<Self> {
        Self::new(Trust::Pin(pin))
    }

    pub(crate) fn authorities(authorities: &[bytes::Bytes]) -> Result<Arc<Self>, rustls::Error> {
        Ok(Self::new(Trust::Authorities(server_verifier(roots(authorities)?)?)))
    }

    fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self { trust, provider: provider(), failure: Mutex::new(None) })
    }

    /// Why the last server was not trusted.
    pub(crate) fn failure(&self) -> Option<rustls::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = match &self.trust {
            Trust::Authorities(verifier) => Arc::clone(verifier),
            Trust::Pin(pin) => {
                let pinned = chain.iter().find(|der| certificate::pin(der).is_ok_and(|found| found == *pin));
                let pinned = pinned.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                server_verifier(roots(&[bytes::Bytes::copy_from_slice(pinned)])?)?
            }
        };
        verifier.verify_server_cert(leaf, chain, &name(ANY_NODE.to_owned())?, &[], now)
    }
}

impl ServerCertVerifier for Introducer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verify(leaf, chain, now);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = verified.as_ref().err().cloned();
        verified
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Introducer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Introducer")
    }
}

fn name(name: String) -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))
}

fn der(bytes: &bytes::Bytes) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

#[cfg(test)]
mod tests;
