//! What goes wrong, and when: faults of network, processes, disks and clocks, and changes of membership, drawn from the seed.
//!
//! A run has only some kinds of faults, and those often: so that rare combinations come up that a run with everything would drown.
//!
//! Invariant: a fault that strikes nobody is not noted as having happened.

use std::time::Duration;

use quorate_proto::ids::NodeId;
use quorate_raft::Trouble;
use rand::{RngExt as _, rngs::StdRng};

use super::{World, wire::USUAL};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    OneWay,
    Part,
    Flap,
    Slow,
    Loss,
    Twice,
    Kill,
    KillAll,
    Stop,
    Freeze,
    SlowDisk,
    SyncFails,
    Full,
    Unreadable,
    Join,
    Leave,
    Wipe,
    Transfer,
}

const KINDS: [Kind; 19] = [
    Kind::Cut,
    Kind::OneWay,
    Kind::Part,
    Kind::Flap,
    Kind::Slow,
    Kind::Loss,
    Kind::Twice,
    Kind::Kill,
    Kind::KillAll,
    Kind::Stop,
    Kind::Freeze,
    Kind::SlowDisk,
    Kind::SyncFails,
    Kind::Full,
    Kind::Unreadable,
    Kind::Join,
    Kind::Leave,
    Kind::Wipe,
    Kind::Transfer,
];

/// What ends at a time.
enum Mend {
    Heal(NodeId),
    Start(NodeId),
    Thaw(NodeId),
    Disk(NodeId),
    Usual,
}

/// The faults of a run.
pub(super) struct Troubles {
    kinds: Vec<Kind>,
    next: u64,
    mends: Vec<(u64, Mend)>,
    /// Between two faults, in ticks, at most.
    pause: u64,
}

impl Troubles {
    pub(super) fn new(random: &mut StdRng) -> Self {
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.random_range(0..10) < 4).collect();
        kinds.extend([Kind::Cut, Kind::Kill].into_iter().filter(|_| random.random_range(0..2) == 0));
        if kinds.is_empty() {
            kinds.push(Kind::Kill);
        }
        Self { kinds, next: 0, mends: Vec::new(), pause: random.random_range(60..600) }
    }

    /// Mends what is due, and strikes when it is time.
    pub(super) fn step(&mut self, world: &mut World) {
        let now = world.now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        for (_, mend) in due {
            apply(world, &mend);
        }
        self.restart(world);
        if now >= self.next {
            self.next = now + world.random.random_range(10..self.pause);
            let kind = self.kinds[world.random.random_range(0..self.kinds.len())];
            self.strike(world, kind);
        }
    }

    /// Everything is mended.
    pub(super) fn end(&mut self, world: &mut World) {
        for (_, mend) in std::mem::take(&mut self.mends) {
            apply(world, &mend);
        }
        apply(world, &Mend::Usual);
        for node in world.hosts.keys().copied().collect::<Vec<_>>() {
            for mend in [Mend::Heal(node), Mend::Thaw(node), Mend::Disk(node)] {
                apply(world, &mend);
            }
        }
        self.restart(world);
    }

    /// A process whose disk has failed ends, and is started anew a little later.
    fn restart(&mut self, world: &mut World) {
        let failed = |node: &NodeId| {
            let running = world.hosts[node].running.as_ref();
            running.is_some_and(|running| running.store.status().borrow().fault.is_some())
        };
        let failed: Vec<NodeId> = world.hosts.keys().filter(|node| failed(node)).copied().collect();
        for node in failed {
            if !world.hosts[&node].excused {
                continue;
            }
            world.note("a store stopped because its disk failed", node);
            world.kill(node);
            self.mends.push((world.now(), Mend::Disk(node)));
            self.later(world, 20..400, Mend::Start(node));
        }
    }

    fn later(&mut self, world: &mut World, ticks: std::ops::Range<u64>, mend: Mend) {
        let at = world.now() + world.random.random_range(ticks);
        self.mends.push((at, mend));
    }

    fn strike(&mut self, world: &mut World, kind: Kind) {
        let Some(victim) = victim(world) else { return };
        let Some(other) = victim_but(world, victim) else { return };
        let leads = world.leader() == Some(victim);
        match kind {
            Kind::Cut => {
                world.note(if leads { "a leader was cut off" } else { "a follower was cut off" }, victim);
                world.wire.change(|faults| faults.cut(victim));
                self.later(world, 20..1600, Mend::Heal(victim));
            }
            Kind::OneWay => {
                world.note("a node was not heard by another", victim);
                world.wire.change(|faults| faults.block(victim, other));
                self.later(world, 20..1600, Mend::Heal(victim));
            }
            Kind::Part => {
                world.note("two nodes were parted", victim);
                world.wire.change(|faults| {
                    faults.block(victim, other);
                    faults.block(other, victim);
                });
                self.later(world, 20..1600, Mend::Heal(victim));
            }
            Kind::Flap => {
                world.note("a link came and went", victim);
                world.wire.change(|faults| faults.cut(victim));
                self.later(world, 10..100, Mend::Heal(victim));
                self.next = world.now() + world.random.random_range(10..100);
            }
            Kind::Slow => {
                world.note("messages were slow", victim);
                let slowest = world.random.random_range(10_000..200_000);
                world.wire.set_latency(1_000..slowest);
                self.later(world, 100..1000, Mend::Usual);
            }
            Kind::Loss => {
                world.note("packets were lost", victim);
                let percent = world.random.random_range(1..50);
                world.wire.change(|faults| faults.lose(percent));
                self.later(world, 100..1000, Mend::Usual);
            }
            Kind::Twice => {
                world.note("requests arrived twice", victim);
                world.wire.set_twice(30);
                self.later(world, 100..1000, Mend::Usual);
            }
            Kind::Kill => {
                world.note(if leads { "a leader was killed" } else { "a follower was killed" }, victim);
                world.kill(victim);
                self.later(world, 10..1000, Mend::Start(victim));
            }
            Kind::KillAll => {
                world.note("all were killed", victim);
                for node in world.hosts.keys().copied().collect::<Vec<_>>() {
                    if world.hosts[&node].running.is_some() {
                        world.kill(node);
                        self.later(world, 10..400, Mend::Start(node));
                    }
                }
            }
            Kind::Stop => {
                world.note("a store was shut down", victim);
                if let Some(running) = &world.hosts[&victim].running {
                    let store = running.store.clone();
                    running.tasks.spawn_on(async move { store.shutdown().await }, running.runtime.handle());
                }
                world.hosts.get_mut(&victim).expect("a host").stopping = true;
                // It is switched off when it has had the time to hand over.
                let at = world.now() + world.random.random_range(100..1000);
                self.mends.push((at, Mend::Start(victim)));
            }
            Kind::Freeze => {
                world.note(if leads { "a leader was frozen" } else { "a follower was frozen" }, victim);
                world.wire.change(|faults| faults.freeze(victim));
                world.hosts.get_mut(&victim).expect("a host").freeze();
                self.later(world, 20..2000, Mend::Thaw(victim));
            }
            Kind::SlowDisk => {
                world.note("a disk was slow", victim);
                let delay = Duration::from_millis(world.random.random_range(5..500));
                world.hosts.get_mut(&victim).expect("a host").set_trouble(Trouble { delay, ..Trouble::default() });
                self.later(world, 100..2000, Mend::Disk(victim));
            }
            Kind::SyncFails => {
                let trouble = Trouble { sync_fails: true, ..Trouble::default() };
                world.hosts.get_mut(&victim).expect("a host").set_trouble(trouble);
            }
            Kind::Full => {
                world.note("a disk was full", victim);
                world.hosts.get_mut(&victim).expect("a host").set_trouble(Trouble { full: true, ..Trouble::default() });
            }
            Kind::Unreadable => {
                let trouble = Trouble { unreadable: true, ..Trouble::default() };
                world.hosts.get_mut(&victim).expect("a host").set_trouble(trouble);
                self.later(world, 10..200, Mend::Disk(victim));
            }
            Kind::Join if world.registered.len() < 6 => {
                world.note("a node joined", victim);
                world.add();
            }
            Kind::Leave if world.registered.len() > 3 && world.is_whole() => {
                world.note("a node left", victim);
                world.registered.remove(&victim);
            }
            Kind::Wipe if world.registered.len() < 6 && world.registered.len() > 2 && world.is_whole() => {
                world.note("a disk was lost, and its node came back as another", victim);
                world.kill(victim);
                world.registered.remove(&victim);
                world.lost.insert(victim);
                world.add();
            }
            Kind::Transfer => {
                if let (true, Some(running)) = (leads, &world.hosts[&victim].running) {
                    let store = running.store.clone();
                    let transfer = async move { drop(store.transfer(other).await) };
                    running.tasks.spawn_on(transfer, running.runtime.handle());
                    world.note("a leader handed over", other);
                }
            }
            Kind::Join | Kind::Leave | Kind::Wipe => {}
        }
    }
}

fn apply(world: &mut World, mend: &Mend) {
    match mend {
        Mend::Heal(node) => world.wire.change(|faults| faults.heal(*node)),
        Mend::Start(node) => {
            if std::mem::take(&mut world.hosts.get_mut(node).expect("a host").stopping) {
                world.kill(*node);
            }
            if !world.lost.contains(node) {
                world.start(*node);
            }
        }
        Mend::Thaw(node) => {
            world.wire.change(|faults| faults.heal(*node));
            world.hosts.get_mut(node).expect("a host").thaw();
        }
        Mend::Disk(node) => world.hosts.get_mut(node).expect("a host").set_trouble(Trouble::default()),
        Mend::Usual => {
            world.wire.set_latency(USUAL);
            world.wire.set_twice(0);
            world.wire.change(|faults| faults.lose(0));
        }
    }
}

/// A node that acts: often the one that leads.
fn victim(world: &mut World) -> Option<NodeId> {
    let acting: Vec<NodeId> = world
        .hosts
        .values()
        .filter(|host| host.acts() && !host.stopping && world.registered.contains(&host.id))
        .map(|host| host.id)
        .collect();
    match world.leader() {
        Some(leader) if acting.contains(&leader) && world.random.random_range(0..100) < 40 => Some(leader),
        _ if acting.is_empty() => None,
        _ => Some(acting[world.random.random_range(0..acting.len())]),
    }
}

fn victim_but(world: &mut World, not: NodeId) -> Option<NodeId> {
    let others: Vec<NodeId> = world.registered.iter().filter(|node| **node != not).copied().collect();
    (!others.is_empty()).then(|| others[world.random.random_range(0..others.len())])
}
