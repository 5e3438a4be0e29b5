//! Back from a quorum that is lost for good: what this machine's node has, and how it goes on alone, in a new epoch of its cluster.
//!
//! ```text
//! node.json: recovering = the new epoch     from here on the daemon does not start before it is done
//! store: a group of one                     one batch (quorate-raft)
//! node.json: epoch, adoption                the daemon starts, removes the members it goes on without, and lets others join
//! ```
//!
//! Invariant: the daemon does not run meanwhile. After a crash at any step the node is as it was, or the same command finishes it.

use std::{collections::BTreeMap, path::Path};

use quorate_mesh::Identity;
use quorate_proto::{
    hello::Epoch,
    ids::{ClusterId, NodeId},
    kinds::NODES,
    object::Object,
    refusal::{Reason, Refusal, chain},
};
use quorate_raft::{OpenError, recover};

pub use quorate_raft::recover::{Cut, Position, Survivor};

use crate::{
    adoption::Adoption,
    home::{Home, HomeError, Record},
    registration,
};

/// What is refused.
const NOT_RECOVERED: &str = "the cluster was not recovered";

/// What the node in a data directory has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Who it is.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The epoch it is in.
    pub epoch: Epoch,
    /// What its store has.
    pub survivor: Survivor,
    /// The members' names, of those that its state knows.
    pub names: BTreeMap<NodeId, String>,
}

/// A member's data directory that no daemon uses.
struct Stopped {
    home: Home,
    record: Record,
    identity: Identity,
}

impl Stopped {
    fn open(data: &Path) -> Result<Self, Refusal> {
        let refuse = |error: HomeError| match error {
            HomeError::Locked(_) => {
                let because = format!("the daemon runs in {}", data.display());
                Refusal::new(Reason::Conflict, NOT_RECOVERED, because)
                    .hint("stop it first, and be sure that the other voters are lost for good: see `quorate status`")
            }
            error => error.refusal(NOT_RECOVERED),
        };
        let none = || {
            Refusal::new(Reason::NotFound, NOT_RECOVERED, format!("{} holds no node", data.display()))
                .hint("run it on a machine whose node is left, or name its --data-dir")
        };
        // Opening would make the directory.
        if !data.join("node.json").exists() {
            return Err(none());
        }
        let home = Home::open(data).map_err(refuse)?;
        let record = home.record().map_err(refuse)?.ok_or_else(none)?;
        let identity = Identity::load(home.path())
            .map_err(|error| Refusal::new(Reason::Invalid, NOT_RECOVERED, chain(&error)).hint("check --data-dir"))?;
        Ok(Self { home, record, identity })
    }

    fn look<T>(&self, look: impl FnOnce(&Path, ClusterId, NodeId) -> Result<T, OpenError>) -> Result<T, Refusal> {
        look(&self.home.store(), self.identity.cluster, self.identity.node).map_err(|error| {
            Refusal::new(Reason::Invalid, NOT_RECOVERED, chain(&error))
                .hint("try another survivor; if none is whole, restore a backup: `quorate backup restore FILE`")
        })
    }

    fn survey(&self) -> Result<Survey, Refusal> {
        let prefix = NODES.prefix(None);
        let (survivor, nodes) =
            self.look(|store, cluster, node| recover::survey_with(store, cluster, node, &prefix))?;
        let objects = nodes.iter().filter_map(|(_, versioned)| Object::from_document(&versioned.document).ok());
        let names = objects.filter_map(|node| Some((registration::node_id(&node)?, node.name().to_owned()))).collect();
        Ok(Survey {
            cluster: self.identity.cluster,
            node: self.identity.node,
            name: self.record.name.clone(),
            epoch: self.record.epoch,
            survivor,
            names,
        })
    }

    fn remember(&self) -> Result<(), Refusal> {
        self.home.remember(&self.record).map_err(|error| error.refusal(NOT_RECOVERED))
    }
}

/// Shows what the node in a data directory has. Changes nothing.
///
/// # Errors
/// If there is none, a daemon runs in it, or its store is damaged.
pub fn survey(data: &Path) -> Result<Survey, Refusal> {
    Stopped::open(data)?.survey()
}

/// Makes the node in a data directory the only member of its cluster, in a new epoch. What it has then.
///
/// # Errors
/// If there is none, a daemon runs in it, or its store is damaged or cannot be written.
pub fn recover(data: &Path, cut: Cut) -> Result<Survey, Refusal> {
    let mut stopped = Stopped::open(data)?;
    // What cannot be opened is found out before anything is begun.
    stopped.survey()?;
    let epoch = match stopped.record.recovering {
        Some(begun) => begun,
        None => stopped.record.epoch.after(stopped.identity.node),
    };
    stopped.record.recovering = Some(epoch);
    stopped.remember()?;
    stopped.look(|store, cluster, node| recover::recover(store, cluster, node, cut))?;
    stopped.record.recovering = None;
    stopped.record.epoch = epoch;
    stopped.record.adoption = Some(Adoption::Recovered);
    // Nobody but this node is a member until others join.
    stopped.record.peers.clear();
    stopped.remember()?;
    stopped.survey()
}
