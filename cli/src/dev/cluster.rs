//! What `quorate dev` asks of the cluster it makes: who leads, who is ready, a token.
//!
//! Invariant: it asks as any client does, through the context that founding the cluster wrote.

use std::{path::Path, time::Duration};

use quorate_proto::{
    kinds::NODES,
    refusal::Refusal,
    request::{Answer, Read, Request, Selection, Shape},
};

use super::plan::Plan;
use crate::{
    client::{Client, unexpected},
    config::Config,
    output, transport,
};

/// The cluster's client, if there is a context by which it can be asked.
///
/// # Errors
/// If the context cannot be used.
pub(crate) fn client(contexts: &Path, plan: &Plan, patience: Duration) -> Result<Option<Client>, Refusal> {
    let config = Config::read(contexts).map_err(|error| error.refusal("the cluster was not asked"))?;
    match config.contexts.get(plan.context()) {
        Some(context) => transport::client(Some(context), &context.endpoints, patience).map(Some),
        None => Ok(None),
    }
}

/// The names of the nodes that are ready.
pub(crate) async fn ready(client: &Client) -> Result<Vec<String>, Refusal> {
    let request = Request::List(Selection {
        kind: NODES.qualified(),
        namespace: None,
        labels: String::new(),
        fields: String::new(),
        shape: Shape::Objects,
        read: Read::Linearizable,
    });
    let mut names = Vec::new();
    for answer in client.ask_for_all(request.clone()).await? {
        let Answer::Objects { objects, .. } = answer else {
            return Err(unexpected(&request, &answer));
        };
        for document in &objects {
            let node = output::read(document)?;
            if node.is_true("Ready") {
                names.push(node.name().to_owned());
            }
        }
    }
    Ok(names)
}
