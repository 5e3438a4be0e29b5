//! Reaches a node of the cluster: whichever endpoint can be connected to first, and another one if that falls silent.
//!
//! A node that lost its power does not say so. Whoever waited for its answer alone would wait as long as for a slow one, so after
//! [`SILENCE`] another node is asked the same, and the first to answer wins. What changes something carries a request id by which the
//! cluster does it once.
//!
//! Invariant: one call asks no node twice, and every node the very same request.

pub(crate) mod local;
mod mesh;

use std::{
    sync::{Arc, Mutex as ValueMutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, FuturesUnordered},
};
use quorate_node::world::SystemRandom;
use quorate_proto::{
    refusal::{Reason, Refusal, chain},
    request::{Answer, Request},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    client::{Answers, Client, Transport, may_pass},
    config::Context,
};

/// How long to wait for an endpoint before the next one is dialled too.
const STAGGER: Duration = Duration::from_millis(150);

/// How long a node may say nothing before another one is asked too.
const SILENCE: Duration = Duration::from_millis(1500);

/// How long nobody may be reachable: enough for the handshake that a busy node takes longest for, and a second try.
const REACH: Duration = Duration::from_secs(4);

/// How long to wait before all endpoints are dialled again.
const REDIAL: Duration = Duration::from_millis(250);

/// What did not happen if no node was asked.
const WHAT: &str = "the cluster was not reached";

/// Where a node is.
#[async_trait]
pub(crate) trait Endpoint: Send + Sync {
    /// Its name for people.
    fn name(&self) -> &str;

    /// Connects to the node.
    ///
    /// # Errors
    /// `Unavailable` if it may be reached later; any other reason is final.
    async fn connect(&self) -> Result<Arc<dyn Connection>, Refusal>;
}

/// A way to a node.
#[async_trait]
pub(crate) trait Connection: Send + Sync {
    /// Sends a request.
    ///
    /// # Errors
    /// `Timeout` if the connection was lost, also in the stream; any other reason is final.
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal>;

    /// Whether another request can be sent on it.
    fn is_open(&self) -> bool;
}

/// A client that asks the nodes at these endpoints. Those on the port need a context: it says who asks.
///
/// # Errors
/// If an endpoint is none, or the context cannot be used.
pub(crate) fn client(context: Option<&Context>, endpoints: &[String], patience: Duration) -> Result<Client, Refusal> {
    let mut nodes: Vec<Arc<dyn Endpoint>> = Vec::new();
    let mut identity = None;
    for endpoint in endpoints {
        if endpoint.starts_with(local::SCHEME) {
            nodes.push(Arc::new(local::Socket::parse(endpoint)?));
            continue;
        }
        let identity = match &identity {
            Some(identity) => identity,
            None => &*identity.insert(mesh::identity(context, endpoint)?),
        };
        nodes.push(Arc::new(mesh::Port::new(endpoint, Arc::clone(identity))));
    }
    let more: More = match identity {
        Some(identity) => Box::new(move |endpoint| Some(Arc::new(mesh::Port::new(endpoint, Arc::clone(&identity))))),
        None => Box::new(|_| None), // a socket says who asks, a port does not
    };
    // A little less than the patience, so that why nobody was reached is told rather than that the time is over.
    let reach = REACH.min(patience * 9 / 10);
    Ok(Client::new(Arc::new(AnyNode::new(nodes, more, reach)), Arc::new(SystemRandom), patience))
}

/// Makes an endpoint of one that was learnt, if it can be asked.
type More = Box<dyn Fn(&str) -> Option<Arc<dyn Endpoint>> + Send + Sync>;

/// The nodes of a cluster, each as good as the other. See the module.
pub(crate) struct AnyNode(Arc<Nodes>);

struct Nodes {
    /// Only ever added to: an endpoint keeps its place.
    endpoints: ValueMutex<Vec<Arc<dyn Endpoint>>>,
    more: More,
    reach: Duration,
    choice: ValueMutex<Choice>,
    /// Held while the first node is looked for, so that requests asked at once share its connection.
    connecting: Mutex<()>,
}

/// Whom to ask next.
#[derive(Default)]
struct Choice {
    /// Who answered last.
    node: Option<Node>,
    /// Who is dialled first if nobody did.
    first: usize,
}

/// A node that is connected to.
#[derive(Clone)]
struct Node {
    index: usize,
    connection: Arc<dyn Connection>,
}

impl AnyNode {
    pub(crate) fn new(endpoints: Vec<Arc<dyn Endpoint>>, more: More, reach: Duration) -> Self {
        let endpoints = ValueMutex::new(endpoints);
        Self(Arc::new(Nodes { endpoints, more, reach, choice: ValueMutex::default(), connecting: Mutex::default() }))
    }
}

#[async_trait]
impl Transport for AnyNode {
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
        let first = {
            let _turn = self.0.connecting.lock().await;
            self.0.connect(&[]).await?
        };
        // A watch may have nothing to say for long: the wait for its first answer is part of the answers.
        let answers = Arc::clone(&self.0).race(first, request.clone());
        Ok(stream::once(answers).try_flatten().boxed())
    }

    fn learn(&self, endpoints: &[String]) -> Option<String> {
        let mut known = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        for endpoint in endpoints {
            if known.iter().all(|known| known.name() != endpoint) {
                known.extend((self.0.more)(endpoint));
            }
        }
        let index = self.0.choice().node.as_ref()?.index;
        known.get(index).map(|endpoint| endpoint.name().to_owned())
    }
}

impl Nodes {
    /// The answers of whoever says something first: `first`, or those asked after it was silent.
    async fn race(self: Arc<Self>, first: Node, request: Request) -> Result<Answers, Refusal> {
        let mut asked = vec![first.index];
        let mut waiting = FuturesUnordered::from_iter([begun(first, &request)]);
        let another = async |asked: Vec<usize>| {
            sleep(SILENCE).await;
            self.connect(&asked).await
        };
        let next = another(asked.clone());
        tokio::pin!(next);
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                Some((node, answers)) = waiting.next() => match answers {
                    Ok(answers) => {
                        self.prefer(node);
                        return Ok(answers);
                    }
                    Err(refusal) => {
                        self.avoid(&node);
                        if waiting.is_empty() {
                            return Err(refusal);
                        }
                    }
                },
                found = &mut next, if more => match found {
                    Ok(node) => {
                        asked.push(node.index);
                        waiting.push(begun(node, &request));
                        next.set(another(asked.clone()));
                    }
                    Err(_) => more = false, // nobody else is left: who was asked may still answer
                },
            }
        }
    }

    /// A node other than those asked: who answered last, else the first that can be connected to.
    async fn connect(&self, asked: &[usize]) -> Result<Node, Refusal> {
        let (known, first) = {
            let choice = self.choice();
            (choice.node.clone(), choice.first)
        };
        if let Some(node) = known.filter(|node| !asked.contains(&node.index) && node.connection.is_open()) {
            return Ok(node);
        }
        let deadline = Instant::now() + self.reach;
        loop {
            let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let count = endpoints.len();
            let turns = (0..count).map(|turn| (first + turn) % count).filter(|index| !asked.contains(index));
            let order: Vec<_> = turns.filter_map(|index| Some((index, Arc::clone(endpoints.get(index)?)))).collect();
            let failures = match self.dial(&order, deadline).await {
                Ok(node) => {
                    self.prefer(node.clone());
                    return Ok(node);
                }
                Err(failures) => failures,
            };
            let is_final = failures.iter().all(|failure| failure.reason != Reason::Unavailable);
            if is_final || Instant::now() + REDIAL >= deadline {
                return Err(merged(failures));
            }
            sleep(REDIAL).await;
        }
    }

    /// Dials one endpoint after the other without waiting for the one before to fail: a host that is off would cost seconds.
    async fn dial(&self, order: &[(usize, Arc<dyn Endpoint>)], deadline: Instant) -> Result<Node, Vec<Refusal>> {
        let mut dials: FuturesUnordered<_> = (0_u32..)
            .zip(order)
            .map(|(turn, (index, endpoint))| async move {
                sleep(STAGGER * turn).await;
                match timeout_at(deadline, endpoint.connect()).await {
                    Ok(connected) => connected.map(|connection| Node { index: *index, connection }),
                    Err(_) => Err(unanswered(endpoint.name())),
                }
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(node) => return Ok(node),
                Err(failure) => failures.push(failure),
            }
        }
        Err(failures)
    }

    fn prefer(&self, node: Node) {
        self.choice().node = Some(node);
    }

    /// Whoever lost a connection or is cut off from the leader is asked again only after the others.
    fn avoid(&self, node: &Node) {
        let mut choice = self.choice();
        if choice.node.as_ref().is_some_and(|known| known.index == node.index) {
            *choice = Choice { node: None, first: node.index + 1 };
        }
    }

    fn choice(&self) -> std::sync::MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a node and waits until it says something. What another node may be able to do is no answer.
async fn begun(node: Node, request: &Request) -> (Node, Result<Answers, Refusal>) {
    let answers = async {
        let mut answers = node.connection.ask(request).await?;
        Ok(match answers.next().await {
            Some(Err(refusal)) => return Err(refusal),
            Some(Ok(Answer::Refused(refusal))) if may_pass(&refusal) => return Err(refusal),
            Some(Ok(first)) => stream::iter([Ok(first)]).chain(answers).boxed(),
            None => answers,
        })
    }
    .await;
    (node, answers)
}

/// A node did not let itself be connected to, and may later.
fn unanswered(name: &str) -> Refusal {
    Refusal::new(Reason::Unavailable, WHAT, format!("{name}: no answer")).hint(mesh::UNREACHABLE)
}

/// One refusal for all: what is final says what to do next.
fn merged(mut failures: Vec<Refusal>) -> Refusal {
    failures.sort_by_key(|failure| failure.reason == Reason::Unavailable);
    let because = failures.iter().map(|failure| failure.because.as_str()).collect::<Vec<_>>().join("; ");
    match failures.into_iter().next() {
        Some(gravest) => Refusal { because, ..gravest },
        None => Refusal::new(Reason::Unavailable, WHAT, "there is no other node to ask"),
    }
}

/// The connection was lost before all was answered.
fn lost(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Reason::Timeout, "the answer did not arrive", chain(error))
        .hint("whether it was done is not known; asking again is safe")
}

#[cfg(test)]
mod tests;
