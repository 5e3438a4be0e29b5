//! `quorate cordon` and `quorate uncordon`: whether new pods may be bound to a node.
//!
//! Invariant: pods that run there go on.

use bytes::Bytes;
use quorate_proto::{
    kinds::NODES,
    request::{ChangeKind, Request},
    txn::Document,
};

use crate::{args::NodeNames, failure::Failure, output::qualified_name, session::Session};

/// Keeps new pods off nodes.
pub(crate) async fn cordon(session: &mut Session<'_>, nodes: NodeNames) -> Result<(), Failure> {
    patch(session, nodes, br#"{"spec":{"unschedulable":true}}"#, "cordoned").await
}

/// Lets new pods on nodes again.
pub(crate) async fn uncordon(session: &mut Session<'_>, nodes: NodeNames) -> Result<(), Failure> {
    patch(session, nodes, br#"{"spec":{"unschedulable":null}}"#, "uncordoned").await
}

async fn patch(session: &mut Session<'_>, nodes: NodeNames, patch: &'static [u8], done: &str) -> Result<(), Failure> {
    let mut refusals = Vec::new();
    for name in nodes.names {
        let request = Request::Patch {
            request: session.client.request_id(),
            object: session.reference(&NODES, &name),
            patch: Document(Bytes::from_static(patch)),
            dry_run: false,
        };
        match session.change(request).await {
            Ok(changed) => {
                let already = if changed.change == ChangeKind::Unchanged { "already " } else { "" };
                writeln!(session.console.out, "{} {already}{done}", qualified_name(&NODES, &name))?;
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    Failure::if_any(refusals)
}
