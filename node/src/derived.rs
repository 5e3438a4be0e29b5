//! Hands what is derived from the store to names and traffic, whenever it changes: on every node, leader or not.
//!
//! Invariant: names and traffic see states in the store's order; what did not change is not handed on again.

use std::{net::Ipv4Addr, sync::Arc};

use quorate_dns::{Names, Settings, Sources, Zone};
use quorate_proto::{
    endpoints::{self, ServiceEndpoints},
    kinds::{NODES, PODS},
    snapshot::Snapshot,
    txn::Revision,
};
use quorate_traffic::Traffic;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{loops::Snapshots, registration};

/// Who is handed what is derived.
pub(crate) struct Derived {
    /// Answers names; a node whose pods are simulated still does, over QUIC.
    pub names: Names,
    /// How its answers are made.
    pub settings: Arc<Settings>,
    /// Carries connections; a node whose pods are simulated has none to carry.
    pub traffic: Option<Traffic>,
    /// Is told up to which revision all was handed on.
    pub routed: watch::Sender<Revision>,
}

/// What was handed on last.
#[derive(Default, PartialEq, Eq)]
struct Last {
    services: Vec<ServiceEndpoints>,
    pods: Vec<(String, Ipv4Addr)>,
    nodes: Vec<(String, Ipv4Addr)>,
}

impl Derived {
    /// Hands on what is derived from every newer snapshot, until the token is cancelled; from when this node is `known` to the
    /// cluster, since before that nothing may be denied.
    pub(crate) async fn keep(
        self,
        mut snapshots: Snapshots,
        known: impl Future<Output = bool>,
        shutdown: CancellationToken,
    ) {
        if shutdown.run_until_cancelled(known).await != Some(true) {
            return;
        }
        let mut last: Option<Last> = None;
        snapshots.mark_changed();
        while let Some(Ok(())) = shutdown.run_until_cancelled(snapshots.changed()).await {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let next = derive(&snapshot);
            if last.as_ref() != Some(&next) {
                self.publish(&next, &snapshot);
                last = Some(next);
            }
            self.routed.send_replace(snapshot.revision());
        }
    }

    fn publish(&self, next: &Last, snapshot: &Snapshot) {
        if let Some(traffic) = &self.traffic {
            traffic.publish(next.services.as_slice().into());
        }
        let sources = Sources { services: &next.services, pods: &next.pods, nodes: &next.nodes };
        self.names.publish(Arc::new(Zone::build(&self.settings, &sources, snapshot.revision().0)));
    }
}

fn derive(snapshot: &Snapshot) -> Last {
    let pods = snapshot.list(&PODS).filter_map(|stored| {
        let phase = stored.object.text(&["status", "phase"]);
        let address = stored.object.text(&["status", "podIP"])?.parse().ok()?;
        (!matches!(phase, Some("Succeeded" | "Failed"))).then_some((stored.object.namespace()?.to_owned(), address))
    });
    let nodes = snapshot
        .list(&NODES)
        .filter_map(|stored| Some((stored.object.name().to_owned(), registration::ipv4(&stored.object)?)));
    Last { services: endpoints::derive(snapshot), pods: pods.collect(), nodes: nodes.collect() }
}
