//! The closed loop: so many clients over so many connections, each asking again as soon as it is answered.
//!
//! Invariant: only what is answered after the warm-up and before the end of a leg is counted, of both sides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_tests::stores::{
    Failure,
    cluster::Cluster,
    session::{Session, key},
};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::{
    cluster::{BUCKET, Both, KEYS, READ},
    machine::{self, Syncs},
    plan::{Load, Mix, Plan},
    report::{Limit, Pairs, Report},
    tell,
};

/// Between two legs: what one side left behind is not to be counted as the other's.
const SETTLE: Duration = Duration::from_secs(1);

/// After a failure a client waits so long.
const PAUSE: Duration = Duration::from_millis(5);

/// How long every answer took, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

/// What came of a leg.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Operations a second.
    pub(crate) rate: f64,
    pub(crate) latencies: Latencies,
    /// CPU of all servers, and of the client, for an operation.
    pub(crate) server_cpu: Duration,
    pub(crate) client_cpu: Duration,
    /// Bytes to disk, and syncs, of all servers for an operation.
    pub(crate) written: f64,
    pub(crate) syncs: Option<f64>,
    pub(crate) failed: u64,
}

impl Latencies {
    pub(crate) fn note(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In milliseconds; the part is from 0 to 1.
    pub(crate) fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let index = (self.0.len() as f64 * part) as usize;
        let found = self.0.get(index.min(self.0.len().saturating_sub(1)));
        found.map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    }
}

/// One leg on one side.
pub(crate) async fn leg(cluster: &Cluster, load: &Load, plan: &Plan) -> Result<Leg, Failure> {
    // A single client asks the leader, on both sides; many are spread over all nodes.
    let nodes = if load.connections == 1 { vec![cluster.ready().await?] } else { vec![0, 1, 2] };
    let sessions = cluster.sessions(&nodes, load.connections).await?;
    let (begin, end) = (Instant::now() + plan.warm, Instant::now() + plan.warm + plan.leg);
    let (counter, tasks) = (Arc::new(AtomicU64::new(0)), TaskTracker::new());
    let value: Arc<[u8]> = vec![b'x'; load.value].into();
    let mut clients = Vec::with_capacity(load.clients);
    for client in 0..load.clients {
        let session = sessions[client % sessions.len()].clone();
        let (counter, value, mix) = (Arc::clone(&counter), Arc::clone(&value), load.mix);
        clients.push(tasks.spawn(loop_until(session, mix, counter, value, begin, end)));
    }
    sleep(begin.saturating_duration_since(Instant::now())).await;
    let pids = cluster.pids();
    let (before, own, machine) = (machine::used(&pids)?, machine::used(&[std::process::id()])?, machine::machine()?);
    let syncs = Syncs::of(&pids);
    sleep(end.saturating_duration_since(Instant::now())).await;
    let syncs = syncs.count();
    let (after, own_after) = (machine::used(&pids)?, machine::used(&[std::process::id()])?);
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    for client in clients {
        let (theirs, failures) = client.await?;
        latencies.append(theirs);
        failed += failures;
    }
    let count = latencies.len().max(1) as f64;
    let (cpu, own_cpu) = (after.cpu.saturating_sub(before.cpu), own_after.cpu.saturating_sub(own.cpu));
    let rate = latencies.len() as f64 / plan.leg.as_secs_f64();
    let leg = Leg {
        rate,
        server_cpu: cpu.div_f64(count),
        client_cpu: own_cpu.div_f64(count),
        written: (after.written - before.written) as f64 / count,
        syncs: syncs.map(|syncs| syncs as f64 / count),
        latencies,
        failed,
    };
    log(cluster.name(), &leg, machine.foreign(cpu + own_cpu)?);
    Ok(leg)
}

fn log(side: &str, leg: &Leg, foreign: f64) {
    let syncs = leg.syncs.map_or_else(|| "?".to_owned(), |syncs| format!("{syncs:.3}"));
    let failed = if leg.failed > 0 { format!(", {} failed", leg.failed) } else { String::new() };
    tell(&format!(
        "   {side}  {:>8.0}/s  server {:>6.1} µs  client {:>5.1} µs  {:>7.0} B  {syncs} syncs  others used {:.0} %, load {:.1}{failed}",
        leg.rate,
        leg.server_cpu.as_secs_f64() * 1e6,
        leg.client_cpu.as_secs_f64() * 1e6,
        leg.written,
        foreign * 100.0,
        machine::load(),
    ));
}

async fn loop_until(
    session: Session,
    mix: Mix,
    counter: Arc<AtomicU64>,
    value: Arc<[u8]>,
    begin: Instant,
    end: Instant,
) -> (Latencies, u64) {
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    loop {
        let began = Instant::now();
        if began >= end {
            return (latencies, failed);
        }
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let puts = match mix {
            Mix::Puts => true,
            Mix::Mixed => number.is_multiple_of(10),
            Mix::Gets | Mix::StaleGets => false,
        };
        let done = if puts {
            // Spread over all keys, as a counter alone would not be.
            session.put(&key(BUCKET, number.wrapping_mul(7919) % KEYS), &value).await
        } else {
            session.get(&key(BUCKET, number % READ), mix == Mix::StaleGets).await.map(drop)
        };
        let now = Instant::now();
        match done {
            Ok(()) if began >= begin && now <= end => latencies.note(now - began),
            Ok(()) => {}
            Err(_) => {
                failed += 1;
                sleep(PAUSE).await;
            }
        }
    }
}

/// Pairs of legs, ours first in one pair, etcd in the next.
pub(crate) async fn compare(both: &Both, plan: &Plan, load: &Load, report: &mut Report) -> Result<(), Failure> {
    tell(&format!("   {}", load.name()));
    let [mut rate, mut p50, mut p99, mut cpu, mut client, mut written, mut syncs] =
        std::array::from_fn(|_| Pairs::default());
    for pair in 0..plan.pairs {
        let mut legs = [None, None];
        for turn in 0..2 {
            let side = ((pair + turn) % 2) as usize;
            sleep(SETTLE).await;
            legs[side] = Some(leg(both.sides()[side], load, plan).await?);
        }
        let [Some(mut ours), Some(mut etcd)] = legs else { continue };
        rate.push(ours.rate, etcd.rate);
        p50.push(ours.latencies.quantile(0.5), etcd.latencies.quantile(0.5));
        p99.push(ours.latencies.quantile(0.99), etcd.latencies.quantile(0.99));
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        cpu.push(micros(ours.server_cpu), micros(etcd.server_cpu));
        client.push(micros(ours.client_cpu), micros(etcd.client_cpu));
        written.push(ours.written, etcd.written);
        if let (Some(ours), Some(etcd)) = (ours.syncs, etcd.syncs) {
            syncs.push(ours, etcd);
        }
    }
    let name = load.name();
    let many = load.clients > 1;
    let small = load.value == 256;
    let (faster, quicker) = match load.mix {
        Mix::Puts if many && small => (Limit::AtLeast(2.0), None),
        Mix::Puts if small => (Limit::None, Some(0.6)),
        Mix::Gets | Mix::StaleGets => (Limit::AtLeast(3.0), None),
        Mix::Puts | Mix::Mixed => (Limit::None, None),
    };
    let puts = load.mix == Mix::Puts;
    report.add(&name, "operations/s", &rate, faster);
    report.add(&name, "p50, ms", &p50, quicker.map_or(Limit::None, Limit::AtMost));
    report.add(&name, "p99, ms", &p99, Limit::None);
    let halved = if puts && small { Limit::AtMost(0.5) } else { Limit::None };
    report.add(&name, "servers' CPU, µs each", &cpu, halved);
    report.add(&name, "client's CPU, µs each", &client, Limit::None);
    if puts {
        let less = if small { Limit::AtMost(0.7) } else { Limit::None };
        report.add(&name, "bytes to disk each", &written, less);
        report.add(&name, "syncs each", &syncs, Limit::None);
    }
    Ok(())
}
