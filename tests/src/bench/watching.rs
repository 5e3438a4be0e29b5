//! From a put to the event that tells of it: to one watcher, and to a thousand.
//!
//! Invariant: a put follows only when the event of the one before has arrived everywhere, so that events and puts cannot be mixed up.

use std::time::Duration;

use futures_util::future::{join, try_join_all};
use quorate_tests::stores::{
    Failure,
    cluster::Cluster,
    session::{Events, key},
};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::{
    cluster::Both,
    load::Latencies,
    plan::Plan,
    report::{Limit, Pairs, Report},
    tell,
};

const WATCHERS: usize = 1000;
const CONNECTIONS: usize = 12;

pub(crate) async fn compare(both: &Both, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [mut p50, mut p99, mut each, mut all] = std::array::from_fn(|_| Pairs::default());
    for pair in 0..plan.pairs {
        let (mut one, mut many) = ([f64::NAN; 4], [f64::NAN; 4]);
        for turn in 0..2 {
            let side = ((pair + turn) % 2) as usize;
            let cluster = both.sides()[side];
            sleep(Duration::from_secs(1)).await;
            let mut latencies = one_watcher(cluster, plan.leg).await?;
            (one[side], one[side + 2]) = (latencies.quantile(0.5), latencies.quantile(0.99));
            let (mut latencies, mut last) = many_watchers(cluster, plan.leg).await?;
            (many[side], many[side + 2]) = (latencies.quantile(0.99), last.quantile(0.5));
            tell(&format!(
                "   {}  put → event p50 {:.2} ms, p99 {:.2} ms; {WATCHERS} watchers: p99 {:.1} ms, the last of them p50 {:.1} ms",
                cluster.name(),
                one[side],
                one[side + 2],
                many[side],
                many[side + 2],
            ));
        }
        p50.push(one[0], one[1]);
        p99.push(one[2], one[3]);
        each.push(many[0], many[1]);
        all.push(many[2], many[3]);
    }
    report.add("put → watch event", "p50, ms", &p50, Limit::None);
    report.add("put → watch event", "p99, ms", &p99, Limit::AtMost(0.6));
    report.add("1,000 watchers of a key", "p99 of all events, ms", &each, Limit::None);
    report.add("1,000 watchers of a key", "until the last has it, p50, ms", &all, Limit::None);
    Ok(())
}

/// One watcher on one node, one writer on another.
async fn one_watcher(cluster: &Cluster, lasting: Duration) -> Result<Latencies, Failure> {
    let key = key("watched", 1);
    let (watcher, writer) = (cluster.session(0).await?, cluster.session(2).await?);
    let mut events = watcher.watch(&key).await?;
    let (mut latencies, until) = (Latencies::default(), Instant::now() + lasting);
    while Instant::now() < until {
        let began = Instant::now();
        let seen = async {
            events.next().await?;
            Ok::<_, Failure>(began.elapsed())
        };
        let (put, seen) = join(writer.put(&key, &[b'w'; 256]), seen).await;
        put?;
        latencies.note(seen?);
    }
    Ok(latencies)
}

/// Watchers on all nodes; how long each event took, and the last of each put.
async fn many_watchers(cluster: &Cluster, lasting: Duration) -> Result<(Latencies, Latencies), Failure> {
    let key = key("watched", 2);
    let sessions = cluster.sessions(&[0, 1, 2], CONNECTIONS).await?;
    let watches = (0..WATCHERS).map(|number| sessions[number % CONNECTIONS].watch(&key));
    let mut watches: Vec<Events> = try_join_all(watches).await?;
    let writer = cluster.session(2).await?;
    let (mut latencies, mut last, until) = (Latencies::default(), Latencies::default(), Instant::now() + lasting);
    while Instant::now() < until {
        let began = Instant::now();
        let tasks = TaskTracker::new();
        let waiting: Vec<_> = watches
            .drain(..)
            .map(|mut events| {
                tasks.spawn(async move {
                    let seen = events.next().await;
                    (events, seen.map(|()| began.elapsed()))
                })
            })
            .collect();
        writer.put(&key, &[b'w'; 256]).await?;
        let mut slowest = Duration::ZERO;
        for waiting in waiting {
            let (events, seen) = waiting.await?;
            let seen = seen?;
            latencies.note(seen);
            slowest = slowest.max(seen);
            watches.push(events);
        }
        last.note(slowest);
    }
    Ok((latencies, last))
}
