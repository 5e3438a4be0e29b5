//! What every node says of itself, looked at all the time: Raft's promises as far as a status shows them.
//!
//! Invariant: a leader comes after all before it, by term and then by id; one state for a revision; within one life of a node, terms and
//! revisions only grow.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _},
};

use quorate_proto::{ids::NodeId, txn::Revision};
use quorate_raft::Status;

/// Elections within so many ticks count as at the same time: a status is a little late.
const SAME: u64 = 10;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Observed {
    /// When each was first seen to lead.
    leaders: BTreeMap<(u64, NodeId), u64>,
    states: BTreeMap<Revision, (u32, NodeId)>,
    last: BTreeMap<NodeId, (u64, Status)>,
    pub(super) trace: DefaultHasher,
    pub(super) wrong: Vec<String>,
    /// How often another node came to lead.
    pub(super) elections: usize,
}

impl Observed {
    /// Looks at a node in one of its lives.
    pub(super) fn look(&mut self, tick: u64, node: NodeId, incarnation: u64, status: &Status) {
        let before = self.last.get(&node).filter(|(life, _)| *life == incarnation).map(|(_, status)| status);
        if before == Some(status) {
            return;
        }
        let went_back = before.is_some_and(|before| status.term < before.term || status.revision < before.revision);
        (tick, node, status.term, status.revision, status.hash, status.leading).hash(&mut self.trace);
        let mut say = |what: String| self.wrong.push(format!("tick {tick}: {node}: {what}"));
        if went_back {
            say(format!("went back to term {}, revision {}", status.term, status.revision));
        }
        // Several may be elected in one term; openraft orders them by id.
        let leads = (status.term, node);
        if status.leader == Some(node) && !self.leaders.contains_key(&leads) {
            let later = self.leaders.iter().find(|(other, since)| **other > leads && **since + SAME < tick);
            if let Some(((term, other), _)) = later {
                say(format!("came to lead in term {} after {other} in term {term}", status.term));
            }
            self.leaders.insert(leads, tick);
            self.elections += 1;
        }
        let (hash, by) = *self.states.entry(status.revision).or_insert((status.hash, node));
        if hash != status.hash {
            say(format!("revision {} is not what {by} has", status.revision));
        }
        self.last.insert(node, (incarnation, status.clone()));
    }
}
