//! What `quorate dev` asks of the cluster it makes: who leads, who is ready, a token.
//!
//! Invariant: it asks as any client does, through the context that founding the cluster wrote.

use std::{path::Path, time::Duration};

use quorate_proto::{
    kinds::NODES,
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, Read, Request, Selection, Shape},
};

use super::plan::{Host, Plan};
use crate::{
    client::{Client, unexpected},
    config::{Config, Context},
    output, transport,
};

const WHAT: &str = "the cluster was not asked";

/// The cluster's client, if there is a context by which it can be asked.
///
/// # Errors
/// If the context cannot be used.
pub(crate) fn client(contexts: &Path, plan: &Plan, patience: Duration) -> Result<Option<Client>, Refusal> {
    match context(contexts, plan)? {
        Some(context) => transport::client(Some(&context), &context.endpoints, patience).map(Some),
        None => Ok(None),
    }
}

/// A client that asks one host and no other.
///
/// # Errors
/// If there is no context by which it can be asked.
pub(crate) fn client_of(contexts: &Path, plan: &Plan, host: &Host, patience: Duration) -> Result<Client, Refusal> {
    let missing = || Refusal::new(Reason::NotFound, WHAT, format!("there is no context `{}`", plan.context()));
    let context = context(contexts, plan)?.ok_or_else(missing)?;
    transport::client(Some(&context), &[host.endpoint().to_string()], patience)
}

fn context(contexts: &Path, plan: &Plan) -> Result<Option<Context>, Refusal> {
    let mut config = Config::read(contexts).map_err(|error| error.refusal(WHAT))?;
    Ok(config.contexts.remove(plan.context()))
}

/// All nodes, in the newest state there is.
///
/// # Errors
/// As [`Client::ask`].
pub(crate) async fn nodes(client: &Client) -> Result<Vec<Object>, Refusal> {
    let request = Request::List(Selection {
        kind: NODES.qualified(),
        namespace: None,
        labels: String::new(),
        fields: String::new(),
        shape: Shape::Objects,
        read: Read::Linearizable,
    });
    let mut nodes = Vec::new();
    for answer in client.ask_for_all(request.clone()).await? {
        let Answer::Objects { objects, .. } = answer else {
            return Err(unexpected(&request, &answer));
        };
        for document in &objects {
            nodes.push(output::read(document)?);
        }
    }
    Ok(nodes)
}
