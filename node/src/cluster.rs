//! What only the node itself can do for the API: tell the members, make tokens, hear nodes, fetch logs from where they are.
//!
//! Invariant: a request is passed on at most once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use quorate_agent::Agent;
use quorate_api::{Cluster, Desired as _};
use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    kinds::{JOINTOKENS, NODES},
    overview::Standing,
    refusal::{Reason, Refusal, chain},
    request::{Answer, ClusterStatus, Logs, MAX_ENDPOINTS, Member, Read, Request, TokenInfo},
    txn::{Document, Outcome},
    wire::cap,
    world::{Clock, Random},
};
use quorate_raft::Store;
use tokio::sync::{OnceCell, watch};

use crate::{
    desired::Agreed,
    heard::Heard,
    links::{self, Lane, Links, Opening},
    loops::Snapshots,
    overview, registration,
    secrets::Vault,
    tokens,
    voters::Planner,
};

/// How long the node that runs a pod may take to begin its answer.
const REMOTE: Duration = Duration::from_secs(10);

/// What the node can do for its API.
pub(crate) struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub own: NodeId,
    /// This node's name.
    pub name: String,
    /// Where this node can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// Whether pods are simulated here.
    pub simulated: bool,
    /// The agreed state.
    pub agreed: Agreed,
    /// The Raft group.
    pub store: Store,
    /// This node's view of the agreed state.
    pub snapshots: Snapshots,
    /// Who lives.
    pub heard: Arc<Heard>,
    /// The way to other nodes.
    pub links: Arc<dyn Links>,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// Plans who votes.
    pub planner: Planner,
    /// What this node is to the cluster.
    pub standing: watch::Receiver<Standing>,
    /// This node's agent, once it is there: it needs the API, which needs this.
    pub agent: Arc<OnceCell<Agent>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and secrets.
    pub random: Arc<dyn Random>,
}

impl Membership {
    async fn remote_logs(
        &self,
        node: NodeId,
        name: &str,
        logs: Logs,
    ) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        let unreachable = |because: String| {
            Refusal::new(Reason::Unavailable, format!("the logs of pod {} were not read", logs.pod), because)
                .hint(format!("pod {} runs on node {name}: see `quorate get nodes`", logs.pod))
        };
        let request = Request::Logs(Logs { forwarded: true, ..logs.clone() });
        let ask = async {
            let (mut writer, reader) = links::open(&*self.links, node, Lane::Peer, Opening::Ask).await?;
            links::send(&mut writer, &request, cap::API).await?;
            Ok::<_, links::LinkError>((writer, reader))
        };
        let asked = tokio::time::timeout(REMOTE, ask).await;
        let (writer, reader) = asked
            .map_err(|_| unreachable(format!("node {name} did not answer within {} s", REMOTE.as_secs())))?
            .map_err(|error| unreachable(chain(&error)))?;
        let answers = stream::try_unfold((writer, reader), |(writer, mut reader)| async move {
            match links::receive::<Answer>(&mut reader, cap::API).await {
                Ok(answer) => Ok(Some((answer, (writer, reader)))),
                Err(links::LinkError::Ended) => Ok(None),
                Err(error) => {
                    let because = chain(&error);
                    Err(Refusal::new(Reason::Unavailable, "the log broke off", because))
                }
            }
        });
        let data = answers.try_filter_map(|answer| async move {
            match answer {
                Answer::Data(bytes) => Ok(Some(bytes)),
                Answer::Refused(refusal) => Err(refusal),
                _ => Ok(None),
            }
        });
        Ok(data.boxed())
    }
}

#[async_trait]
impl Cluster for Membership {
    async fn status(&self) -> Result<ClusterStatus, Refusal> {
        let status = self.store.status().borrow().clone();
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let member = |member: &quorate_raft::Member| Member {
            id: member.id,
            name: registration::name_of(&snapshot, member.id),
            voter: member.voter,
        };
        Ok(ClusterStatus {
            cluster: self.cluster,
            node: self.own,
            node_name: self.name.clone(),
            leader: status.leader,
            revision: snapshot.revision(),
            simulated: self.simulated,
            members: status.members.iter().map(member).collect(),
        })
    }

    fn endpoints(&self) -> Vec<String> {
        let snapshot = self.snapshots.borrow();
        let nodes: Vec<_> = snapshot.list(&NODES).map(|stored| registration::addresses(&stored.object)).collect();
        let nodes = &nodes[..nodes.len().min(MAX_ENDPOINTS)];
        // One address of each first: whoever asks in turn soon meets another node.
        let most = nodes.iter().map(Vec::len).max().unwrap_or_default();
        let turns = (0..most).flat_map(|turn| nodes.iter().filter_map(move |addresses| addresses.get(turn)));
        turns.map(ToString::to_string).collect()
    }

    async fn overview(&self, forwarded: bool) -> Result<Document, Refusal> {
        let status = self.store.status().borrow().clone();
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let own = (self.name.as_str(), *self.standing.borrow());
        let mut overview = overview::of(&status, &snapshot, self.cluster, own, self.simulated);
        overview.elections = Some(overview::elections(self.store.timing()));
        if let Some((view, plan)) = self.planner.look() {
            overview::add_plan(&mut overview, &view, &plan, &snapshot);
        } else {
            let leader = status.leader.filter(|leader| *leader != self.own && !forwarded);
            let asked = match leader {
                Some(leader) => overview::ask(&mut overview, leader, &*self.links).await,
                None => Err("it hears no majority of the voters".to_owned()),
            };
            overview.problem = asked.err().map(|because| match &overview.leader {
                Some(leader) => format!("{leader} led when this node last heard of it, and does not answer: {because}"),
                None => "nobody leads: writes stand still until most voters reach each other".to_owned(),
            });
        }
        let because =
            |error: serde_json::Error| Refusal::new(Reason::Internal, "no overview was made", error.to_string());
        Ok(Document(serde_json::to_vec(&overview).map_err(because)?.into()))
    }

    async fn logs(&self, node: String, logs: Logs) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        let missing = |because: String| {
            Refusal::new(Reason::NotFound, format!("the logs of pod {} were not read", logs.pod), because)
        };
        if node == self.name {
            let agent =
                self.agent.get().ok_or_else(|| missing("this node is still starting".to_owned()).hint("try again"))?;
            return Ok(agent.logs(&logs).await?.boxed());
        }
        if logs.forwarded {
            return Err(missing(format!("the pod runs on node {node}, not on {}", self.name)));
        }
        let stored = self.snapshots.borrow().find(&NODES, None, &node).cloned();
        let id = stored.and_then(|stored| registration::node_id(&stored.object));
        let id = id.ok_or_else(|| missing(format!("node {node}, which runs it, is no member any more")))?;
        self.remote_logs(id, &node, logs).await
    }

    async fn backup(&self, read: Read) -> Result<BoxStream<'static, Result<Bytes, Refusal>>, Refusal> {
        const WHAT: &str = "no backup was taken";
        let pieces = self.store.backup(read, self.clock.wall()).await.map_err(|error| {
            Refusal::new(Reason::Unavailable, WHAT, chain(&error)).hint(
                "without a quorum, --stale takes what the asked node has; `quorate status` shows who can be reached",
            )
        })?;
        let broken = |error: std::io::Error| {
            Refusal::new(Reason::Internal, WHAT, format!("the state cannot be read to its end: {error}"))
                .hint("ask another node with --endpoint")
        };
        Ok(pieces.map_err(broken).boxed())
    }

    async fn heartbeat(&self, node: NodeId, _incarnation: u64) -> Result<(), Refusal> {
        let refuse = |because: &str| Refusal::new(Reason::Unavailable, "the heartbeat was not heard", because);
        if !self.store.status().borrow().leading {
            return Err(refuse("this node does not lead"));
        }
        let name =
            registration::name_of(&self.snapshots.borrow(), node).ok_or_else(|| refuse("the node is no member"))?;
        self.heard.hear(&name, self.clock.now());
        Ok(())
    }

    async fn create_token(&self, request: RequestId, lifetime: Duration, uses: u32) -> Result<String, Refusal> {
        let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
        let internal =
            |error: &dyn std::error::Error| Refusal::new(Reason::Internal, "no token was made", chain(error));
        let pin = self.vault.authority(&snapshot)?.pin().map_err(|error| internal(&error))?;
        let nodes = snapshot.list(&NODES).flat_map(|stored| registration::addresses(&stored.object));
        let own = self.addresses.iter().copied();
        let others = nodes.filter(|address| !self.addresses.contains(address));
        let addresses =
            own.chain(others).map(|address| address.to_string()).take(quorate_proto::token::MAX_ADDRESSES).collect();
        let (random, wall) = (&*self.random, self.clock.wall());
        let new = tokens::make(pin, addresses, lifetime, uses, &self.vault, random, wall)?;
        match self.agreed.propose(request, new.txn).await? {
            Outcome::Applied(revision) => {
                let snapshot = self.agreed.snapshot(Read::AtLeast(revision)).await?;
                // A retry of a request that went through is answered as its first try was; its secret was another.
                if snapshot.find(&JOINTOKENS, None, &new.token.id.to_string()).is_some() {
                    return Ok(new.token.reveal());
                }
                let because = "an earlier try of the same request made one, and its answer was lost";
                Err(Refusal::new(Reason::Conflict, "no token was made", because)
                    .hint("make another; the lost one ends by itself, see `quorate token list`"))
            }
            Outcome::Stale(_) => {
                Err(Refusal::new(Reason::Conflict, "no token was made", "its id is taken").hint("try again"))
            }
        }
    }

    async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Refusal> {
        let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
        Ok(tokens::list(&snapshot, self.clock.wall()))
    }

    async fn revoke_token(&self, request: RequestId, id: String) -> Result<(), Refusal> {
        let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
        match self.agreed.propose(request, tokens::revoke(&snapshot, &id)?).await? {
            Outcome::Applied(_) => Ok(()),
            Outcome::Stale(_) => {
                Err(Refusal::new(Reason::Conflict, format!("token {id} was not revoked"), "it was used meanwhile")
                    .hint("try again"))
            }
        }
    }
}
