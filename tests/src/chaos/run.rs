//! A run: sections of rounds under load, each judged at its end, and all of it once more at the very end.
//!
//! Invariant: a run that found anything wrong, or could not go on, ends at the section in which that was, and says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use quorate_proto::{
    ids::RequestId,
    txn::{Document, Outcome, Revision, Txn},
};
use rand::RngExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{
    audit::{self, Rows, Wrong},
    client::{Client, Shared, ask},
    fault::{Kind, Round, random},
    faults,
    record::Record,
    report::Tally,
    watcher,
    world::World,
};
use crate::{
    store_sim::history::{What, Written},
    stores::{Failure, cluster::Cluster, session::key},
    tell::tell,
};

/// Clients, four at each node.
const CLIENTS: usize = 12;

/// Watches that go on over all nodes.
const WATCHERS: u64 = 2;

/// So many rounds make a section, unless it takes longer than this.
const ROUNDS: u64 = 15;
const SECTION: Duration = Duration::from_secs(45);

/// How long a watch may take to tell the rest when all is mended.
const CATCH_UP: Duration = Duration::from_secs(60);

/// After a round, for whoever was struck to be struck again as a whole.
const BREATHE: Duration = Duration::from_millis(200);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For how long.
    pub lasts: Duration,
    /// At most so many rounds.
    pub rounds: u64,
    /// Which faults.
    pub kinds: Vec<Kind>,
    /// What chooses them.
    pub seed: u64,
}

/// Lets faults strike a cluster; what came of it, also if it did not come to its end.
pub async fn run(cluster: Cluster, settings: &Settings) -> Tally {
    let mut tally = Tally::new(cluster.name());
    let mut world = World::new(cluster);
    if let Err(failure) = sections(&mut world, settings, &mut tally).await {
        tally.wrong.nodes.push(failure.to_string());
    }
    match world.panics() {
        Ok(panics) => tally.wrong.nodes.extend(panics),
        Err(failure) => tally.wrong.nodes.push(failure.to_string()),
    }
    tally.kills = world.kills;
    let beat = world.pulse.beat();
    (tally.acknowledged, tally.longest) = (beat.acknowledged, Duration::from_micros(beat.longest));
    tally
}

async fn sections(world: &mut World, settings: &Settings, tally: &mut Tally) -> Result<(), Failure> {
    let until = Instant::now() + settings.lasts;
    let mut left = BTreeMap::new();
    for number in 0.. {
        world.all_serve().await?;
        let mut section = Section::begin(world, settings.seed, number).await?;
        let struck = rounds(world, settings, until, tally).await;
        // Also what was told before it could not go on is held against what was decided.
        let judged = section.end(world, tally, &mut left).await;
        struck?;
        judged?;
        if tally.wrong != Wrong::default() || Instant::now() >= until || tally.rounds >= settings.rounds {
            break;
        }
    }
    world.all_serve().await?;
    for node in 0..3 {
        let link = world.link(node).await?;
        // Whatever is asked for afterwards is as new as this.
        link.session.get(&key("ready", 0), false).await?;
        for (prefix, rows) in &left {
            let has = link.session.rows(prefix, true, None).await?.rows;
            tally.wrong.writes.extend(audit::differs(node, prefix, &has, rows));
        }
    }
    tally.audited = left.values().map(|rows: &Rows| rows.len() as u64).sum();
    Ok(())
}

/// The rounds of a section.
async fn rounds(world: &mut World, settings: &Settings, until: Instant, tally: &mut Tally) -> Result<(), Failure> {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        if Instant::now() >= until || begun.elapsed() > SECTION || tally.rounds >= settings.rounds {
            break;
        }
        let round = Round::choose(settings.seed, tally.rounds, &settings.kinds);
        tally.rounds += 1;
        let name = round.kind.name();
        let done = faults::strike(world, &round)
            .await
            .map_err(|failure| format!("round {}, {name}: {failure}", round.number))?;
        let back = done
            .back
            .map_or_else(String::new, |back| format!("  written again after {:.0} ms", back.as_secs_f64() * 1e3));
        tell(&format!("{:>6}  {name:<9}  {}{back}", round.number, done.text));
        world.all_serve().await.map_err(|failure| format!("after round {}, {name}: {failure}", round.number))?;
        sleep(BREATHE).await;
    }
    Ok(())
}

/// A section under way. What still runs of it ends with it.
struct Section {
    shared: Arc<Shared>,
    clients: Vec<AbortOnDropHandle<Result<(), Failure>>>,
    watchers: Vec<AbortOnDropHandle<()>>,
    end: watch::Sender<Option<Revision>>,
}

impl Section {
    async fn begin(world: &World, seed: u64, number: u64) -> Result<Self, Failure> {
        let link = world.link(0).await?;
        let from = link.session.rows(&key("ready", 0), false, None).await?.revision;
        let shared = Arc::new(Shared {
            nodes: Arc::clone(&world.nodes),
            record: Record::new(number, from, world.begun),
            pulse: Arc::clone(&world.pulse),
            deduplicated: matches!(world.cluster, Cluster::Ours(_)),
            stop: AtomicBool::new(false),
        });
        let (tasks, (end, told)) = (TaskTracker::new(), watch::channel(None));
        let mut randoms = (0..).map(|part| random(seed.rotate_left(32), number << 8 | part));
        let clients = (0..CLIENTS)
            .zip(randoms.by_ref())
            .map(|(index, random)| {
                AbortOnDropHandle::new(tasks.spawn(Client::new(index, random).run(Arc::clone(&shared))))
            })
            .collect();
        let watchers = (0..WATCHERS)
            .zip(randoms)
            .map(|(_, random)| {
                AbortOnDropHandle::new(tasks.spawn(watcher::run(Arc::clone(&shared), random, told.clone())))
            })
            .collect();
        Ok(Self { shared, clients, watchers, end })
    }

    /// Ends the load, and holds everything against what was decided.
    async fn end(
        &mut self,
        world: &mut World,
        tally: &mut Tally,
        left: &mut BTreeMap<String, Rows>,
    ) -> Result<(), Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await??;
        }
        world.pulse.rests();
        let result = self.judge(world, tally, left).await;
        self.watchers.clear();
        result
    }

    async fn judge(
        &mut self,
        world: &mut World,
        tally: &mut Tally,
        left: &mut BTreeMap<String, Rows>,
    ) -> Result<(), Failure> {
        let record = Arc::clone(&self.shared.record);
        world.all_serve().await?;
        let end = self.last(world).await?;
        self.end.send_replace(Some(end));
        let (ledgers, states) = audit::told(world, &record, end).await?;
        for watcher in &mut self.watchers {
            // One that never gets there is found by what it did not tell.
            let _ = timeout(CATCH_UP, watcher).await;
        }
        let history = record.history();
        tally.note(&history);
        let mut wrong = audit::judge(&history, &ledgers, end);
        if let Some(ledger) = ledgers.first() {
            let rows = audit::left(ledger);
            for (node, has) in states.iter().enumerate() {
                wrong.nodes.extend(audit::differs(node, &record.prefix, has, &rows));
            }
            left.insert(record.prefix.clone(), rows);
        }
        tally.wrong.extend(wrong);
        Ok(())
    }

    /// Reads everything on every node, and then writes what is decided last.
    async fn last(&self, world: &World) -> Result<Revision, Failure> {
        let shared = &self.shared;
        for node in 0..3 {
            let link = world.link(node).await?;
            let prefix = format!("{}k", shared.record.prefix);
            let read = What::Read { freshness: crate::store_sim::history::Freshness::Linearizable, prefix, page: None };
            ask(shared, CLIENTS, node, &link, read).await;
        }
        let mut random = random(shared.record.from.0, u64::MAX);
        let until = Instant::now() + CATCH_UP;
        for number in 0.. {
            let document = Document(bytes::Bytes::from(format!("\"last-{number}\"")));
            let txn = Txn::new().put(shared.record.key(&format!("last-{number}"))?, document);
            let request = RequestId(random.random());
            let link = world.link(number % 3).await?;
            let what = What::Write { request, txn, answer: Written::Unknown };
            match ask(shared, CLIENTS, number % 3, &link, what).await {
                What::Write { answer: Written::Decided(Outcome::Applied(end)), .. } => return Ok(end),
                _ if Instant::now() > until => break,
                _ => {}
            }
        }
        Err("when all was mended, nothing could be written".into())
    }
}
