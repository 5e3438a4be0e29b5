//! `quorate scale`: sets how many replicas there are to be.
//!
//! Invariant: the replicas are made by the cluster afterwards; this only says how many are wanted.

use quorate_proto::request::Request;

use crate::{args::Scale, failure::Failure, output::qualified_name, session::Session, targets};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Scale) -> Result<(), Failure> {
    let mut refusals = Vec::new();
    for target in targets::parse(&arguments.what)? {
        let Some(name) = target.name else {
            return Err(Failure::usage(
                "nothing was scaled",
                format!("it was not said which {}", target.kind.plural),
                "write KIND NAME or KIND/NAME",
            ));
        };
        let request = Request::Scale {
            request: session.client.request_id(),
            object: session.reference(target.kind, &name),
            replicas: arguments.replicas,
        };
        match session.change(request).await {
            Ok(_) => writeln!(session.console.out, "{} scaled", qualified_name(target.kind, &name))?,
            Err(refusal) => refusals.push(refusal),
        }
    }
    Failure::if_any(refusals)
}
