//! Clients: each asks for one thing after the other, of any node, and writes down what it is told.
//!
//! Invariant: every document is written by one request only; a request that is tried again keeps its id.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_proto::{
    ids::{NodeId, RequestId},
    key::Key,
    refusal::{Reason, Refusal},
    txn::{Document, Outcome, Revision, Txn},
};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{sleep, timeout};

use super::{
    nodes::{Link, Nodes},
    pulse::Pulse,
    record::Record,
};
use crate::{
    store_sim::history::{Freshness, Operation, Page, What, Written},
    stores::Failure,
};

/// The keys that clients contend for.
const KEYS: usize = 12;

/// How long a client waits for an answer to a write. Then it does not know what became of it.
const WRITE: Duration = Duration::from_secs(2);

/// How long it waits for an answer to a read: a node that was stopped is to answer when it goes on, and not with what it knew before.
const READ: Duration = Duration::from_secs(12);

/// Between two operations of a client, in milliseconds: enough for the machine to do other things, too.
const THINK: std::ops::Range<u64> = 1..40;

/// What clients share.
pub(super) struct Shared {
    pub(super) nodes: Arc<Nodes>,
    pub(super) record: Arc<Record>,
    pub(super) pulse: Arc<Pulse>,
    /// Whether a request that is tried again is done once at most.
    pub(super) deduplicated: bool,
    pub(super) stop: AtomicBool,
}

/// One client.
pub(super) struct Client {
    index: usize,
    random: StdRng,
    count: u64,
    /// A request whose outcome it does not know.
    open: Option<(RequestId, Txn)>,
    /// When each key was last written, as it was told.
    seen: BTreeMap<Key, Revision>,
}

impl Client {
    pub(super) const fn new(index: usize, random: StdRng) -> Self {
        Self { index, random, count: 0, open: None, seen: BTreeMap::new() }
    }

    /// Asks until it is told to stop.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Result<(), Failure> {
        while !shared.stop.load(Ordering::Relaxed) {
            // Most ask the same node all the time, so that one that hangs does not hold up all of them.
            let node =
                if self.random.random_range(0..8) == 0 { self.random.random_range(0..3) } else { self.index % 3 };
            if let Some(link) = shared.nodes.link(node).await {
                let what = self.next(&shared)?;
                let what = ask(&shared, self.index, node, &link, what).await;
                self.learn(what);
            }
            sleep(Duration::from_millis(self.random.random_range(THINK))).await;
        }
        Ok(())
    }

    fn learn(&mut self, what: What) {
        match what {
            What::Write { answer: Written::Decided(Outcome::Applied(revision)), txn, .. } => {
                self.seen.extend(txn.writes.iter().map(|write| (write.key().clone(), revision)));
            }
            What::Write { answer: Written::Decided(Outcome::Stale(key)), .. } => drop(self.seen.remove(&key)),
            What::Write { answer: Written::Unknown, request, txn } => self.open = Some((request, txn)),
            What::Read { page: Some(page), .. } => {
                self.seen.extend(page.rows.iter().map(|(key, now)| (key.clone(), now.modified)));
            }
            _ => {}
        }
    }

    fn next(&mut self, shared: &Shared) -> Result<What, Failure> {
        let again = shared.deduplicated && self.random.random_range(0..100) < 80;
        if let Some((request, txn)) = self.open.take()
            && again
        {
            return Ok(What::Write { request, txn, answer: Written::Unknown });
        }
        self.count += 1;
        let record = &shared.record;
        let contended = record.key(&format!("k{:02}", self.random.random_range(0..KEYS)))?;
        let prefix = || contended.as_str().to_owned();
        let read = |freshness, prefix| Ok(What::Read { freshness, prefix, page: None });
        let txn = match self.random.random_range(0..100) {
            0..20 => return read(Freshness::Linearizable, prefix()),
            20..23 => return read(Freshness::Linearizable, format!("{}k", record.prefix)),
            23..30 => return read(Freshness::Stale, prefix()),
            30..55 => Txn::new().put(contended, self.document(0)),
            55..70 => {
                let seen = self.seen.get(&contended).copied();
                Txn::new().expect(contended.clone(), seen).put(contended, self.document(0))
            }
            70..80 => {
                let other = record.key(&format!("m{:02}", self.random.random_range(0..KEYS)))?;
                Txn::new().put(contended, self.document(0)).put(other, self.document(1))
            }
            // Never written again: it must be there for ever.
            80..92 => Txn::new().put(record.key(&format!("own-{}-{}", self.index, self.count))?, self.document(0)),
            _ => Txn::new().delete(contended),
        };
        let request = RequestId(u128::from(self.random.random::<u64>()) << 64 | u128::from(self.count));
        Ok(What::Write { request, txn, answer: Written::Unknown })
    }

    fn document(&self, place: usize) -> Document {
        Document(Bytes::from(format!("\"{}-{}-{place}\"", self.index, self.count)))
    }
}

/// Asks a node, and has it written down.
pub(super) async fn ask(shared: &Shared, client: usize, node: usize, link: &Link, mut what: What) -> What {
    let called = shared.record.now();
    let operation = Operation {
        client,
        node: NodeId(node as u128),
        incarnation: link.life,
        called,
        returned: None,
        what: what.clone(),
    };
    let number = shared.record.called(operation);
    let answered = link.gone.run_until_cancelled(answer(link, &mut what)).await.unwrap_or(Answered::Not);
    match answered {
        Answered::Yes => {
            shared.record.returned(number, what.clone());
            if matches!(what, What::Write { answer: Written::Decided(Outcome::Applied(_)), .. }) {
                shared.pulse.acknowledged(called, shared.record.now());
            }
        }
        Answered::Not => {}
        Answered::Broken => shared.nodes.forget(node, link).await,
    }
    what
}

/// What came of a question.
enum Answered {
    Yes,
    Not,
    /// Not, and nothing more will come over this connection.
    Broken,
}

async fn answer(link: &Link, what: &mut What) -> Answered {
    match what {
        What::Write { request, txn, answer } => {
            let Ok(told) = timeout(WRITE, link.session.transact(*request, txn.clone())).await else {
                return Answered::Not;
            };
            match told {
                Ok(outcome) => *answer = Written::Decided(outcome),
                Err(failure) => match failure.downcast_ref::<Refusal>().map(|refusal| refusal.reason) {
                    Some(Reason::Timeout | Reason::Internal) => {}
                    Some(_) => *answer = Written::NotDone,
                    None => return Answered::Broken,
                },
            }
            Answered::Yes
        }
        What::Read { freshness, prefix, page } => {
            let stale = *freshness == Freshness::Stale;
            match timeout(READ, link.session.rows(prefix, stale, None)).await {
                Ok(Ok(rows)) => {
                    *page = Some(Page { revision: rows.revision, rows: rows.rows });
                    Answered::Yes
                }
                Ok(Err(failure)) if failure.is::<Refusal>() => Answered::Yes,
                Ok(Err(_)) => Answered::Broken,
                Err(_) => Answered::Not,
            }
        }
    }
}
