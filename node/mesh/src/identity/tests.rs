//! An identity is whole or refused, in memory and on disk.

use std::fs;

use super::*;
use crate::testing::{Chance, authority, days, identity, wall};

#[test]
fn an_identity_reads_back_as_it_was_stored_and_only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity(&authority(1), 7);
    identity.store(directory.path()).unwrap();
    assert_eq!(Identity::load(directory.path()).unwrap(), identity);
    let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "nothing but the identity is left behind");
}

#[test]
fn a_machine_that_has_not_joined_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = Identity::load(directory.path()).unwrap_err();
    assert!(error.to_string().ends_with("this machine is not a member of a cluster yet"), "{error}");
}

#[test]
fn an_identity_that_others_may_read_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    identity(&authority(1), 7).store(directory.path()).unwrap();
    fs::set_permissions(directory.path().join(FILE), Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Identity::load(directory.path()), Err(IdentityError::Exposed { mode: 0o640, .. })));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    identity(&authority(1), 7).store(directory.path()).unwrap();
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len() - 1).step_by(97) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(Identity::load(directory.path()).is_err(), "cut at {length}");
    }
}

#[test]
fn an_expired_identity_still_says_who_this_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = NodeId(7);
    let old = Identity::issue(&authority(1), node, days(-100), &Chance::new(1)).unwrap();
    old.store(directory.path()).unwrap();
    assert_eq!(Identity::load(directory.path()).unwrap().node, node);
}

#[test]
fn parts_that_do_not_belong_together_make_no_identity() {
    let (ours, theirs) = (authority(1), authority(1));
    let (one, two) = (identity(&ours, 7).credentials, identity(&ours, 8).credentials);
    let assemble = |key: &PrivateKey, leaf: &Bytes, authority: &ClusterAuthority, wall| {
        Identity::assemble(key.clone(), leaf.clone(), vec![authority.certificate().clone()], wall)
    };
    assert!(assemble(&one.key, &one.leaf, &ours, wall()).is_ok());
    assert!(matches!(assemble(&two.key, &one.leaf, &ours, wall()), Err(IdentityError::KeyMismatch)));
    assert!(matches!(assemble(&one.key, &one.leaf, &theirs, wall()), Err(IdentityError::Untrusted(_))));
    assert!(matches!(assemble(&one.key, &one.leaf, &authority(2), wall()), Err(IdentityError::Subject { .. })));
    assert!(matches!(assemble(&one.key, &one.leaf, &ours, days(31)), Err(IdentityError::Untrusted(_))));
    assert!(matches!(assemble(&one.key, &one.leaf, &ours, days(-1)), Err(IdentityError::Untrusted(_))));
    let none = Identity::assemble(one.key, one.leaf, Vec::new(), wall());
    assert!(matches!(none, Err(IdentityError::Malformed(_))));
}

#[test]
fn a_user_is_no_node_and_a_node_no_user() {
    let authority = authority(1);
    let user = UserIdentity::issue(&authority, "ada", wall(), &Chance::new(1)).unwrap();
    assert_eq!(UserIdentity::from_pem(&user.to_pem()).unwrap(), user);
    assert!(matches!(
        UserIdentity::from_pem(&identity(&authority, 7).credentials.to_pem()),
        Err(IdentityError::Subject { .. })
    ));
    let Credentials { key, leaf, authorities, .. } = user.credentials;
    assert!(matches!(Identity::assemble(key, leaf, authorities, wall()), Err(IdentityError::Subject { .. })));
}

#[test]
fn a_private_key_is_in_no_debug_output() {
    let identity = identity(&authority(1), 7);
    let shown = format!("{identity:?}");
    assert!(shown.contains("key: …"), "{shown}");
}
