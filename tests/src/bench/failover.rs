//! A leader that dies, and one that is stopped in order: for how long no write is acknowledged.
//!
//! Invariant: two clients write all the time, each to a node that is not the leader, with a deadline for each write; what counts is the
//! longest time in which neither had an answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_tests::stores::{Failure, cluster::Cluster, session::key};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::{
    cluster::Both,
    plan::Plan,
    report::{Limit, Pairs, Report},
    tell,
};

/// How long a client waits for an answer before it asks again.
const DEADLINE: Duration = Duration::from_millis(200);

/// After an error.
const PAUSE: Duration = Duration::from_millis(5);

/// How long clients write before, and after.
const BEFORE: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_secs(5);

/// How long a cluster that is whole again is left alone.
const SETTLE: Duration = Duration::from_secs(2);

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Killed,
    Stopped,
}

pub(crate) async fn compare(both: &mut Both, plan: &Plan, how: How, report: &mut Report) -> Result<(), Failure> {
    let mut gaps = [Vec::new(), Vec::new()];
    for run in 0..plan.kills {
        for turn in 0..2 {
            let side = ((run + turn) % 2) as usize;
            let cluster = if side == 0 { &mut both.ours } else { &mut both.etcd };
            // At any moment between two heartbeats.
            let gap = gap(cluster, how, Duration::from_millis(u64::from(run * 37 % 100))).await?;
            tell(&format!("   {}  {gap:.0} ms", cluster.name()));
            gaps[side].push(gap);
        }
    }
    let pairs = |part: f64| {
        let mut pairs = Pairs::default();
        let [ours, etcd] = [0, 1].map(|side| {
            let mut sorted: Vec<f64> = gaps[side].clone();
            sorted.sort_by(f64::total_cmp);
            sorted.get(((sorted.len().saturating_sub(1)) as f64 * part) as usize).copied().unwrap_or(f64::NAN)
        });
        pairs.push(ours, etcd);
        pairs
    };
    match how {
        How::Killed => {
            report.add("leader killed: no write for", "p50, ms", &pairs(0.5), Limit::AtMost(0.6));
            report.add("leader killed: no write for", "longest, ms", &pairs(1.0), Limit::AtMost(0.6));
        }
        How::Stopped => {
            report.add("leader stopped: no write for", "p50, ms", &pairs(0.5), Limit::None);
            report.add("leader stopped: no write for", "longest, ms", &pairs(1.0), Limit::OursAtMost(150.0));
        }
    }
    Ok(())
}

/// The times of acknowledgements, as far as they matter.
struct Acks {
    last: Instant,
    longest: Duration,
}

/// The longest time without an acknowledged write when the leader goes, in milliseconds.
async fn gap(cluster: &mut Cluster, how: How, phase: Duration) -> Result<f64, Failure> {
    let leader = cluster.ready().await?;
    let acks = Arc::new(Mutex::new(Acks { last: Instant::now(), longest: Duration::ZERO }));
    let (tasks, until) = (TaskTracker::new(), Instant::now() + BEFORE + phase + AFTER);
    for node in (0..3).filter(|node| *node != leader) {
        let (session, acks) = (cluster.session(node).await?, Arc::clone(&acks));
        tasks.spawn(async move {
            let mut number = 0;
            while Instant::now() < until {
                number += 1;
                let key = key("failover", number % 100);
                let put = session.put(&key, &[b'f'; 64]);
                if matches!(timeout(DEADLINE, put).await, Ok(Ok(()))) {
                    let now = Instant::now();
                    let mut acks = acks.lock().unwrap_or_else(PoisonError::into_inner);
                    acks.longest = acks.longest.max(now - acks.last);
                    acks.last = now;
                } else {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    sleep(BEFORE + phase).await;
    let mut stopping = match how {
        How::Killed => {
            cluster.kill(leader)?;
            None
        }
        How::Stopped => cluster.terminate(leader)?,
    };
    tasks.close();
    tasks.wait().await;
    if let Some(process) = &mut stopping {
        process.ended().await?;
    }
    let longest = {
        let acks = acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.longest.max(acks.last.elapsed().saturating_sub(DEADLINE * 2))
    };
    cluster.restart(leader)?;
    cluster.ready().await?;
    sleep(SETTLE).await;
    Ok(longest.as_secs_f64() * 1e3)
}
