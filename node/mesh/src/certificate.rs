//! The one name of a certificate, and how it is written: `spiffe://<cluster>/node/<id>` or `spiffe://<cluster>/user/<name>`.
//!
//! Invariant: a certificate has exactly one URI name, and it is matched exactly; common names and everything else are never read.

use std::fmt;

use quorate_proto::{
    ids::{ClusterId, NodeId},
    world::Timestamp,
};
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::IdentityError;

/// The DNS name every node answers to, for who knows no node's id yet: a joiner or a client.
pub(crate) const ANY_NODE: &str = "join.quorate.internal";

/// The longest user name, in bytes.
pub(crate) const MAX_USER: usize = 64;

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// A user.
    User(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(formatter, "node/{node}"),
            Self::User(name) => write!(formatter, "user/{name}"),
        }
    }
}

/// What is read from a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) cluster: ClusterId,
    pub(crate) subject: Subject,
    pub(crate) not_after: Timestamp,
}

/// The name a node is dialled by, so that the stock verifier checks who answers.
pub(crate) fn server_name(cluster: ClusterId, node: NodeId) -> String {
    format!("{node}.node.{cluster}.internal")
}

pub(crate) fn uri(cluster: ClusterId, subject: &Subject) -> String {
    format!("spiffe://{cluster}/{subject}")
}

/// The URI name of a cluster's CA, as SPIFFE has it: the trust domain alone.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("spiffe://{cluster}")
}

/// Reads a leaf certificate; whether it is to be trusted is not decided here.
pub(crate) fn read_leaf(der: &[u8]) -> Result<Leaf, IdentityError> {
    let certificate = parse(der)?;
    let uri = only_uri(&certificate)?;
    let named = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let (cluster, path) = named.ok_or_else(|| IdentityError::Name(uri.clone()))?;
    let subject = match path.split_once('/') {
        Some(("node", id)) => id.parse().ok().map(Subject::Node),
        Some(("user", name)) if is_user_name(name) => Some(Subject::User(name.to_owned())),
        _ => None,
    };
    match (cluster.parse(), subject) {
        (Ok(cluster), Some(subject)) => Ok(Leaf { cluster, subject, not_after: not_after(&certificate)? }),
        _ => Err(IdentityError::Name(uri)),
    }
}

/// Reads which cluster a CA certificate belongs to.
pub(crate) fn read_authority(der: &[u8]) -> Result<ClusterId, IdentityError> {
    let certificate = parse(der)?;
    let uri = only_uri(&certificate)?;
    let cluster = uri.strip_prefix("spiffe://").and_then(|cluster| cluster.parse().ok());
    match cluster {
        Some(cluster) if certificate.is_ca() => Ok(cluster),
        _ => Err(IdentityError::Name(uri)),
    }
}

/// SHA-256 of a certificate's public key (SPKI): what a join token pins.
pub(crate) fn pin(der: &[u8]) -> Result<[u8; 32], IdentityError> {
    let certificate = parse(der)?;
    let mut pin = [0; 32];
    pin.copy_from_slice(digest(&SHA256, certificate.tbs_certificate.subject_pki.raw).as_ref());
    Ok(pin)
}

/// Letters, digits and `-._@`: what needs no escaping in a URI and cannot be mistaken for a path.
pub(crate) fn is_user_name(name: &str) -> bool {
    (1..=MAX_USER).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@'))
        && !name.starts_with('.')
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed("certificate")),
    }
}

fn only_uri(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed("certificate"))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        _ => Err(IdentityError::UriNames(uris.len())),
    }
}

fn not_after(certificate: &X509Certificate<'_>) -> Result<Timestamp, IdentityError> {
    Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|_| IdentityError::Malformed("certificate"))
}
