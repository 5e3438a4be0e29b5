//! How much strangers may ask of this node. Pure, but for the guards that give back what was taken.
//!
//! Invariant: what is counted per address is forgotten when nothing of it is left, so that counting itself cannot fill the memory.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_proto::world::Instant;

/// Joins tried per address and minute.
pub(crate) const JOINS_PER_MINUTE: usize = 5;
/// Joins under way at a time.
pub(crate) const JOINS_PENDING: usize = 64;
/// Connections a stranger may have from one address.
pub(crate) const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Addresses whose joins are remembered.
const REMEMBERED: usize = 4096;

const MINUTE: Duration = Duration::from_secs(60);

/// Joins tried lately, by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    lately: BTreeMap<IpAddr, Vec<Instant>>,
}

impl Attempts {
    /// Counts an attempt; `false` if it is one too many.
    pub(crate) fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        self.lately.retain(|_, tried| {
            tried.retain(|at| now.since(*at) < MINUTE);
            !tried.is_empty()
        });
        let known = self.lately.contains_key(&address);
        if !known && self.lately.len() >= REMEMBERED {
            return false;
        }
        let tried = self.lately.entry(address).or_default();
        let allowed = tried.len() < JOINS_PER_MINUTE;
        if allowed {
            tried.push(now);
        }
        allowed
    }
}

/// Counts what is under way, by address and in all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

impl Gauge {
    /// Takes one, if there are fewer than `each` of this address and fewer than `all` altogether.
    pub(crate) fn enter(&self, address: IpAddr, each: usize, all: usize) -> Option<Entered> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= all || counts.get(&address).copied().unwrap_or(0) >= each {
            return None;
        }
        *counts.entry(address).or_default() += 1;
        Some(Entered { gauge: self.clone(), address })
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// Gives back what was taken when it is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    gauge: Gauge,
    address: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.gauge.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn the_sixth_join_within_a_minute_waits_for_the_next_one() {
        let (mut attempts, start) = (Attempts::default(), Instant::default());
        for _ in 0..JOINS_PER_MINUTE {
            assert!(attempts.allow(HERE, start));
        }
        assert!(!attempts.allow(HERE, start + MINUTE - Duration::from_nanos(1)));
        assert!(attempts.allow(THERE, start), "others are not held up");
        assert!(attempts.allow(HERE, start + MINUTE));
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let (mut attempts, start) = (Attempts::default(), Instant::default());
        let allowed = (0..10_000_u32).filter(|n| attempts.allow(IpAddr::V4((*n).into()), start)).count();
        assert_eq!((allowed, attempts.lately.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn what_was_taken_is_given_back() {
        let gauge = Gauge::default();
        let one = gauge.enter(HERE, 1, 2);
        assert!(one.is_some() && gauge.enter(HERE, 1, 2).is_none());
        let two = gauge.enter(THERE, 1, 2);
        assert!(two.is_some() && gauge.enter(IpAddr::V4(3.into()), 1, 2).is_none());
        drop((one, two));
        assert_eq!(gauge.count(), 0);
        assert!(gauge.enter(HERE, 1, 2).is_some());
    }
}
