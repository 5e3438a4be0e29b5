//! Who is silent, and whether it is we who are cut off.
//!
//! A leader has the voters' majority, but voters are few and nodes may be many: a leader behind a broken switch can keep its quorum in
//! the same rack and lose everyone else. So if more than half of the nodes that were well fail within one window of silence, nothing is
//! tainted and nothing is evicted until enough of them return or are deleted: nodes and pods only say why. What that means:
//!
//! - 2 nodes: one lost is not more than half. The leader's single vote is the whole quorum, nobody else can act, and failing over is what
//!   a second machine is for: its pods are replaced. If it was merely cut off, its copies run on until it returns, as in Kubernetes.
//! - 3 nodes: one lost is replaced. With two lost there is no quorum among three voters, and nothing is decided at all.
//! - 5 nodes, 3 of them voters: two lost are replaced; three lost at once are held. Nodes lost long before do not count as well.
//!
//! Heartbeats arrive spread over a second, so a node counts as failing from half the window on: otherwise those that vanished together
//! would be judged one by one.
//!
//! Invariant: instants are compared only with instants of this same machine; wall time only bounds the age of a node that never spoke.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{kinds::NODES, object::Object};

use crate::{
    decision::{Moment, Snapshot},
    edit::{of_condition, time},
    taint,
};

/// What the leader hears.
#[derive(Debug)]
pub(crate) struct Silence<'a> {
    silent_for: BTreeMap<&'a str, Duration>,
    unknown_after: Duration,
    /// Why nothing is evicted now, if most nodes failed at once.
    pub(crate) cut_off: Option<String>,
}

impl<'a> Silence<'a> {
    /// Listens to all nodes.
    pub(crate) fn listen(snapshot: &Snapshot<'a>, moment: &Moment<'_>) -> Self {
        let mut silence =
            Self { silent_for: BTreeMap::new(), unknown_after: snapshot.settings.unknown_after, cut_off: None };
        let (mut failing, mut well) = (0_usize, 0_usize);
        for stored in snapshot.objects.list(&NODES) {
            let node = &stored.object;
            silence.silent_for.insert(node.name(), silent_for(snapshot, moment, node));
            let Some(ready) = of_condition(node, "Ready", "status") else { continue };
            let fails = silence.of(node.name()) * 2 >= silence.unknown_after || ready == "False";
            match (fails, taint::ends_pods_of_failed_node(node)) {
                (true, true) => {} // lost before, and dealt with
                (true, false) => failing += 1,
                (false, _) => well += 1,
            }
        }
        if failing > well {
            silence.cut_off = Some(format!(
                "{failing} of {} nodes fell silent or failed at once: the leader may be the one cut off, so nothing is evicted",
                failing + well
            ));
        }
        silence
    }

    /// How long a node has been silent.
    pub(crate) fn of(&self, node: &str) -> Duration {
        self.silent_for.get(node).copied().unwrap_or_default()
    }

    /// Whether a node has been silent too long.
    pub(crate) fn is_silent(&self, node: &str) -> bool {
        self.of(node) >= self.unknown_after
    }

    /// What is said of a node that has been silent too long. The same however long it lasts: it is stored.
    pub(crate) fn say(&self, node: &str) -> String {
        format!("{node} not heard for {}s", self.unknown_after.as_secs())
    }
}

fn silent_for(snapshot: &Snapshot<'_>, moment: &Moment<'_>, node: &Object) -> Duration {
    let heard = snapshot.heard.get(node.name()).copied();
    let since = heard.unwrap_or_default().max(snapshot.leading_since);
    let silence = moment.now.since(since);
    match (heard, time(node, &["metadata", "creationTimestamp"])) {
        // It joined a moment ago and had no time to speak yet.
        (None, Some(created)) => {
            let age = Duration::try_from(moment.wall.duration_since(created)).unwrap_or_default();
            silence.min(age)
        }
        _ => silence,
    }
}
