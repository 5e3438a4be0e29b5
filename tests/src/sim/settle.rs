//! Waits until a cluster has come to rest, and then looks whether all is as it must be.
//!
//! Invariant: what was acknowledged is so, what is said to run runs, and what runs is somebody's.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    kinds::{DEPLOYMENTS, NODES, PODS, REPLICASETS},
    object::Object,
    txn::Revision,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{PATIENCE, Sim, host::Host};

/// How long nothing may change until the cluster counts as settled.
const CALM: Duration = Duration::from_secs(4);

impl Sim {
    /// Lets time pass until nothing changes any more. Then what was acknowledged must be so, and what is said to run must run.
    ///
    /// # Panics
    /// If the cluster does not settle, or something is wrong then or was before.
    pub async fn settle(&self) {
        let calm = async {
            let mut before = None;
            loop {
                let now = self.agreed();
                if now.is_some() && now == before {
                    return;
                }
                before = now;
                tokio::time::sleep(CALM).await;
            }
        };
        assert!(timeout(PATIENCE, calm).await.is_ok(), "the cluster does not settle:\n{}", self.account());
        self.check().await;
    }

    /// Lets time pass until all is as it was asked for, and stays so; it must become so within `time`.
    ///
    /// # Panics
    /// If it does not, or something is wrong then or was before.
    pub async fn converge(&self, time: Duration) {
        let mut lacks = Vec::new();
        let so = async {
            let mut calm: Option<(Revision, tokio::time::Instant)> = None;
            loop {
                lacks = self.lacking();
                let now = self.agreed().filter(|_| lacks.is_empty());
                match (now, calm) {
                    (Some(now), Some((then, since))) if now == then => {
                        if since.elapsed() >= CALM {
                            return;
                        }
                    }
                    _ => calm = now.map(|now| (now, tokio::time::Instant::now())),
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        let done = timeout(time + CALM, so).await.is_ok();
        assert!(done, "after {time:?} it is not so yet:\n{}{}", lacks.join(""), self.account());
        self.check().await;
    }

    /// Deployments that have not exactly the ready pods they want.
    fn lacking(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let pods = |deployment: &Object| {
            let set = |pod: &Object| {
                pod.controller().and_then(|owner| snapshot.find(&REPLICASETS, pod.namespace(), &owner.name))
            };
            let of = |pod: &Object| set(pod).is_some_and(|set| set.object.is_controlled_by(deployment));
            let (ready, other): (Vec<_>, Vec<_>) =
                snapshot.list(&PODS).filter(|pod| of(&pod.object)).partition(|pod| pod.object.is_true("Ready"));
            (ready.len() as u64, other.len())
        };
        let mut lacking = Vec::new();
        for stored in snapshot.list(&DEPLOYMENTS) {
            let wanted = stored.object.at(&["spec", "replicas"]).and_then(Value::as_u64).unwrap_or(1);
            let (ready, other) = pods(&stored.object);
            if ready != wanted || other > 0 {
                let name = stored.object.name();
                lacking.push(format!("{name} wants {wanted} pods; {ready} are ready, {other} others are there\n"));
            }
        }
        lacking
    }

    /// What was acknowledged must be so, what is said to run must run, and nothing may have been wrong.
    async fn check(&self) {
        let mut wrong = self.acknowledged.broken(&self.snapshot());
        wrong.extend(self.untrue().await);
        wrong.extend(self.wrong());
        assert!(wrong.is_empty(), "what must hold does not:\n{}", wrong.join("\n"));
    }

    /// The revision that all hosts have, if somebody leads, and all that are on and not cut off are well and have no pod left to end.
    fn agreed(&self) -> Option<Revision> {
        let leader = self.host(&self.leader()?).snapshot();
        let well = |host: &Host| match leader.find(&NODES, None, host.name()) {
            Some(node) => node.object.is_true("Ready") && host.snapshot().revision() == leader.revision(),
            None => true,
        };
        let ending = |host: &Host| {
            let leaving = |pod: &Object| {
                pod.deletion_timestamp().is_some() && pod.text(&["spec", "nodeName"]) == Some(host.name())
            };
            leader.list(&PODS).any(|pod| leaving(&pod.object))
        };
        self.reachable().all(|host| well(host) && !ending(host)).then(|| leader.revision())
    }

    /// Pods that are said to be ready and do not run, and containers that run and are nobody's, on hosts that are heard.
    async fn untrue(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let mut untrue = Vec::new();
        for host in self.reachable().filter(|host| snapshot.find(&NODES, None, host.name()).is_some()) {
            let bound = snapshot.list(&PODS).filter(|pod| pod.object.text(&["spec", "nodeName"]) == Some(host.name()));
            let mut bound: BTreeMap<_, _> = bound.map(|pod| (pod.object.uid(), pod)).collect();
            for container in host.containers().await {
                if bound.remove(container.pod.uid.as_str()).is_none() {
                    untrue.push(format!("{} runs {}, which is bound to no pod of it", host.name(), container.pod.name));
                }
            }
            let idle = bound.into_values().filter(|pod| pod.object.is_true("Ready"));
            untrue.extend(idle.map(|pod| format!("{} is said to be ready and does not run", pod.object.name())));
        }
        untrue
    }
}
