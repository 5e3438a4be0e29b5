//! What is wrong with the network between simulated hosts.
//!
//! Invariant: a fault is between two hosts and has a direction; what concerns a whole host is that, for all its links.

use std::collections::BTreeSet;

use quorate_proto::ids::NodeId;

/// The faults in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    cut: BTreeSet<NodeId>,
    frozen: BTreeSet<NodeId>,
    blocked: BTreeSet<(NodeId, NodeId)>,
    loss: u32,
}

impl Faults {
    /// Nothing reaches the host, and nothing leaves it.
    pub(crate) fn cut(&mut self, node: NodeId) {
        self.cut.insert(node);
    }

    /// The host takes nothing in and lets nothing out; whoever calls it gets no answer, not even a refusal.
    pub(crate) fn freeze(&mut self, node: NodeId) {
        self.frozen.insert(node);
    }

    /// What the first sends does not reach the second.
    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    /// So many of a hundred packets are lost, on all links.
    pub(crate) fn lose(&mut self, percent: u32) {
        self.loss = percent;
    }

    /// Ends all that concerns a host, but for loss.
    pub(crate) fn heal(&mut self, node: NodeId) {
        self.cut.remove(&node);
        self.frozen.remove(&node);
        self.blocked.retain(|(from, to)| *from != node && *to != node);
    }

    /// Whether a packet may arrive.
    pub(crate) fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let open = |node| !self.cut.contains(&node) && !self.frozen.contains(&node);
        open(from) && open(to) && !self.blocked.contains(&(from, to))
    }

    /// Whether packets may arrive both ways: what a connection needs to live.
    pub(crate) fn connects(&self, one: NodeId, other: NodeId) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    /// Whether a host is cut off.
    pub(crate) fn is_cut(&self, node: NodeId) -> bool {
        self.cut.contains(&node)
    }

    /// Whether a call to the host is left without any answer.
    pub(crate) fn is_silent(&self, node: NodeId) -> bool {
        self.frozen.contains(&node)
    }

    /// So many of a hundred packets are lost.
    pub(crate) const fn loss(&self) -> u32 {
        self.loss
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.loss > 0 || !(self.cut.is_empty() && self.frozen.is_empty() && self.blocked.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    #[test]
    fn a_one_way_fault_breaks_the_connection_and_lets_the_other_way_through() {
        let mut faults = Faults::default();
        faults.block(A, B);
        assert!(!faults.reaches(A, B) && faults.reaches(B, A));
        assert!(!faults.connects(A, B) && !faults.connects(B, A) && faults.connects(A, C));
    }

    #[test]
    fn healing_a_host_ends_every_fault_of_its_links_and_none_of_others() {
        let mut faults = Faults::default();
        faults.cut(A);
        faults.freeze(A);
        faults.block(A, B);
        faults.block(B, C);
        faults.heal(A);
        assert!(faults.connects(A, B) && faults.connects(A, C) && !faults.connects(B, C));
        assert!(faults.any());
        faults.heal(C);
        assert!(!faults.any());
    }
}
