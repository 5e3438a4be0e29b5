//! The cluster's certificate authority: makes itself, and names nodes and users.
//!
//! ECDSA P-256, path length 0, ten years. From a request it takes the public key and nothing else: names, usages, CA flag and
//! lifetime come from here. The key is meant to be kept sealed ([`crate::ClusterKey`]) wherever it is stored.
//!
//! Invariant: a user's certificate is for clients only, so it never passes for a node's.

use bytes::Bytes;
use quorate_proto::{
    ids::{ClusterId, NodeId},
    world::{Random, Timestamp},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::{
    certificate::{ANY_NODE, Subject, authority_uri, is_user_name, pin, read_authority, server_name, uri},
    identity::{IdentityError, PrivateKey},
};

/// How long the authority itself is good for.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// How long a node's certificate is good for; it is to be renewed at half of that.
const NODE_LIFETIME: Duration = Duration::days(30);
/// How long a user's certificate is good for.
const USER_LIFETIME: Duration = Duration::days(365);
/// Certificates begin this much in the past, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::hours(1);
/// The longest signing request that is read, in bytes.
const MAX_REQUEST: usize = 4096;

/// The certificate authority of a cluster, with its key.
#[derive(Debug)]
pub struct ClusterAuthority {
    cluster: ClusterId,
    certificate: Bytes,
    key: PrivateKey,
}

impl ClusterAuthority {
    /// Makes the authority of a new cluster. The key comes from ring's own generator, the serial number from `random`.
    ///
    /// # Errors
    /// If `wall` is no time a certificate can have.
    pub fn generate(cluster: ClusterId, wall: Timestamp, random: &dyn Random) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(vec![uri_name(authority_uri(cluster))?], wall, AUTHORITY_LIFETIME, random)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("quorate {cluster}"));
        let certificate = Bytes::copy_from_slice(params.self_signed(&key)?.der());
        Ok(Self { cluster, certificate, key: PrivateKey::new(key.serialize_der()) })
    }

    /// An authority from its parts, both in DER (the key as PKCS #8), as [`Self::certificate`] and [`Self::key`] gave them.
    ///
    /// # Errors
    /// If the certificate is no cluster's CA, or the key is not its.
    pub fn from_parts(certificate: Bytes, key: PrivateKey) -> Result<Self, IdentityError> {
        let authority = Self { cluster: read_authority(&certificate)?, certificate, key };
        let public = authority.issuer()?.key().subject_public_key_info();
        if ring::digest::digest(&ring::digest::SHA256, &public).as_ref() == authority.pin()? {
            Ok(authority)
        } else {
            Err(IdentityError::KeyMismatch)
        }
    }

    /// The cluster it names nodes and users of.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate, in DER.
    #[must_use]
    pub const fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    /// Its key: to be sealed before it is stored.
    #[must_use]
    pub const fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// SHA-256 of its public key (SPKI), for join tokens.
    ///
    /// # Errors
    /// Never, for an authority that was made or read.
    pub fn pin(&self) -> Result<[u8; 32], IdentityError> {
        pin(&self.certificate)
    }

    /// Signs a node's certificate (30 days) for the public key of a signing request (PKCS #10, DER). Returns the leaf, in DER.
    ///
    /// # Errors
    /// If the request is malformed, not signed by its own key, or its key is not ECDSA P-256.
    pub fn issue_node(
        &self,
        request: &[u8],
        node: NodeId,
        wall: Timestamp,
        random: &dyn Random,
    ) -> Result<Bytes, IdentityError> {
        let names = vec![
            uri_name(uri(self.cluster, &Subject::Node(node)))?,
            dns_name(server_name(self.cluster, node))?,
            dns_name(ANY_NODE.to_owned())?,
        ];
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(request, names, usages, NODE_LIFETIME, wall, random)
    }

    /// Signs a user's certificate (a year, client only) for the public key of a signing request. Returns the leaf, in DER.
    ///
    /// # Errors
    /// As [`Self::issue_node`], and if the name is longer than 64 bytes or has other characters than letters, digits and `-._@`.
    pub fn issue_user(
        &self,
        request: &[u8],
        name: &str,
        wall: Timestamp,
        random: &dyn Random,
    ) -> Result<Bytes, IdentityError> {
        if !is_user_name(name) {
            return Err(IdentityError::UserName(name.chars().take(64).collect()));
        }
        let names = vec![uri_name(uri(self.cluster, &Subject::User(name.to_owned())))?];
        self.issue(request, names, vec![ExtendedKeyUsagePurpose::ClientAuth], USER_LIFETIME, wall, random)
    }

    fn issue(
        &self,
        request: &[u8],
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        lifetime: Duration,
        wall: Timestamp,
        random: &dyn Random,
    ) -> Result<Bytes, IdentityError> {
        if request.len() > MAX_REQUEST {
            return Err(IdentityError::TooLarge { what: "signing request", length: request.len(), limit: MAX_REQUEST });
        }
        let public_key =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))?.public_key;
        if public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::Algorithm);
        }
        let mut params = params(names, wall, lifetime, random)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        Ok(Bytes::copy_from_slice(params.signed_by(&public_key, &self.issuer()?)?.der()))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, IdentityError> {
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(self.key.der()), &PKCS_ECDSA_P256_SHA256)?;
        Ok(Issuer::from_ca_cert_der(&CertificateDer::from(self.certificate.as_ref()), key)?)
    }
}

fn params(
    names: Vec<SanType>,
    wall: Timestamp,
    lifetime: Duration,
    random: &dyn Random,
) -> Result<CertificateParams, IdentityError> {
    let now = OffsetDateTime::from_unix_timestamp(wall.as_second()).map_err(|_| IdentityError::Time)?;
    let mut params = CertificateParams::default();
    params.not_before = now.checked_sub(BACKDATED).ok_or(IdentityError::Time)?;
    params.not_after = now.checked_add(lifetime).ok_or(IdentityError::Time)?;
    // RFC 5280 §4.1.2.2: positive, at most 20 bytes.
    params.serial_number = Some(SerialNumber::from((random.id() >> 1).to_be_bytes().to_vec()));
    params.subject_alt_names = names;
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

fn uri_name(uri: String) -> Result<SanType, IdentityError> {
    Ok(SanType::URI(uri.try_into()?))
}

fn dns_name(name: String) -> Result<SanType, IdentityError> {
    Ok(SanType::DnsName(name.try_into()?))
}

#[cfg(test)]
mod tests;
