//! Invents a story from a seed while it is played: commands, and faults that strike at any time.
//!
//! What is said is written down in the words of a story, so that a run that goes wrong can be read, cut short and kept as a file in
//! `tests/stories`.
//!
//! Invariant: at the end everything is mended, and then all that was acknowledged must be so within [`HEALED`], and the cluster serve.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quorate_proto::request::{Read, Reference, Request};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use super::{Sim, coverage, story};

/// How long after everything is mended all must be as it was asked for.
pub const HEALED: Duration = Duration::from_secs(15);
/// What every run must have seen, or it proves nothing.
pub const WANTED: [&str; 2] = [coverage::ELECTED, coverage::ACKNOWLEDGED];

/// The deployments that stories are about.
const WORKLOADS: [&str; 3] = ["web", "api", "db"];

struct Inventor<'a> {
    sim: Sim,
    random: StdRng,
    told: &'a Mutex<String>,
    it: String,
    led: Option<String>,
    off: BTreeSet<String>,
    /// Hosts that a fault has struck since they were mended.
    struck: BTreeSet<String>,
}

/// Plays a story that the seed invents, and returns what happened in it. `told` holds it as far as it went.
///
/// # Panics
/// If something is wrong on the way, or not as it was asked for at the end.
pub async fn play(seed: u64, sim: Sim, told: &Mutex<String>) -> BTreeSet<String> {
    let random = StdRng::seed_from_u64(seed);
    let mut inventor =
        Inventor { sim, random, told, it: String::new(), led: None, off: BTreeSet::new(), struck: BTreeSet::new() };
    let nodes = if inventor.chance(60) { 3 } else { 5 };
    inventor.say(format!("nodes {nodes}")).await;
    inventor.say("apply web replicas=3".to_owned()).await;
    for _ in 0..inventor.random.random_range(8..20) {
        match inventor.random.random_range(0..100) {
            0..45 => inventor.change().await,
            45..70 => inventor.strike().await,
            _ => inventor.mend().await,
        }
        if inventor.chance(60) {
            let time = inventor.random.random_range(1..6);
            inventor.say(format!("run {time}s")).await;
        }
    }
    inventor.ensure().await;
    inventor.end().await;
    let wrong = inventor.sim.wrong();
    assert!(wrong.is_empty(), "what must always hold did not:\n{}", wrong.join("\n"));
    inventor.sim.coverage()
}

impl Inventor<'_> {
    /// Writes a line down and does what it says.
    async fn say(&mut self, line: String) {
        self.write(&line);
        if let Err(refusal) = story::obey(&mut self.sim, &line, &mut self.it).await {
            let because = refusal.lines().nth(1).unwrap_or_default().trim().to_owned();
            self.write(&format!("# refused {because}"));
        }
        self.look();
    }

    fn write(&self, line: &str) {
        _ = writeln!(self.told.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }

    /// Whether another node leads by now.
    fn look(&mut self) {
        let leader = self.sim.leader();
        if self.led.is_some() && leader.is_some() && leader != self.led {
            self.sim.coverage.note(coverage::ELECTED);
        }
        self.led = leader.or_else(|| self.led.take());
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())].clone()
    }

    /// A host that is on: often the one that leads.
    fn victim(&mut self) -> String {
        match self.sim.leader() {
            Some(leader) if self.chance(40) => leader,
            _ => {
                let on: Vec<String> = self.sim.names().into_iter().filter(|name| !self.off.contains(name)).collect();
                self.pick(&on)
            }
        }
    }

    /// A user wants something else, and asks any node; what strikes next may strike before the answer.
    async fn change(&mut self) {
        self.say("answered".to_owned()).await;
        let via = self.victim();
        let name = self.pick(&WORKLOADS);
        let (count, version) = (self.random.random_range(1..6), self.random.random_range(1..4));
        self.say(format!("via {via}")).await;
        let line = match self.random.random_range(0..100) {
            0..45 => format!("apply {name} replicas={count} image=app:{version}"),
            45..65 => format!("scale {name} {count}"),
            65..85 => format!("configmap {name} value={count}"),
            _ => format!("delete deployment {name}"),
        };
        if !self.chance(40) {
            return self.say(line).await;
        }
        self.say(format!("{line} &")).await;
        let moment = Duration::from_micros(self.random.random_range(0..8000));
        self.sim.pass(moment).await;
        self.strike().await;
    }

    /// Something goes wrong.
    async fn strike(&mut self) {
        let (victim, other) = (self.victim(), self.victim());
        self.struck.insert(victim.clone());
        let line = match self.random.random_range(0..100) {
            0..25 if self.off.len() + 1 < self.sim.names().len() => {
                self.off.insert(victim.clone());
                format!("kill {victim}")
            }
            0..40 => format!("restart {victim}"),
            40..55 => format!("cut {victim}"),
            55..70 if victim != other => format!("block {victim} {other}"),
            55..80 if victim != other => format!("part {victim} {other}"),
            55..90 => format!("freeze {victim}"),
            _ => format!("lossy {}", self.random.random_range(1..30)),
        };
        self.say(line).await;
    }

    /// Something is well again.
    async fn mend(&mut self) {
        let struck: Vec<String> = self.struck.iter().cloned().collect();
        let line = match self.random.random_range(0..100) {
            _ if struck.is_empty() => "lossy 0".to_owned(),
            0..20 => "heal all".to_owned(),
            _ => {
                let name = self.pick(&struck);
                self.struck.remove(&name);
                if self.off.remove(&name) { format!("start {name}") } else { format!("heal {name}") }
            }
        };
        self.say(line).await;
    }

    /// Makes happen what a run must have seen, if chance did not.
    async fn ensure(&mut self) {
        if WANTED.iter().all(|wanted| self.sim.coverage.has(wanted)) {
            return;
        }
        self.heal().await;
        self.say("run 5s".to_owned()).await;
        let leader = self.sim.leader().unwrap_or_else(|| "n1".to_owned());
        self.say(format!("cut {leader}")).await;
        self.say("run 4s".to_owned()).await;
        let other = self.sim.names().into_iter().find(|name| *name != leader).unwrap_or_default();
        self.say(format!("via {other}")).await;
        self.say("configmap late value=1".to_owned()).await;
    }

    async fn heal(&mut self) {
        for line in ["answered", "lossy 0", "heal all", "start all"] {
            self.say(line.to_owned()).await;
        }
        self.off.clear();
        self.struck.clear();
    }

    /// Everything is mended: then all must come to be as it was asked for, and every node write and read.
    async fn end(&mut self) {
        self.heal().await;
        self.say(format!("converge {}s", HEALED.as_secs())).await;
        let names = self.sim.names();
        for round in 0..10 {
            let (writer, reader) = (&names[round % names.len()], &names[(round + 1) % names.len()]);
            self.sim.via(writer);
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"round": round.to_string()},
                "metadata": {"name": format!("last-{round}"), "namespace": "default"}});
            let written = self.sim.apply(map).await;
            self.sim.via(reader);
            let object = Reference {
                kind: "configmap".to_owned(),
                namespace: Some("default".to_owned()),
                name: format!("last-{round}"),
            };
            let read = self.sim.ask(Request::Get { object, read: Read::Linearizable }).await;
            assert!(written.is_ok() && read.is_ok(), "{writer} and {reader} do not serve: {written:?}, {read:?}");
        }
        self.sim.converge(HEALED).await;
    }
}
