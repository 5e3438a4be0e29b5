//! Waits until the cluster is what `quorate dev up` says it is.
//!
//! Each node is asked itself: what the others last heard of one whose power was cut a moment ago is no news of it.
//!
//! Invariant: it is over only when every node has answered with the newest state, all are ready in it, and all vote that are to.

use std::{path::Path, time::Duration};

use futures_util::future::join_all;
use quorate_node::voters;
use quorate_proto::{
    object::Object,
    refusal::{Reason, Refusal},
    request::ClusterStatus,
};
use tokio::time::{Instant, sleep};

use super::{cluster, plan::Host, plan::Plan, processes, shell, took, up::WHAT};
use crate::{client::Client, commands::status, failure::Failure, output::Console};

/// How long each step may take: a leader is there, nodes are ready, nodes vote.
const DEADLINE: Duration = Duration::from_secs(90);

/// How long it may take until a daemon's process is there.
const BEGUN: Duration = Duration::from_secs(3);

/// How often to look.
const LOOK: Duration = Duration::from_millis(100);

/// How long a single node may take to answer. Who is not there does not hold up those who are.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the members together may take.
const TOGETHER: Duration = Duration::from_secs(5);

/// What a node answered.
#[derive(Debug)]
struct Seen {
    status: ClusterStatus,
    nodes: Vec<Object>,
}

/// Waits until the members have a leader, and returns a client for them.
pub(super) async fn led(plan: &Plan, members: &[&Host], contexts: &Path) -> Result<Client, Refusal> {
    let begun = Instant::now();
    let mut last = "no context was written".to_owned();
    loop {
        if let Some(client) = cluster::client(contexts, plan, TOGETHER)? {
            match status::ask(&client).await {
                Ok(status) if status.leader.is_some() => return Ok(client),
                Ok(_) => "there is no leader".clone_into(&mut last),
                Err(refusal) => last = refusal.because,
            }
        }
        check(plan, members, begun, &last)?;
        sleep(LOOK).await;
    }
}

/// Waits until every node is ready, and then until all vote that are to.
pub(super) async fn settled(
    plan: &Plan,
    hosts: &[Host],
    contexts: &Path,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let clients: Result<Vec<_>, _> =
        hosts.iter().map(|host| cluster::client_of(contexts, plan, host, PATIENCE)).collect();
    let clients = clients?;
    let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
    until(plan, hosts, &clients, |seen| unready(&names, seen)).await?;
    writeln!(console.err, "  {} of {} nodes are ready ({})", hosts.len(), hosts.len(), took(begun))?;

    let begun = Instant::now();
    let seen = look(&clients).await;
    let voters = seen.iter().flatten().next().map_or(1, |seen| voters::expected(&seen.nodes));
    if votes(&seen).is_some() {
        let lost = (voters - 1) / 2;
        writeln!(console.err, "Waiting until {voters} nodes vote, so that {lost} may be lost ...")?;
    }
    until(plan, hosts, &clients, |seen| unready(&names, seen).or_else(|| votes(seen))).await?;
    writeln!(console.err, "  {voters} of {} nodes vote ({})", hosts.len(), took(begun))?;
    Ok(())
}

/// Looks until nothing is missing any more.
async fn until(
    plan: &Plan,
    hosts: &[Host],
    clients: &[Client],
    missing: impl Fn(&[Result<Seen, Refusal>]) -> Option<String>,
) -> Result<(), Refusal> {
    let begun = Instant::now();
    let all: Vec<_> = hosts.iter().collect();
    while let Some(missing) = missing(&look(clients).await) {
        check(plan, &all, begun, &missing)?;
        sleep(LOOK).await;
    }
    Ok(())
}

async fn look(clients: &[Client]) -> Vec<Result<Seen, Refusal>> {
    join_all(clients.iter().map(async |client| {
        let (status, nodes) = tokio::try_join!(status::ask(client), cluster::nodes(client))?;
        Ok(Seen { status, nodes })
    }))
    .await
}

/// Who does not answer or is not ready, and why.
fn unready(hosts: &[&str], seen: &[Result<Seen, Refusal>]) -> Option<String> {
    let silent = hosts.iter().zip(seen).filter_map(|(host, seen)| {
        let refusal = seen.as_ref().err()?;
        Some(format!("{host} does not answer: {}", refusal.because))
    });
    let newest = seen.iter().flatten().max_by_key(|seen| seen.status.revision);
    let unready = hosts.iter().filter_map(|host| {
        let node = newest?.nodes.iter().find(|node| node.name() == *host);
        let because = match node {
            None => "it has not joined",
            Some(node) if node.is_true("Ready") => return None,
            Some(node) => {
                node.condition("Ready").and_then(|ready| ready.get("message")?.as_str()).unwrap_or("it has not said so")
            }
        };
        Some(format!("{host} is not ready: {because}"))
    });
    let missing: Vec<_> = silent.chain(unready).collect();
    if missing.is_empty() { None } else { Some(missing.join("; ")) }
}

/// How many nodes vote, if others are to as well. All who answer must see it: any of them may be asked next.
fn votes(seen: &[Result<Seen, Refusal>]) -> Option<String> {
    seen.iter().flatten().find_map(|Seen { status, nodes }| {
        let expected = voters::expected(nodes);
        let vote = status.members.iter().filter(|member| member.voter).count();
        (vote != expected).then(|| format!("{vote} of {expected} nodes vote, as {} sees it", status.node_name))
    })
}

/// Fails when it has taken too long, or as soon as a daemon has ended.
fn check(plan: &Plan, hosts: &[&Host], begun: Instant, missing: &str) -> Result<(), Refusal> {
    if begun.elapsed() >= BEGUN {
        running(plan, hosts)?;
    }
    if begun.elapsed() < DEADLINE {
        return Ok(());
    }
    let because = format!("after {} s {missing}", DEADLINE.as_secs());
    let log = hosts.first().map(|host| host.log("daemon").display().to_string()).unwrap_or_default();
    Err(Refusal::new(Reason::Timeout, WHAT, because)
        .hint(format!("`quorate dev status` shows what runs; the daemons log to {log} and its like")))
}

/// Fails if a daemon has ended, with its own words.
fn running(plan: &Plan, hosts: &[&Host]) -> Result<(), Refusal> {
    match hosts.iter().find(|host| processes::find(host, plan.simulated).daemon.is_none()) {
        None => Ok(()),
        Some(host) => {
            let because = format!("the daemon of {} ended; {}", host.name, shell::tail(&host.log("daemon")));
            Err(Refusal::new(Reason::Internal, WHAT, because)
                .hint(format!("the whole log is {}", host.log("daemon").display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::{
        ids::{ClusterId, NodeId},
        request::Member,
        txn::Revision,
    };
    use serde_json::json;

    use super::*;

    /// What a node says: the names of those that are ready, and how many of three vote.
    fn says(name: &str, revision: u64, ready: &[&str], voters: usize) -> Result<Seen, Refusal> {
        let member = |index: usize| Member { id: NodeId(index as u128), name: None, voter: index < voters };
        let node = |name: &&str| {
            let condition = match ready.contains(name) {
                true => json!({"type": "Ready", "status": "True"}),
                false => json!({"type": "Ready", "status": "Unknown", "message": "not heard for 6 s"}),
            };
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": [condition]}});
            Object::from_value(node).unwrap()
        };
        Ok(Seen {
            status: ClusterStatus {
                cluster: ClusterId(7),
                node: NodeId(1),
                node_name: name.to_owned(),
                leader: None,
                revision: Revision(revision),
                simulated: true,
                members: (0..3).map(member).collect(),
            },
            nodes: ALL.iter().map(node).collect(),
        })
    }

    const ALL: [&str; 3] = ["n1", "n2", "n3"];

    fn silent() -> Result<Seen, Refusal> {
        Err(Refusal::new(Reason::Unavailable, "the cluster was not reached", "10.99.0.3:7443: no answer"))
    }

    #[test]
    fn a_node_that_still_counts_as_ready_but_does_not_answer_is_waited_for() {
        let seen = [says("n1", 9, &ALL, 3), says("n2", 9, &ALL, 3), silent()];
        assert_eq!(unready(&ALL, &seen).unwrap(), "n3 does not answer: 10.99.0.3:7443: no answer");
        assert_eq!(unready(&ALL, &[says("n1", 9, &ALL, 3), says("n2", 9, &ALL, 3), says("n3", 9, &ALL, 3)]), None);
    }

    #[test]
    fn the_newest_answer_counts_and_says_why_a_node_is_not_ready() {
        let seen = [says("n1", 8, &ALL, 3), says("n2", 9, &["n1", "n2"], 3), says("n3", 7, &ALL, 3)];
        assert_eq!(unready(&ALL, &seen).unwrap(), "n3 is not ready: not heard for 6 s");
        assert_eq!(unready(&["n1", "n4"], &seen).unwrap(), "n4 is not ready: it has not joined");
    }

    #[test]
    fn it_is_not_over_before_every_node_knows_that_all_vote() {
        let seen = [says("n1", 9, &ALL, 3), says("n2", 9, &ALL, 1), says("n3", 9, &ALL, 3)];
        assert_eq!(votes(&seen).unwrap(), "1 of 3 nodes vote, as n2 sees it");
        assert_eq!(votes(&[says("n1", 9, &ALL, 3), says("n2", 9, &ALL, 3)]), None);
    }
}
