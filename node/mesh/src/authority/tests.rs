//! What the authority signs, and what it does not take from a request.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::{
    certificate::{Leaf, read_leaf},
    testing::{Chance, authority, days, wall},
};

const NODE: NodeId = NodeId(7);

fn greedy_request(key: &KeyPair) -> Vec<u8> {
    let mut wish = CertificateParams::new(vec!["admin.example.org".to_owned()]).unwrap();
    wish.subject_alt_names.push(uri_name("spiffe://other/node/1".to_owned()).unwrap());
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_request_that_asks_for_more_gets_only_its_key_certified() {
    let authority = authority(1);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = authority.issue_node(&greedy_request(&key), NODE, wall(), &Chance::new(1)).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!certificate.is_ca());
    assert_eq!(certificate.tbs_certificate.subject_pki.raw, key.subject_public_key_info());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
    let (cluster, node) = (authority.cluster(), NODE);
    assert_eq!(
        names,
        [
            format!("URI(spiffe://{cluster}/node/{node})"),
            format!("DNSName({node}.node.{cluster}.internal)"),
            "DNSName(join.quorate.internal)".to_owned(),
        ]
    );
}

#[test]
fn a_node_is_named_for_thirty_days_beginning_an_hour_ago() {
    let key = PrivateKey::generate().unwrap();
    let leaf = authority(1).issue_node(&key.signing_request().unwrap(), NODE, wall(), &Chance::new(1)).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(certificate.validity().not_before.timestamp(), wall().as_second() - 3600);
    assert_eq!(certificate.validity().not_after.timestamp(), days(30).as_second());
    let named = Leaf { cluster: ClusterId(1), subject: Subject::Node(NODE), not_after: days(30) };
    assert_eq!(read_leaf(&leaf).unwrap(), named);
}

#[test]
fn a_users_certificate_is_for_clients_only() {
    let key = PrivateKey::generate().unwrap();
    let leaf =
        authority(1).issue_user(&key.signing_request().unwrap(), "ada@example.org", wall(), &Chance::new(1)).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert_eq!(read_leaf(&leaf).unwrap().subject, Subject::User("ada@example.org".to_owned()));
}

#[test]
fn a_user_name_that_could_be_mistaken_for_a_path_is_refused() {
    let request = PrivateKey::generate().unwrap().signing_request().unwrap();
    let long = "a".repeat(65);
    for name in ["", "a/b", "node/7", "..", "a b", "a%2fb", "ä", &long] {
        let refused = authority(1).issue_user(&request, name, wall(), &Chance::new(1));
        assert!(matches!(refused, Err(IdentityError::UserName(_))), "{name}");
    }
}

#[test]
fn a_request_of_another_kind_of_key_or_a_broken_one_is_refused() {
    let authority = authority(1);
    let issue = |request: &[u8]| authority.issue_node(request, NODE, wall(), &Chance::new(1));
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(matches!(issue(&greedy_request(&other)), Err(IdentityError::Algorithm)));
    let mut unsigned = greedy_request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    assert!(matches!(issue(&unsigned), Err(IdentityError::Certificate(_))));
    assert!(matches!(issue(&[0; MAX_REQUEST + 1]), Err(IdentityError::TooLarge { .. })));
}

#[test]
fn an_authority_reads_back_from_its_parts_and_not_with_anothers_key() {
    let (ours, theirs) = (authority(1), authority(2));
    let back = ClusterAuthority::from_parts(ours.certificate().clone(), ours.key().clone()).unwrap();
    assert_eq!((back.cluster(), back.pin().unwrap()), (ClusterId(1), ours.pin().unwrap()));
    let mixed = ClusterAuthority::from_parts(ours.certificate().clone(), theirs.key().clone());
    assert!(matches!(mixed, Err(IdentityError::KeyMismatch)));
}
