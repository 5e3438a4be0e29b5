//! Proposals on their way to the leader: what gathers while others are under way goes in one message.
//!
//! A message for each would cost both nodes a stream; to wait on purpose would cost the first one time. So a proposal leaves at once
//! while few messages are under way, and with all that have gathered as soon as one of those is answered.
//!
//! Invariant: whoever queued a proposal is told what became of it; of those in a message without an answer nobody knows.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use quorate_proto::{ids::NodeId, txn::MAX_TXN, wire::cap};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::ask;
use crate::{
    network::{Network, NetworkError},
    rpc::{Answer, Request},
    status::Status,
};

/// Proposals that may wait to leave; beyond that, whoever queues waits too.
pub(super) const QUEUE: usize = 1024;

/// Messages that may be under way.
const UNDER_WAY: usize = 4;

/// A message has at most so many proposals, and no more of them once it has so many bytes: one more fits into the cap of a frame.
const MOST: usize = 512;
const BYTES: usize = 1 << 20;

/// A message has at most so many proposals that may be answered with a page: the answers to all of it fit into one frame.
const PAGES: usize = 2;

// A page is at most one row of the largest size, if it is more than a page.
const _: () = assert!(PAGES * (MAX_TXN + (64 << 10)) <= cap::APPEND);

/// What became of a proposal: the leader's answer to it, or why there is none.
pub(super) type Told = Result<Answer, NetworkError>;

/// A proposal that waits to leave.
pub(super) struct Proposal {
    pub(super) leader: NodeId,
    pub(super) command: Bytes,
    /// Whether it reads: its answer may then be as large as a page.
    pub(super) reads: bool,
    pub(super) told: oneshot::Sender<Told>,
}

/// Sends what is queued.
pub(super) struct Forwarder {
    pub(super) queue: mpsc::Receiver<Proposal>,
    pub(super) network: Arc<dyn Network>,
    pub(super) status: watch::Receiver<Status>,
    /// A message is given up after this time.
    pub(super) patience: Duration,
}

impl Forwarder {
    /// Runs until the store stops.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = under_way.next() => {}
                count = self.queue.recv_many(&mut gathered, MOST), if under_way.len() < UNDER_WAY => {
                    if count == 0 {
                        return;
                    }
                    for message in messages(std::mem::take(&mut gathered)) {
                        under_way.push(self.send(message));
                    }
                }
            }
        }
    }

    fn send(&self, message: Vec<Proposal>) -> impl Future<Output = ()> + use<> {
        let (network, status) = (Arc::clone(&self.network), self.status.clone());
        let until = Instant::now() + self.patience;
        async move {
            let Some(leader) = message.first().map(|proposal| proposal.leader) else { return };
            let (commands, waiting): (Vec<_>, Vec<_>) =
                message.into_iter().map(|proposal| (proposal.command, proposal.told)).unzip();
            let answers = match ask(&*network, status, leader, &Request::ProposeAll(commands), until).await {
                Ok(Answer::All(answers)) if answers.len() == waiting.len() => {
                    answers.into_iter().map(|answered| Ok(Answer::from(answered))).collect()
                }
                Ok(Answer::Refused(refused)) => vec![Ok(Answer::Refused(refused)); waiting.len()],
                Ok(_) => vec![Err(NetworkError::Failed("an answer to something else".to_owned())); waiting.len()],
                Err(error) => vec![Err(error); waiting.len()],
            };
            for (told, answer) in waiting.into_iter().zip(answers) {
                // Whoever proposed may have given up.
                drop(told.send(answer));
            }
        }
    }
}

/// What has gathered, cut into messages: each to one leader, and within the limits of bytes and of pages.
fn messages(gathered: Vec<Proposal>) -> Vec<Vec<Proposal>> {
    let mut messages: Vec<Vec<Proposal>> = Vec::new();
    let (mut bytes, mut pages) = (0, 0);
    for proposal in gathered {
        let (size, page) = (proposal.command.len(), usize::from(proposal.reads));
        let fits = bytes < BYTES && pages + page <= PAGES;
        match messages.last_mut() {
            Some(message) if fits && message.first().is_some_and(|first| first.leader == proposal.leader) => {
                (bytes, pages) = (bytes + size, pages + page);
                message.push(proposal);
            }
            _ => {
                (bytes, pages) = (size, page);
                messages.push(vec![proposal]);
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(leader: u128, size: usize) -> Proposal {
        Proposal { leader: NodeId(leader), command: vec![0; size].into(), reads: false, told: oneshot::channel().0 }
    }

    #[test]
    fn the_answers_to_a_message_fit_into_a_frame() {
        let reads = [true, false, true, false, true, true, true];
        let gathered = reads.map(|reads| Proposal { reads, ..proposal(1, 10) });
        let sizes: Vec<usize> = messages(gathered.into()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 2, 1]);
    }

    #[test]
    fn a_message_goes_to_one_leader_and_ends_when_it_is_large_enough() {
        let half = BYTES / 2;
        let gathered = [(1, 10), (1, 10), (2, half), (2, half), (2, 10)].map(|(to, size)| proposal(to, size));
        let sizes: Vec<Vec<(u128, usize)>> = messages(gathered.into())
            .iter()
            .map(|message| message.iter().map(|proposal| (proposal.leader.0, proposal.command.len())).collect())
            .collect();
        assert_eq!(sizes, [vec![(1, 10), (1, 10)], vec![(2, half), (2, half)], vec![(2, 10)]]);
    }
}
