//! How many nodes may be lost now without stopping writes.
//!
//! Invariant: what is said to be tolerated is tolerated whichever of the voters are lost.

use std::collections::BTreeSet;

use quorate_proto::ids::NodeId;

use super::View;

/// What a cluster can lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tolerance {
    /// How many more of the voters that are healthy may be lost; `None`: a majority is not healthy already.
    pub voters: Option<usize>,
    /// The voters that are not healthy.
    pub unhealthy: BTreeSet<NodeId>,
    /// All voters: of both sets while they change.
    pub all: BTreeSet<NodeId>,
    /// How many must be healthy, in the set that can lose the fewest.
    pub needed: usize,
    /// Whether other nodes are there that could be lost without any harm to writes.
    pub others: bool,
}

impl Tolerance {
    /// What the cluster of a view can lose.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let spare = |set: &BTreeSet<NodeId>| view.healthy(set).checked_sub(set.len() / 2 + 1);
        let tightest = view.voters.iter().min_by_key(|set| spare(set));
        let all: BTreeSet<NodeId> = view.voters.iter().flatten().copied().collect();
        Self {
            voters: tightest.and_then(spare),
            unhealthy: all.iter().copied().filter(|node| !view.is_healthy(*node)).collect(),
            needed: tightest.map_or(0, |set| set.len() / 2 + 1),
            others: view.learners.iter().any(|node| !all.contains(node)),
            all,
        }
    }

    /// The same in a plain sentence; `name` names nodes.
    pub fn tell(&self, name: impl Fn(NodeId) -> String) -> String {
        let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| name(*node)).collect::<Vec<_>>().join(", ");
        let down = match self.unhealthy.len() {
            0 => String::new(),
            1 => format!(" ({} is not healthy)", list(&self.unhealthy)),
            _ => format!(" ({} are not healthy)", list(&self.unhealthy)),
        };
        let rest = if self.others { "; nodes that do not vote may be lost" } else { "" };
        match (self.voters, self.all.len()) {
            (None, _) => {
                format!("writes stand still: {} of the {} voters must be healthy{down}", self.needed, self.all.len())
            }
            (Some(_), 1) => format!(
                "no loss of {}, the only voter: writes would stand still until it is back{rest}",
                list(&self.all)
            ),
            (Some(0), voters) => {
                format!(
                    "no loss of a voter: {} of the {voters} must be healthy, and no more are{down}{rest}",
                    self.needed
                )
            }
            (Some(more), voters) => {
                let more = if more == 1 { "one".to_owned() } else { more.to_string() };
                let lost = if self.unhealthy.is_empty() { "any" } else { "any other" };
                format!("the loss of {lost} {more} of the {voters} voters{down}{rest}")
            }
        }
    }
}
