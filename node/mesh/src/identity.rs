//! Who this node or user is: a key, the certificate that names it, and the authorities it trusts; and how that is kept on disk.
//!
//! Invariant: an identity in memory is whole: its key belongs to its certificate, its certificate names it exactly once and was signed
//! by its first authority. On disk it is one file, so it is there whole or not at all, readable by its owner only.

use std::{
    fmt,
    fs::{File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use pem::Pem;
use quorate_proto::{
    ids::{ClusterId, NodeId},
    world::{Random, Timestamp},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    authority::ClusterAuthority,
    certificate::{Leaf, Subject, pin, read_authority, read_leaf},
    tls,
};

/// The file a node's identity is kept in, inside its data directory.
const FILE: &str = "identity.pem";
/// What the parts of that file are called (RFC 7468).
const KEY_LABEL: &str = "PRIVATE KEY";
const CERTIFICATE_LABEL: &str = "CERTIFICATE";
/// The largest identity that is read, in bytes.
const MAX_FILE: usize = 64 << 10;
/// The most authorities a cluster has at a time.
const MAX_AUTHORITIES: usize = 8;

/// Why an identity cannot be made, read or stored.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Not what it should be.
    #[error("the {0} is malformed")]
    Malformed(&'static str),
    /// Beyond a limit.
    #[error("the {what} has {length} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// How large it is.
        length: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A certificate without exactly one URI name.
    #[error("the certificate has {0} URI names, not exactly one")]
    UriNames(usize),
    /// A URI name that names no node, user or cluster.
    #[error("the certificate's name `{0}` is not of this kind of cluster")]
    Name(String),
    /// A user name that cannot be part of a certificate's name.
    #[error("`{0}` is not a user name: 1 to 64 letters, digits and `-._@`, not beginning with `.`")]
    UserName(String),
    /// It names someone else than was expected.
    #[error("the certificate is for {found}, not for {expected}")]
    Subject {
        /// Whom it names.
        found: String,
        /// Whom it should name.
        expected: String,
    },
    /// The private key is another's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// Not the one algorithm in use.
    #[error("the key is not ECDSA P-256")]
    Algorithm,
    /// A time no certificate can have.
    #[error("the time is not one a certificate can have")]
    Time,
    /// Not signed by the authority it came with, or not good now.
    #[error("the certificate is not good")]
    Untrusted(#[source] rustls::Error),
    /// The certificate library refused.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// There is no identity: this machine has not joined.
    #[error("there is no identity in `{0}`: this machine is not a member of a cluster yet")]
    Absent(PathBuf),
    /// Others than its owner may read it.
    #[error(
        "`{path}` may be read by others (mode {mode:o}): it was to be 0600; `chmod 600` it, and if it was read, join anew"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be read or written.
    #[error("`{path}` cannot be {doing}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A private key (PKCS #8, DER). Overwritten when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// From its DER.
    #[must_use]
    pub fn new(der: Vec<u8>) -> Self {
        Self(Zeroizing::new(der))
    }

    /// Makes a new key (ECDSA P-256), from ring's own generator.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_der()))
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// A signing request (PKCS #10, DER) for this key. It asks for nothing: the authority decides.
    ///
    /// # Errors
    /// If the key is not ECDSA P-256.
    pub fn signing_request(&self) -> Result<Bytes, IdentityError> {
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(self.der()), &PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(Bytes::copy_from_slice(params.serialize_request(&key)?.der()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// What a TLS session needs of a node or user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The private key.
    pub key: PrivateKey,
    /// The certificate that names it, in DER.
    pub leaf: Bytes,
    /// The cluster's authorities, in DER; the first one signed the leaf.
    pub authorities: Vec<Bytes>,
    /// Until when the certificate is good.
    pub not_after: Timestamp,
}

impl Credentials {
    /// Checks that the parts belong together and are good at `wall`.
    fn new(
        key: PrivateKey,
        leaf: Bytes,
        authorities: Vec<Bytes>,
        wall: Option<Timestamp>,
    ) -> Result<(Self, Leaf), IdentityError> {
        if authorities.len() > MAX_AUTHORITIES {
            return Err(IdentityError::TooLarge {
                what: "list of authorities",
                length: authorities.len(),
                limit: MAX_AUTHORITIES,
            });
        }
        let read = read_leaf(&leaf)?;
        let first = authorities.first().ok_or(IdentityError::Malformed("list of authorities"))?;
        let cluster = read_authority(first)?;
        if cluster != read.cluster {
            return Err(IdentityError::Subject {
                found: format!("cluster {}", read.cluster),
                expected: format!("cluster {cluster}"),
            });
        }
        let credentials = Self { key, leaf, authorities, not_after: read.not_after };
        tls::certified_key(&credentials)?;
        if let Some(wall) = wall {
            tls::check_leaf(&credentials, wall).map_err(IdentityError::Untrusted)?;
        }
        Ok((credentials, read))
    }

    fn to_pem(&self) -> Zeroizing<String> {
        let certificates = std::iter::once(&self.leaf).chain(&self.authorities);
        let mut text = Zeroizing::new(pem::encode(&Pem::new(KEY_LABEL, self.key.der())));
        for certificate in certificates {
            text.push_str(&pem::encode(&Pem::new(CERTIFICATE_LABEL, certificate.as_ref())));
        }
        text
    }

    /// A stored identity may have expired; it still says who this is, and is what renewal starts from.
    fn from_pem(text: &[u8]) -> Result<(Self, Leaf), IdentityError> {
        if text.len() > MAX_FILE {
            return Err(IdentityError::TooLarge { what: "identity", length: text.len(), limit: MAX_FILE });
        }
        let mut parts = pem::parse_many(text).map_err(|_| IdentityError::Malformed("identity"))?.into_iter();
        let mut next = |label| parts.next().filter(|part| part.tag() == label).map(Pem::into_contents);
        let key = next(KEY_LABEL).map(PrivateKey::new).ok_or(IdentityError::Malformed("identity"))?;
        let leaf = next(CERTIFICATE_LABEL).map(Bytes::from).ok_or(IdentityError::Malformed("identity"))?;
        let authorities = parts.map(|part| Bytes::from(part.into_contents())).collect();
        Self::new(key, leaf, authorities, None)
    }
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
    /// What proves it.
    pub credentials: Credentials,
}

impl Identity {
    /// Puts together what a join or renewal brought, and checks that it is whole and good at `wall`.
    ///
    /// # Errors
    /// If the parts do not belong together, name no node, or are not good now.
    pub fn assemble(
        key: PrivateKey,
        leaf: Bytes,
        authorities: Vec<Bytes>,
        wall: Timestamp,
    ) -> Result<Self, IdentityError> {
        Self::named(Credentials::new(key, leaf, authorities, Some(wall))?)
    }

    /// Makes a key and has the authority at hand name it: for the first node of a cluster.
    ///
    /// # Errors
    /// As [`ClusterAuthority::issue_node`].
    pub fn issue(
        authority: &ClusterAuthority,
        node: NodeId,
        wall: Timestamp,
        random: &dyn Random,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKey::generate()?;
        let leaf = authority.issue_node(&key.signing_request()?, node, wall, random)?;
        Self::assemble(key, leaf, vec![authority.certificate().clone()], wall)
    }

    /// SHA-256 of the public keys of the authorities it trusts: what its cluster's join tokens pin.
    ///
    /// # Errors
    /// Never, for an identity that was assembled or read.
    pub fn pins(&self) -> Result<Vec<[u8; 32]>, IdentityError> {
        self.credentials.authorities.iter().map(|authority| pin(authority)).collect()
    }

    /// Stores it in a directory: one file, whole or not at all, 0600, on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn store(&self, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(FILE);
        let failed = |source| IdentityError::File { path: path.clone(), doing: "written", source };
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".identity").tempfile_in(directory)?;
            file.as_file().set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(self.credentials.to_pem().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            // The rename itself is on disk once the directory is.
            File::open(directory)?.sync_all()
        };
        write().map_err(failed)
    }

    /// Reads what [`Self::store`] stored. It may have expired meanwhile.
    ///
    /// # Errors
    /// If there is none, others may read it, or it is damaged.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let failed = |source| IdentityError::File { path: path.clone(), doing: "read", source };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Absent(directory.to_owned()));
            }
            opened => opened.map_err(failed)?,
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path, mode });
        }
        let mut text = Zeroizing::new(Vec::new());
        (&mut file).take(MAX_FILE as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        Self::named(Credentials::from_pem(&text)?)
    }

    fn named((credentials, leaf): (Credentials, Leaf)) -> Result<Self, IdentityError> {
        match leaf.subject {
            Subject::Node(node) => Ok(Self { cluster: leaf.cluster, node, credentials }),
            user @ Subject::User(_) => {
                Err(IdentityError::Subject { found: user.to_string(), expected: "a node".to_owned() })
            }
        }
    }
}

/// Who a user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// The cluster it is known in.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// What proves it.
    pub credentials: Credentials,
}

impl UserIdentity {
    /// Makes a key and has the authority at hand name it: for the cluster's first administrator.
    ///
    /// # Errors
    /// As [`ClusterAuthority::issue_user`].
    pub fn issue(
        authority: &ClusterAuthority,
        name: &str,
        wall: Timestamp,
        random: &dyn Random,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKey::generate()?;
        let leaf = authority.issue_user(&key.signing_request()?, name, wall, random)?;
        Self::named(Credentials::new(key, leaf, vec![authority.certificate().clone()], Some(wall))?)
    }

    /// As text (PEM: key, certificate, authorities), for a file that only its owner may read.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        self.credentials.to_pem()
    }

    /// Reads what [`Self::to_pem`] wrote. It may have expired meanwhile.
    ///
    /// # Errors
    /// If it is damaged, or a node's.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        Self::named(Credentials::from_pem(text.as_bytes())?)
    }

    fn named((credentials, leaf): (Credentials, Leaf)) -> Result<Self, IdentityError> {
        match leaf.subject {
            Subject::User(name) => Ok(Self { cluster: leaf.cluster, name, credentials }),
            node @ Subject::Node(_) => {
                Err(IdentityError::Subject { found: node.to_string(), expected: "a user".to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
