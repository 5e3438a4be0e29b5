//! Why a step is taken, or waits: facts for a program, a sentence for a person.
//!
//! Invariant: a sentence names every node it is about, and says what would change it where somebody can.

use std::{collections::BTreeSet, time::Duration};

use quorate_proto::ids::NodeId;

use super::Step;

/// Why something is done, or waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A change of the voters was begun and not ended.
    Unfinished,
    /// The node is new.
    Joined(NodeId),
    /// The node's object is gone: somebody deleted it.
    Deleted(NodeId),
    /// The node is not to vote: it leaves, or is labelled so.
    Excused(NodeId),
    /// The node comes to vote, so that more may be lost.
    Grows(NodeId),
    /// The node would make the number of voters even.
    Surplus(NodeId),
    /// The node was silent for too long.
    Replaced {
        /// Who was silent.
        node: NodeId,
        /// Who votes instead.
        by: NodeId,
    },
    /// The leader's disk is slow, and another voter's is not.
    SlowDisk {
        /// The leader.
        node: NodeId,
        /// How long entries take there.
        own: Duration,
        /// Who is to lead instead.
        heir: NodeId,
        /// How long entries take with that one, the way there and back included.
        its: Duration,
    },
    /// Too many voters are in one zone.
    Spread {
        /// One of those.
        node: NodeId,
        /// Who votes instead.
        by: NodeId,
        /// Where that one is.
        zone: String,
    },
    /// Waits: too few of those who vote, or are to vote, are healthy.
    NoMajority {
        /// How many are.
        healthy: usize,
        /// How many must be.
        needed: usize,
    },
    /// Waits: the leader is not to vote, and nobody can take over.
    NoSuccessor(NodeId),
    /// Waits: the node has not been healthy for long enough to vote.
    Unstable {
        /// Which.
        node: NodeId,
        /// For how much longer it must be.
        left: Duration,
    },
    /// Waits: the voter is not heard, or far behind, and will be replaced if that lasts.
    Silent {
        /// Which.
        node: NodeId,
        /// How much longer it has.
        left: Duration,
    },
    /// Waits: the voter was silent for too long, and nobody can vote instead.
    NoReplacement(NodeId),
    /// Waits: the node could vote, but not without making the number of voters even.
    Spare(NodeId),
    /// Waits: the last change of the voters is not long enough ago.
    Settling {
        /// How long is left.
        left: Duration,
    },
}

impl Reason {
    /// The reason as half a sentence; `name` names nodes.
    pub fn tell(&self, name: impl Fn(NodeId) -> String) -> String {
        match self {
            Self::Unfinished => "it was begun, and broke off".to_owned(),
            Self::Joined(node) => format!("{} is new", name(*node)),
            Self::Deleted(node) => format!("{} was deleted", name(*node)),
            Self::Excused(node) => format!("{} leaves, or its label says that it is not to vote", name(*node)),
            Self::Grows(node) => format!("{} can vote, so that more nodes may be lost", name(*node)),
            Self::Surplus(node) => format!("with {} the number of voters would be even", name(*node)),
            Self::Replaced { node, by } => {
                format!("{} was silent for too long, and {} can vote instead", name(*node), name(*by))
            }
            Self::SlowDisk { node, own, heir, its } => format!(
                "entries take {} ms until they are on the disk of {}, and {} ms with {}",
                own.as_millis(),
                name(*node),
                its.as_millis(),
                name(*heir)
            ),
            Self::Spread { node, by, zone } => {
                format!("{} is in a zone with more voters than zone {zone}, where {} can vote", name(*node), name(*by))
            }
            Self::NoMajority { healthy, needed } => {
                format!("only {healthy} of the {needed} voters that are needed for a majority are healthy")
            }
            Self::NoSuccessor(node) => {
                format!("{} is not to vote any more, but no other node has been healthy for long enough", name(*node))
            }
            Self::Unstable { node, left } => {
                format!("{} may vote when it has been healthy for {} s more", name(*node), seconds(*left))
            }
            Self::Silent { node, left } => {
                format!(
                    "{} is not healthy; its vote goes to another if that lasts {} s more",
                    name(*node),
                    seconds(*left)
                )
            }
            Self::NoReplacement(node) => {
                format!(
                    "{} was silent for too long, but no other node can vote in its place: delete it, or add a node",
                    name(*node)
                )
            }
            Self::Spare(node) => format!("{} could vote, but the number of voters stays odd: add a node", name(*node)),
            Self::Settling { left } => {
                format!("the voters changed lately: the next change is due in {} s", seconds(*left))
            }
        }
    }
}

impl Step {
    /// What the step is, as half a sentence; `name` names nodes.
    pub fn tell(&self, name: impl Fn(NodeId) -> String) -> String {
        let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| name(*node)).collect::<Vec<_>>().join(", ");
        match self {
            Self::Finish => "the change of the voters is to be ended".to_owned(),
            Self::AddLearner(node) => format!("{} is to receive the log, without a vote", name(*node)),
            Self::SetVoters(voters) if voters.len() == 1 => format!("only {} is to vote", list(voters)),
            Self::SetVoters(voters) => format!("{} are to vote", list(voters)),
            Self::Remove(nodes) => format!("{} is to be removed", list(nodes)),
            Self::Transfer(to) => format!("{} is to lead", name(*to)),
        }
    }
}

/// Whole seconds, rounded up: what is said to be over is over.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_says_how_long_it_still_lasts_at_most() {
        let reason = Reason::Unstable { node: NodeId(4), left: Duration::from_millis(23_001) };
        let told = reason.tell(|node| format!("n{}", node.0));
        assert_eq!(told, "n4 may vote when it has been healthy for 24 s more");
    }
}
