//! The runtime openraft is told to use: tokio, with random numbers from one seed, and with fewer awakenings.
//!
//! openraft wakes five times between two heartbeats to look whether one is due, and so does every node that only listens: most of what an
//! idle node would do. That wait is made by [`AsyncRuntime::sleep_until`], as is one more, of a microsecond, which stays as it is.
//!
//! Invariant: a heartbeat is late by less than [`LEAST`], and no wait ends before what it waits for: whoever looks again would find the
//! same time, and look forever where time passes only while nobody runs.

use std::{cell::Cell, future::Future, io, time::Duration};

use openraft_rt::{
    AsyncRuntime, Instant, OptionalSend, Select2, Select3, Select4, deterministic_rng::DeterministicRng,
    task_local::TaskLocalFuture,
};
use openraft_rt_tokio::TokioRuntime;

type Seeded = DeterministicRng<TokioRuntime>;

/// Between two looks at what is due. Half of the shortest heartbeat, and a little more, so that the second look finds it due.
const LEAST: Duration = Duration::from_millis(38);

/// What is due within this is waited for as it is.
const SOON: Duration = Duration::from_millis(1);

/// Where openraft's tasks run.
#[derive(Debug)]
pub(crate) struct Runtime(Seeded);

impl Runtime {
    /// Has openraft's random numbers, within a future and what it spawns, follow from a seed.
    pub(crate) fn scope<F: Future>(seed: u64, future: F) -> TaskLocalFuture<Cell<u64>, F> {
        Seeded::scope(seed, future)
    }
}

/// How long is waited for what is due after `left`.
fn wait(left: Duration) -> Duration {
    if left < SOON { left } else { left.max(LEAST) }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Seeded as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Seeded as AsyncRuntime>::Sleep;
    type Instant = <Seeded as AsyncRuntime>::Instant;
    type TimeoutError = <Seeded as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Seeded as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Seeded as AsyncRuntime>::Mpsc;
    type Watch = <Seeded as AsyncRuntime>::Watch;
    type Oneshot = <Seeded as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::Mutex<T>;

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = Self::Instant::now();
        Seeded::sleep_until(now + wait(deadline.saturating_duration_since(now)))
    }

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Seeded::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Seeded::sleep(duration)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout_at(deadline, future)
    }

    fn select2<A, B>(a: A, b: B) -> impl Future<Output = Select2<A::Output, B::Output>> + OptionalSend
    where
        A: Future + OptionalSend,
        B: Future + OptionalSend,
    {
        Seeded::select2(a, b)
    }

    fn select3<A, B, C>(
        a: A,
        b: B,
        c: C,
    ) -> impl Future<Output = Select3<A::Output, B::Output, C::Output>> + OptionalSend
    where
        A: Future + OptionalSend,
        B: Future + OptionalSend,
        C: Future + OptionalSend,
    {
        Seeded::select3(a, b, c)
    }

    fn select4<A, B, C, D>(
        a: A,
        b: B,
        c: C,
        d: D,
    ) -> impl Future<Output = Select4<A::Output, B::Output, C::Output, D::Output>> + OptionalSend
    where
        A: Future + OptionalSend,
        B: Future + OptionalSend,
        C: Future + OptionalSend,
        D: Future + OptionalSend,
    {
        Seeded::select4(a, b, c, d)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Seeded::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Seeded::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Seeded::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Seeded::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    #[test]
    fn the_second_look_after_a_heartbeat_finds_the_next_one_due() {
        assert!(LEAST * 2 > Timing::QUICK.heartbeat && wait(Duration::from_millis(15)) == LEAST);
        assert!(LEAST + Timing::QUICK.heartbeat < Timing::QUICK.election_min, "one that is late is in time");
        assert_eq!(wait(Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_ends_before_what_it_waits_for() {
        type Instant = <Runtime as AsyncRuntime>::Instant;
        for microseconds in [1, 300, 999, 15_000, 50_000] {
            let due = Instant::now() + Duration::from_micros(microseconds);
            Runtime::sleep_until(due).await;
            assert!(Instant::now() >= due, "{microseconds} µs");
        }
    }
}
