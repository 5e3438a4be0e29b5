//! What is used when nothing is asked, what many puts leave in memory, and how long a node takes to start.
//!
//! Invariant: a node counts as started when it answers a linearizable read, not before.

use std::{path::Path, time::Duration};

use quorate_proto::{
    query::Query,
    range::KeyRange,
    request::{Answer, Read, Request},
    store::{PREFIX, StoreRequest},
    wire::cap,
};
use quorate_tests::stores::{
    Failure, etcd, grpc, ours,
    process::Process,
    quic,
    session::{Session, key},
};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

use crate::{
    cluster::{BUCKET, Both},
    load,
    machine::{resident, used},
    plan::{Load, Mix, Plan},
    report::{Limit, Pairs, Report},
    tell,
};

/// Bytes of a mebibyte.
const MEBIBYTE: f64 = (1 << 20) as f64;

/// So many keys a node that starts has.
const STARTED_WITH: u64 = 10_000;

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

pub(crate) async fn idle(both: &Both, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    sleep(Duration::from_secs(3)).await;
    let [mut written, mut cpu, mut memory] = std::array::from_fn(|_| Pairs::default());
    let [ours, etcd] = both.sides().map(|cluster| cluster.pids());
    let before = [used(&ours)?, used(&etcd)?];
    sleep(plan.idle).await;
    let after = [used(&ours)?, used(&etcd)?];
    let minutes = plan.idle.as_secs_f64() / 60.0;
    let [bytes, busy] = [0, 1].map(|what| {
        [0, 1].map(|side| match what {
            0 => (after[side].written - before[side].written) as f64 / minutes,
            _ => (after[side].cpu - before[side].cpu).as_secs_f64() / plan.idle.as_secs_f64() * 100.0,
        })
    });
    written.push(bytes[0], bytes[1]);
    cpu.push(busy[0], busy[1]);
    memory.push(resident(&ours)? as f64 / MEBIBYTE, resident(&etcd)? as f64 / MEBIBYTE);
    report.add("idle", "bytes to disk in 60 s, all nodes", &written, Limit::OursAtMost(0.0));
    report.add("idle", "CPU of all nodes, % of a core", &cpu, Limit::None);
    report.add("idle", "largest resident memory, MiB", &memory, Limit::OursAtMost(60.0));
    Ok(())
}

pub(crate) async fn memory(both: &Both, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let load = Load { mix: Mix::Puts, connections: 64, clients: 512, value: 256 };
    let mut left = [0.0; 2];
    for (side, cluster) in both.sides().into_iter().enumerate() {
        let mut done = 0.0;
        while done < plan.puts as f64 {
            let leg = load::leg(cluster, &load, plan).await?;
            done += leg.rate * (plan.leg + plan.warm).as_secs_f64();
        }
        left[side] = resident(&cluster.pids())? as f64 / MEBIBYTE;
        tell(&format!("   {}  {:.0} MiB after {done:.0} puts", cluster.name(), left[side]));
    }
    let mut pairs = Pairs::default();
    pairs.push(left[0], left[1]);
    report.add(&format!("after {} puts", plan.puts), "largest resident memory, MiB", &pairs, Limit::AtMost(0.7));
    Ok(())
}

/// One node alone, with some thousand keys: from exec to the first linearizable read.
pub(crate) async fn start(directory: &Path, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let mut alone = [
        Alone::Ours { directory: directory.join("ours-alone"), port: ours::ports::<1>()?[0] },
        Alone::Etcd { directory: directory.join("etcd-alone"), ports: etcd::ports()? },
    ];
    for side in &mut alone {
        let (process, _) = side.start().await?;
        let session = side.session().await?;
        for number in 0..STARTED_WITH {
            session.put(&key(BUCKET, number), &[b'x'; 256]).await?;
        }
        stop(process).await?;
    }
    let mut pairs = Pairs::default();
    for run in 0..plan.starts {
        let mut took = [f64::NAN; 2];
        for turn in 0..2 {
            let side = ((run + turn) % 2) as usize;
            let (process, time) = alone[side].start().await?;
            took[side] = time.as_secs_f64() * 1e3;
            stop(process).await?;
        }
        tell(&format!("   ours {:.0} ms, etcd {:.0} ms", took[0], took[1]));
        pairs.push(took[0], took[1]);
    }
    report.add("one node with 10,000 keys", "started → ready, ms", &pairs, Limit::AtMost(0.7));
    Ok(())
}

async fn stop(mut process: Process) -> Result<(), Failure> {
    process.terminate()?;
    process.ended().await.map(drop)
}

/// A cluster of one.
enum Alone {
    Ours { directory: std::path::PathBuf, port: u16 },
    Etcd { directory: std::path::PathBuf, ports: [u16; 2] },
}

impl Alone {
    /// Starts it, and waits until it reads; how long that took.
    async fn start(&self) -> Result<(Process, Duration), Failure> {
        let mut command = match self {
            Self::Ours { directory, port } => {
                std::fs::create_dir_all(directory)?;
                ours::daemon(directory, "n0", *port, None, &ours::Launch::default())?
            }
            Self::Etcd { directory, ports: [client, peer] } => {
                let mut command = etcd::alone(directory, *client, *peer);
                command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
                command
            }
        };
        let began = Instant::now();
        let process = Process::start(&mut command)?;
        while self.read().await.is_err() {
            if began.elapsed() > START {
                return Err(format!("a node did not start within {} s", START.as_secs()).into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok((process, began.elapsed()))
    }

    /// Reads; both sides by a socket that says at once that nobody listens.
    async fn read(&self) -> Result<(), Failure> {
        match self {
            Self::Ours { directory, .. } => {
                let mut socket = UnixStream::connect(directory.join("n0/api.sock")).await?;
                let query = Query::new(KeyRange::prefix(PREFIX)?).limit(1);
                let request = Request::Store(StoreRequest::Query { read: Read::Linearizable, query });
                quorate_mesh::frame::write(&mut socket, &request, cap::API).await?;
                match quorate_mesh::frame::expect::<Answer>(&mut socket, cap::API).await? {
                    Answer::Store(_) => Ok(()),
                    other => Err(format!("{other:?}").into()),
                }
            }
            Self::Etcd { .. } => self.session().await?.get(&key(BUCKET, 0), false).await.map(drop),
        }
    }

    async fn session(&self) -> Result<Session, Failure> {
        Ok(match self {
            Self::Ours { directory, port } => {
                let user = ours::user(directory)?;
                Session::Ours(quic::Connection::open(&format!("127.0.0.1:{port}"), &user).await?.into())
            }
            Self::Etcd { ports: [client, _], .. } => {
                Session::Etcd(grpc::Connection::open(&format!("127.0.0.1:{client}")).await?)
            }
        })
    }
}
