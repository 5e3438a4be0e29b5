//! Whether the cluster can take a new object: its namespace must be there and must not be ending.
//!
//! Invariant: a creation compares the namespace it was admitted to, so that nothing appears in one that ended meanwhile.

use quorate_proto::{
    kinds::{Kind, NAMESPACES},
    object::Object,
    refusal::{Reason, Refusal},
    snapshot::Snapshot,
    txn::Txn,
};

use crate::message::{Subject, cut};

/// Admits a new object; the transaction to go on with holds what the admission was decided on.
pub(crate) fn create(kind: &Kind, subject: &Subject, object: &Object, snapshot: &Snapshot) -> Result<Txn, Refusal> {
    let Some(name) = object.namespace().filter(|_| kind.namespaced) else { return Ok(Txn::new()) };
    let Some(namespace) = snapshot.find(&NAMESPACES, None, name) else {
        return Err(subject
            .refuse(Reason::NotFound, format!("there is no namespace `{}`", cut(name)))
            .hint("create the namespace first"));
    };
    if namespace.object.deletion_timestamp().is_some() {
        return Err(subject
            .refuse(Reason::Forbidden, format!("namespace `{}` is being deleted", cut(name)))
            .hint("wait until it is gone, and create it again"));
    }
    Ok(Txn::new().expect(namespace.key.clone(), Some(namespace.modified)))
}
