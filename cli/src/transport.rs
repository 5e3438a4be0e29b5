//! Carries requests over the mesh: one connection to whichever endpoint answers first, a stream per request.
//!
//! Invariant: after a connection broke the next request makes a new one, to any endpoint.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use quorate_mesh::{Client, ClientError, UserIdentity};
use quorate_node::world::{SystemClock, SystemRandom};
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, Request},
    wire::cap,
    world::Clock,
};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    client::{self, Answers, Transport},
    config::Context,
};

/// How long to wait for an endpoint before the next one is dialled too.
const STAGGER: Duration = Duration::from_millis(150);

/// See the module.
pub(crate) struct Mesh {
    endpoints: Vec<String>,
    identity: UserIdentity,
    connection: Mutex<Option<Arc<Client>>>,
}

impl Mesh {
    /// For the cluster of a context.
    ///
    /// # Errors
    /// If the context's identity cannot be used.
    pub(crate) fn new(endpoints: &[String], context: &Context) -> Result<Self, Refusal> {
        let damaged = |because: String| {
            Refusal::new(Reason::Invalid, "no cluster was asked", format!("the context's `identity`: {because}"))
                .hint("make the context again, or choose another with `quorate context use`")
        };
        let identity = UserIdentity::from_pem(&context.identity).map_err(|error| damaged(error.to_string()))?;
        if identity.cluster != context.cluster_id()? {
            return Err(damaged("it is of another cluster than the context".to_owned()));
        }
        Ok(Self { endpoints: endpoints.to_vec(), identity, connection: Mutex::default() })
    }

    async fn connected(&self) -> Result<Arc<Client>, Refusal> {
        let mut connection = self.connection.lock().await;
        if let Some(client) = connection.as_ref().filter(|client| client.why_closed().is_none()) {
            return Ok(Arc::clone(client));
        }
        let client = self.first_to_answer().await?;
        Ok(Arc::clone(connection.insert(Arc::new(client))))
    }

    /// Dials one endpoint after the other without waiting for the one before to fail: a host that is off would cost seconds.
    async fn first_to_answer(&self) -> Result<Client, Refusal> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let mut dials: FuturesUnordered<_> = (0_u32..)
            .zip(&self.endpoints)
            .map(|(index, endpoint)| {
                let clock = Arc::clone(&clock);
                async move {
                    sleep(STAGGER * index).await;
                    Client::connect(std::slice::from_ref(endpoint), &self.identity, clock).await
                }
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(client) => return Ok(client),
                Err(error) => failures.push(error),
            }
        }
        Err(refusal(&failures))
    }
}

/// A client for the cluster of a context.
///
/// # Errors
/// If the context's identity cannot be used.
pub(crate) fn client(context: &Context, endpoints: &[String], patience: Duration) -> Result<client::Client, Refusal> {
    let transport = Mesh::new(endpoints, context)?;
    Ok(client::Client::new(Arc::new(transport), Arc::new(SystemRandom), patience))
}

/// Why nobody was reached. A wrong cluster or a refused certificate is final; what did not answer may answer later.
fn refusal(failures: &[ClientError]) -> Refusal {
    let said: Vec<_> = failures.iter().map(|error| chain(error)).collect();
    let (reason, hint) = if failures.iter().any(|error| matches!(error, ClientError::Refused { .. })) {
        (Reason::Unauthorized, "the certificate is no longer good: get a new context from an administrator")
    } else if failures.iter().any(|error| matches!(error, ClientError::OtherCluster { .. })) {
        (Reason::Unauthorized, "choose the cluster's own context: `quorate context list` shows them")
    } else {
        (Reason::Unavailable, "are the nodes up, and UDP let through? --endpoint HOST:PORT names another node")
    };
    Refusal::new(reason, "the cluster was not reached", said.join("; ")).hint(hint)
}

/// An error and all it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn lost(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Reason::Timeout, "the answer did not arrive", chain(error))
        .hint("whether it was done is not known; asking again is safe")
}

#[async_trait]
impl Transport for Mesh {
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
        let client = self.connected().await?;
        let mut stream = match client.open().await {
            Ok(stream) => stream,
            Err(error) => {
                *self.connection.lock().await = None;
                return Err(refusal(&[error]));
            }
        };
        if let Err(error) = stream.write_frame(request, cap::API).await {
            *self.connection.lock().await = None;
            return Err(lost(&error));
        }
        stream.finish().map_err(|error| lost(&error))?;
        // The connection lives as long as its answers are read.
        let answers = stream::unfold(Some((stream, client)), |state| async {
            let (mut stream, client) = state?;
            match stream.read_frame::<Answer>(cap::API).await {
                Ok(Some(answer)) => Some((Ok(answer), Some((stream, client)))),
                Ok(None) => None,
                Err(error) => Some((Err(lost(&error)), None)),
            }
        });
        Ok(answers.boxed())
    }
}
