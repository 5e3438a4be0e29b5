//! Clients: what they ask for, of which node, and what they write down of it.
//!
//! A client asks for one thing at a time, as a task on the host it asks. If that host is switched off, nobody tells the client anything.
//!
//! Invariant: every document is written by one request only, so that whoever reads it knows who wrote it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quorate_proto::{
    ids::RequestId,
    key::Key,
    request::Read,
    txn::{Document, Outcome, Revision, Txn},
};
use quorate_raft::{ProposeError, Store};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    history::{Freshness, History, Operation, Page, What, Written},
    host::{Host, Running},
};

/// The keys that clients contend for.
const KEYS: usize = 12;
/// A client gives up waiting after so many ticks.
const PATIENCE: u64 = 3000;

/// What all clients share: what they recorded, and the world's time.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) history: Arc<Mutex<History>>,
    pub(super) tick: Arc<AtomicU64>,
}

/// One client.
pub(super) struct Client {
    index: usize,
    asked: u64,
    count: u64,
    wake: u64,
    waits: Option<(usize, Arc<AtomicBool>)>,
    /// A request whose outcome it does not know.
    open: Option<(RequestId, Txn)>,
    /// When each key was last written, as it read it.
    seen: BTreeMap<Key, Revision>,
    newest: Revision,
}

/// Says that nobody will answer any more, however that came.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Recorder {
    pub(super) fn now(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(super) fn note<T>(&self, note: impl FnOnce(&mut History) -> T) -> T {
        note(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Client {
    pub(super) const fn new(index: usize) -> Self {
        Self { index, asked: 0, count: 0, wake: 0, waits: None, open: None, seen: BTreeMap::new(), newest: Revision(0) }
    }

    /// Whether it waits for an answer.
    pub(super) const fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Takes what came, and asks for the next thing when it is time. Returns whether a request is tried again.
    pub(super) fn step(&mut self, hosts: &[&Host], recorder: &Recorder, random: &mut StdRng) -> bool {
        let now = recorder.now();
        if let Some((operation, ended)) = &self.waits {
            if !ended.load(Ordering::Relaxed) && now - self.asked < PATIENCE {
                return false;
            }
            let done = recorder.note(|history| history.operations[*operation].clone());
            self.waits = None;
            self.learn(done.what);
            self.wake = now + random.random_range(0..40);
        }
        if now < self.wake || hosts.is_empty() {
            return false;
        }
        let host = hosts[random.random_range(0..hosts.len())];
        let Some(running) = &host.running else { return false };
        let retries = self.open.is_some() && random.random_range(0..100) < 80;
        let what = self.next(random);
        let operation = Operation {
            client: self.index,
            node: host.id,
            incarnation: host.incarnation,
            called: now,
            returned: None,
            what,
        };
        self.asked = now;
        self.waits = Some(ask(operation, running, recorder));
        retries
    }

    fn learn(&mut self, what: What) {
        match what {
            What::Write { answer: Written::Decided(Outcome::Applied(revision)), txn, .. } => {
                self.newest = self.newest.max(revision);
                for write in &txn.writes {
                    self.seen.insert(write.key().clone(), revision);
                }
            }
            What::Write { answer: Written::Decided(Outcome::Stale(key)), .. } => drop(self.seen.remove(&key)),
            What::Write { answer: Written::Unknown, request, txn } => self.open = Some((request, txn)),
            What::Read { page: Some(page), .. } => {
                self.newest = self.newest.max(page.revision);
                self.seen.extend(page.rows.iter().map(|(key, now)| (key.clone(), now.modified)));
            }
            _ => {}
        }
    }

    fn next(&mut self, random: &mut StdRng) -> What {
        if let Some((request, txn)) = self.open.take()
            && random.random_range(0..100) < 80
        {
            return What::Write { request, txn, answer: Written::Unknown };
        }
        let read = |freshness, prefix| What::Read { freshness, prefix, page: None };
        let prefix = if random.random_range(0..2) == 0 { "/".to_owned() } else { key(random).as_str().to_owned() };
        match random.random_range(0..100) {
            0..25 => read(Freshness::Linearizable, prefix),
            25..30 => read(Freshness::Stale, prefix),
            30..35 => read(Freshness::AtLeast(self.newest), prefix),
            35..55 => self.write(1, 0, random),
            55..75 => self.write(1, 1, random),
            75..90 => self.write(3, 2, random),
            _ => self.delete(random),
        }
    }

    /// Puts some keys, after it has compared some of them.
    fn write(&mut self, keys: usize, compares: usize, random: &mut StdRng) -> What {
        self.count += 1;
        let mut txn = Txn::new();
        let mut written = std::collections::BTreeSet::new();
        for place in 0..keys {
            let key = key(random);
            if !written.insert(key.clone()) {
                continue;
            }
            if place < compares {
                txn = txn.expect(key.clone(), self.seen.get(&key).copied());
            }
            if place > 0 && random.random_range(0..4) == 0 {
                txn = txn.delete(key);
            } else {
                txn = txn.put(key, self.document(place));
            }
        }
        What::Write { request: self.request(), txn, answer: Written::Unknown }
    }

    fn delete(&mut self, random: &mut StdRng) -> What {
        self.count += 1;
        let key = key(random);
        let txn = match self.seen.get(&key) {
            Some(seen) if random.random_range(0..2) == 0 => Txn::new().remove(key, *seen),
            _ => Txn::new().delete(key),
        };
        What::Write { request: self.request(), txn, answer: Written::Unknown }
    }

    fn request(&self) -> RequestId {
        RequestId((self.index as u128) << 64 | u128::from(self.count))
    }

    fn document(&self, place: usize) -> Document {
        Document(Bytes::from(format!("\"{}-{}-{place}\"", self.index, self.count)))
    }
}

/// Asks a host, and has the answer written down.
pub(super) fn ask(operation: Operation, running: &Running, recorder: &Recorder) -> (usize, Arc<AtomicBool>) {
    let (store, recorder) = (running.store.clone(), recorder.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let end = End(Arc::clone(&ended));
    let mut what = operation.what.clone();
    let number = recorder.note(|history| {
        history.operations.push(operation);
        history.operations.len() - 1
    });
    let asked = async move {
        answer(&store, &mut what).await;
        let now = recorder.now();
        recorder.note(|history| {
            history.operations[number].returned = Some(now);
            history.operations[number].what = what;
        });
        drop(end);
    };
    running.tasks.spawn_on(asked, running.runtime.handle());
    (number, ended)
}

async fn answer(store: &Store, what: &mut What) {
    match what {
        What::Write { request, txn, answer } => {
            *answer = match store.propose(*request, txn.clone()).await {
                Ok(outcome) => Written::Decided(outcome),
                Err(ProposeError::Unknown | ProposeError::Stopped) => Written::Unknown,
                Err(_) => Written::NotDone,
            };
        }
        What::Read { freshness, prefix, page } => {
            let read = match freshness {
                Freshness::Linearizable => Read::Linearizable,
                Freshness::AtLeast(revision) => Read::AtLeast(*revision),
                Freshness::Stale => Read::Stale,
            };
            if store.read(read).await.is_ok()
                && let Ok((revision, rows)) = store.rows(prefix)
            {
                *page = Some(Page { revision, rows });
            }
        }
    }
}

fn key(random: &mut StdRng) -> Key {
    named(&format!("k{}", random.random_range(0..KEYS)))
}

/// A key by its last part.
pub(super) fn named(name: &str) -> Key {
    Key::new("", "configmaps", Some("default"), name).expect("a key")
}

/// What is written when all is mended.
pub(super) fn last_write(round: u64) -> What {
    let document = Document(Bytes::from(format!("\"last-{round}\"")));
    let request = RequestId(u128::MAX - u128::from(round));
    What::Write { request, txn: Txn::new().put(named(&format!("last-{round}")), document), answer: Written::Unknown }
}

/// What is read when all is mended.
pub(super) fn last_read() -> What {
    What::Read { freshness: Freshness::Linearizable, prefix: "/".to_owned(), page: None }
}
