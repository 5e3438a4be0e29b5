//! Nodes at their ports: a connection of the mesh each, a stream per request.
//!
//! Invariant: only nodes of the context's cluster are asked.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_mesh::{Client, ClientError, UserIdentity};
use quorate_node::world::SystemClock;
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, Request},
    wire::cap,
};

use super::{Connection, Endpoint, WHAT, chain, lost};
use crate::{client::Answers, config::Context};

/// What to do about a node that does not answer.
pub(super) const UNREACHABLE: &str = "are the nodes up, and UDP let through? --endpoint HOST:PORT names another node";

/// Who asks, by the context.
///
/// # Errors
/// If there is no context, or its identity cannot be used.
pub(super) fn identity(context: Option<&Context>, endpoint: &str) -> Result<Arc<UserIdentity>, Refusal> {
    let Some(context) = context else {
        return Err(Refusal::new(Reason::NotFound, WHAT, format!("no context says who asks {endpoint}"))
            .hint("`quorate context list` shows what there is; --context NAME chooses one"));
    };
    let damaged = |because: String| {
        Refusal::new(Reason::Invalid, WHAT, format!("the context's `identity`: {because}"))
            .hint("make the context again, or choose another with `quorate context use`")
    };
    let identity = UserIdentity::from_pem(&context.identity).map_err(|error| damaged(error.to_string()))?;
    if identity.cluster != context.cluster_id()? {
        return Err(damaged("it is of another cluster than the context".to_owned()));
    }
    Ok(Arc::new(identity))
}

/// A node's port.
pub(super) struct Port {
    name: String,
    identity: Arc<UserIdentity>,
}

impl Port {
    /// `name` is `host:port`.
    pub(super) fn new(name: &str, identity: Arc<UserIdentity>) -> Self {
        Self { name: name.to_owned(), identity }
    }
}

#[async_trait]
impl Endpoint for Port {
    fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, Refusal> {
        let clock = Arc::new(SystemClock::start());
        match Client::connect(std::slice::from_ref(&self.name), &self.identity, clock).await {
            Ok(client) => Ok(Arc::new(Connected(Arc::new(client)))),
            Err(error) => Err(refusal(&error)),
        }
    }
}

struct Connected(Arc<Client>);

impl Connected {
    /// That the certificate is refused shows only when something was asked.
    fn broken(&self, error: &dyn std::error::Error) -> Refusal {
        broken(&self.0, error)
    }
}

fn broken(client: &Client, error: &dyn std::error::Error) -> Refusal {
    match client.why_closed() {
        Some(closed @ ClientError::Refused { .. }) => refusal(&closed),
        _ => lost(error),
    }
}

#[async_trait]
impl Connection for Connected {
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
        let client = Arc::clone(&self.0);
        let mut stream = client.open().await.map_err(|error| self.broken(&error))?;
        stream.write_frame(request, cap::API).await.map_err(|error| self.broken(&error))?;
        stream.finish().map_err(|error| self.broken(&error))?;
        // The connection lives as long as its answers are read.
        let answers = stream::unfold(Some((stream, client)), |state| async {
            let (mut stream, client) = state?;
            match stream.read_frame::<Answer>(cap::API).await {
                Ok(Some(answer)) => Some((Ok(answer), Some((stream, client)))),
                Ok(None) => None,
                Err(error) => Some((Err(broken(&client, &error)), None)),
            }
        });
        Ok(answers.boxed())
    }

    fn is_open(&self) -> bool {
        self.0.why_closed().is_none()
    }
}

/// Why a node was not reached. A wrong cluster or a refused certificate is final; who did not answer may answer later.
fn refusal(error: &ClientError) -> Refusal {
    let (reason, hint) = match error {
        ClientError::Refused { .. } => {
            (Reason::Unauthorized, "the certificate is no longer good: get a new context from an administrator")
        }
        ClientError::OtherCluster { .. } => {
            (Reason::Unauthorized, "choose the cluster's own context: `quorate context list` shows them")
        }
        _ => (Reason::Unavailable, UNREACHABLE),
    };
    let because = match error {
        ClientError::Unreachable { tried } => tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        error => chain(error),
    };
    Refusal::new(reason, WHAT, because).hint(hint)
}
