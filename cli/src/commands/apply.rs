//! `quorate apply`: makes objects be as their manifests say.
//!
//! Invariant: all manifests are read and checked before the first is sent; after a refusal the others are still sent, and the exit
//! code tells.

use std::io::Read;

use quorate_proto::{
    kinds::Kind,
    manifest::ManifestObject,
    object::Object,
    refusal::{Reason, Refusal},
    request::{ChangeKind, Request},
};

use crate::{
    args::Apply,
    failure::Failure,
    manifests,
    output::object_name,
    session::{Changed, Session},
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Apply, stdin: &mut dyn Read) -> Result<(), Failure> {
    let manifests = manifests::collect(&arguments.filename, stdin, "applied")?;
    let mut refusals = Vec::new();
    for manifest in manifests {
        for warning in &manifest.warnings {
            let place = manifest.locate(&warning.path);
            writeln!(session.console.err, "warning: {place}: {}", warning.message)?;
        }
        match apply(session, &manifest, arguments.dry_run).await {
            Ok(Changed { change, object, warnings }) => {
                for warning in warnings {
                    writeln!(session.console.err, "warning: {}: {warning}", manifest.origin)?;
                }
                let note = if arguments.dry_run { " (dry run)" } else { "" };
                writeln!(session.console.out, "{} {}{note}", object_name(&object), word(change))?;
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    Failure::if_any(refusals)
}

/// What was done, as `kubectl` calls it.
pub(crate) const fn word(change: ChangeKind) -> &'static str {
    match change {
        ChangeKind::Created => "created",
        ChangeKind::Configured => "configured",
        ChangeKind::Unchanged => "unchanged",
        ChangeKind::Deleted => "deleted",
    }
}

async fn apply(session: &Session<'_>, manifest: &ManifestObject, dry_run: bool) -> Result<Changed, Refusal> {
    let object = in_namespace(session, manifest)?;
    let request = Request::Apply { request: session.client.request_id(), object: object.to_document(), dry_run };
    session.change(request).await.map_err(|refusal| match refusal.reason {
        // A node's refusal names fields; the user wants to know in which file.
        Reason::Invalid | Reason::BadRequest => {
            Refusal { because: format!("{}: {}", manifest.origin, refusal.because), ..refusal }
        }
        _ => refusal,
    })
}

/// The object in its namespace: its own, else the one that is meant.
pub(crate) fn in_namespace(session: &Session<'_>, manifest: &ManifestObject) -> Result<Object, Refusal> {
    let mut object = manifest.object.clone();
    let namespaced = Kind::of(object.api_version(), object.kind()).is_some_and(|kind| kind.namespaced);
    match (object.namespace(), session.named_namespace.as_deref()) {
        (Some(own), Some(named)) if namespaced && own != named => Err(Refusal::new(
            Reason::BadRequest,
            format!("{} was not applied", object_name(&object)),
            format!("{}: it says namespace `{own}`, the command line says `{named}`", manifest.origin),
        )
        .hint("leave out -n, or take the namespace out of the manifest")),
        (None, _) if namespaced => {
            object.set(&["metadata", "namespace"], session.namespace());
            Ok(object)
        }
        _ => Ok(object),
    }
}
