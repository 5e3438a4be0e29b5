//! How long members take, of late, until entries are on their disks.
//!
//! Measured where entries are sent anyway, so that measuring costs nothing; an idle cluster measures nothing and keeps what it knew.
//!
//! Invariant: one slow write among quick ones changes nothing: what counts is the middle one of the last three.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quorate_proto::ids::NodeId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long each of the other members takes.
#[derive(Debug, Default)]
pub(crate) struct Delays(Mutex<BTreeMap<NodeId, Recent>>, Mutex<Spread>);

/// How long this node takes itself.
#[derive(Debug, Default)]
pub(crate) struct Delay(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    recent: Recent,
    began: Option<Instant>,
    all: Spread,
}

/// How often something took how long: counts by size, each at most a quarter larger than the one before.
#[derive(Debug, Default)]
pub(crate) struct Spread(BTreeMap<u32, u64>);

/// The last three times.
#[derive(Debug, Default, Clone)]
struct Recent(VecDeque<Duration>);

impl Delays {
    /// A member took so long.
    pub(crate) fn note(&self, node: NodeId, took: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(node).or_default().note(took);
    }

    /// How long a member takes; `None` before it was measured three times.
    pub(crate) fn of(&self, node: NodeId) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node)?.middle()
    }

    /// A heartbeat took so long there and back.
    pub(crate) fn note_round_trip(&self, took: Duration) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).note(took);
    }

    /// What half of the round trips stayed below, so that heartbeats that waited for a disk do not count; `None` before there were enough.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).below(500)
    }
}

impl Delay {
    /// Something is about to be written.
    pub(crate) fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).began = Some(Instant::now());
    }

    /// It is written.
    pub(crate) fn end(&self) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(took) = own.began.take().map(|began| began.elapsed()) {
            own.recent.note(took);
            own.all.note(took);
        }
    }

    /// How long it takes; `None` before it was measured three times. What is still being written counts for the time it has taken, if
    /// that is longer than what it would push out.
    pub(crate) fn now(&self) -> Option<Duration> {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = own.recent.middle()?;
        let mut with_this = own.recent.clone();
        with_this.note(own.began.map_or(Duration::ZERO, |began| began.elapsed()));
        with_this.middle().map(|middle| middle.max(known))
    }

    /// What all but one in a thousand stayed below; `None` before there were enough of them.
    pub(crate) fn nearly_all(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all.below(999)
    }
}

impl Spread {
    /// So few say nothing.
    const ENOUGH: u64 = 200;

    pub(crate) fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
        // Two bits after the first one: 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …
        let shift = 61 - micros.leading_zeros();
        let size = shift * 4 + u32::try_from((micros >> shift) & 3).unwrap_or_default();
        *self.0.entry(size).or_default() += 1;
    }

    /// What so many of a thousand stayed below; `None` if there were too few.
    pub(crate) fn below(&self, permille: u64) -> Option<Duration> {
        let count: u64 = self.0.values().sum();
        let mut wanted = (count * permille).div_ceil(1000);
        let counted = |(_, count): &(&u32, &u64)| {
            wanted = wanted.saturating_sub(**count);
            wanted == 0
        };
        let (size, _) = self.0.iter().find(counted).filter(|_| count >= Self::ENOUGH)?;
        let next = size + 1;
        Some(Duration::from_micros(u64::from(4 + next % 4) << (next / 4)))
    }
}

impl Recent {
    fn note(&mut self, took: Duration) {
        self.0.truncate(2);
        self.0.push_front(took);
    }

    fn middle(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(1).copied().filter(|_| sorted.len() == 3)
    }
}

/// What was sent on a pipe and is not acknowledged.
#[derive(Debug)]
pub(crate) struct Outstanding {
    queue: Mutex<Queue>,
    filled: Notify,
    limit: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    sent: VecDeque<Instant>,
    /// When there last was an acknowledgement, or none was due.
    moved: Option<Instant>,
}

impl Outstanding {
    /// Nothing yet. A pipe on which nothing is acknowledged for `limit` though something is due is [`Outstanding::overdue`].
    pub(crate) fn new(limit: Duration) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), limit }
    }

    /// Something is about to be sent.
    pub(crate) fn send(&self) {
        let now = Instant::now();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.sent.is_empty() {
            queue.moved = Some(now);
            self.filled.notify_one();
        }
        queue.sent.push_back(now);
    }

    /// The oldest was acknowledged; how long that took.
    pub(crate) fn acknowledge(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.moved = Some(now);
        queue.sent.pop_front().map(|sent| now.duration_since(sent))
    }

    /// Waits until nothing was acknowledged for too long.
    pub(crate) async fn overdue(&self) {
        loop {
            let due = {
                let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.moved.filter(|_| !queue.sent.is_empty()).map(|moved| moved + self.limit)
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => sleep_until(due).await,
                None => self.filled.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_write_among_quick_ones_is_no_slow_disk() {
        let delays = Delays::default();
        let took = |millis: u64| {
            delays.note(NodeId(1), Duration::from_millis(millis));
            delays.of(NodeId(1)).map(|delay| delay.as_millis())
        };
        let told = [2, 3, 2, 900, 2, 900, 900, 2, 2].map(took);
        assert_eq!(told, [None, None, Some(2), Some(3), Some(2), Some(900), Some(900), Some(900), Some(2)]);
    }

    #[test]
    fn what_nearly_all_writes_stay_below_is_known_to_a_quarter() {
        let mut spread = Spread::default();
        (1..=199_u64).for_each(|micros| spread.note(Duration::from_micros(micros * 10)));
        assert_eq!(spread.below(500), None, "too few");
        (200..=1000_u64).for_each(|micros| spread.note(Duration::from_micros(micros * 10)));
        for (permille, exact) in [(1, 10), (500, 5000), (990, 9900), (999, 9990), (1000, 10_000)] {
            let told = spread.below(permille).unwrap().as_micros();
            assert!(told >= exact && told * 4 <= exact * 5 + 8, "{permille}: {told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_became_slow_is_noticed_during_its_second_slow_write() {
        let delay = Delay::default();
        let write = async |millis: u64| {
            delay.begin();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let told = delay.now().map(|delay| delay.as_millis());
            delay.end();
            told
        };
        assert_eq!([write(2).await, write(2).await, write(2).await], [None; 3]);
        assert_eq!([write(2000).await, write(150).await], [Some(2), Some(150)]);
        assert_eq!([write(2).await, write(2).await, write(2).await], [Some(150), Some(150), Some(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_moves_is_never_overdue_and_one_that_stands_still_is() {
        let pipe = Outstanding::new(Duration::from_secs(3));
        let idle = tokio::time::timeout(Duration::from_secs(60), pipe.overdue()).await;
        assert!(idle.is_err(), "nothing is due");
        for _ in 0..10 {
            pipe.send();
            pipe.send();
            let moving = tokio::time::timeout(Duration::from_secs(2), pipe.overdue()).await;
            assert!(moving.is_err(), "there is time left");
            pipe.acknowledge();
        }
        let began = Instant::now();
        pipe.overdue().await;
        assert_eq!(began.elapsed(), Duration::from_secs(3));
    }
}
