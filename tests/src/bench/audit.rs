//! Kills everything under load, starts it again, and looks for every write that was acknowledged.
//!
//! Invariant: a key is written with a counter that only rises; after the kill it must hold what was acknowledged last, or what was asked
//! for after that.

use std::time::Duration;

use quorate_tests::stores::{Failure, cluster::Cluster, session::key};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::{
    cluster::Both,
    report::{Limit, Pairs, Report},
    tell,
};

const CLIENTS: u64 = 64;
const CONNECTIONS: usize = 8;

/// How long clients write before everything is killed.
const LOAD: Duration = Duration::from_secs(3);

/// Audits both sides.
pub(crate) async fn both(both: &mut Both, report: &mut Report) -> Result<(), Failure> {
    let mut lost = Pairs::default();
    let [ours, etcd] = [audit(&mut both.ours).await?, audit(&mut both.etcd).await?];
    lost.push(ours, etcd);
    report.add("killed under load", "acknowledged writes lost", &lost, Limit::OursAtMost(0.0));
    Ok(())
}

async fn audit(cluster: &mut Cluster) -> Result<f64, Failure> {
    cluster.ready().await?;
    let sessions = cluster.sessions(&[0, 1, 2], CONNECTIONS).await?;
    let tasks = TaskTracker::new();
    let mut clients = Vec::new();
    for (client, session) in (0..CLIENTS).zip(sessions.iter().cycle()) {
        let session = session.clone();
        clients.push(tasks.spawn(async move {
            let mut acknowledged = 0_u64;
            // Ends with the first write that is not acknowledged: its outcome is not known.
            while session.put(&key("audit", client), (acknowledged + 1).to_string().as_bytes()).await.is_ok() {
                acknowledged += 1;
            }
            acknowledged
        }));
    }
    sleep(LOAD).await;
    cluster.kill_all()?;
    drop(sessions);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.push(client.await?);
    }
    (0..3).try_for_each(|node| cluster.restart(node))?;
    cluster.ready().await?;
    let session = cluster.session(0).await?;
    let (mut lost, mut all) = (0, 0);
    for (client, last) in (0..CLIENTS).zip(acknowledged) {
        let found = session.get(&key("audit", client), false).await?.unwrap_or_default();
        let found: u64 = String::from_utf8(found)?.parse().unwrap_or(0);
        all += last;
        // The one that was under way may have been done.
        if found != last && found != last + 1 {
            lost += 1;
        }
    }
    tell(&format!("   {}  {all} acknowledged, {lost} of {CLIENTS} keys are not as acknowledged", cluster.name()));
    Ok(f64::from(lost))
}
