//! Which of two connections between the same two nodes is kept. Pure.
//!
//! Both sides know the same of every connection: the starts of the two processes, its dial number and who dialled it. A dialling side
//! numbers higher than anything it has seen between the two, so a connection that was dialled because the old one seemed dead replaces
//! it, whichever side dialled; only two dials that crossed have the same number, and of these the smaller node id's is kept.
//!
//! Invariant: the order is total and the same on both sides, so both keep the same connection.

use std::cmp::Reverse;

use quorate_proto::ids::NodeId;

/// A connection's place in the order: the greater one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// The peer's start: a restarted peer's connections replace its ghosts. Our own start is the same for all we compare.
    pub(crate) incarnation: u64,
    /// The dial's number among all between the two nodes.
    pub(crate) dial: u64,
    /// Who dialled.
    pub(crate) dialler: Reverse<NodeId>,
}

impl Rank {
    pub(crate) const fn new(incarnation: u64, dial: u64, dialler: NodeId) -> Self {
        Self { incarnation, dial, dialler: Reverse(dialler) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId(1);
    const LARGE: NodeId = NodeId(2);

    #[test]
    fn of_two_dials_that_crossed_the_smaller_nodes_is_kept() {
        assert!(Rank::new(7, 1, SMALL) > Rank::new(7, 1, LARGE));
    }

    #[test]
    fn a_later_dial_replaces_an_earlier_one_whoever_dialled() {
        assert!(Rank::new(7, 2, LARGE) > Rank::new(7, 1, SMALL));
        assert!(Rank::new(7, 2, SMALL) > Rank::new(7, 1, SMALL));
    }

    #[test]
    fn a_restarted_peer_replaces_its_ghost_though_it_counts_dials_anew() {
        assert!(Rank::new(8, 1, LARGE) > Rank::new(7, 100, SMALL));
    }
}
