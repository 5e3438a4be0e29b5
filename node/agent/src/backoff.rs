//! When to try again what failed: 10 s, doubling to 5 min, as the kubelet does (pure).
//!
//! Invariant: the first failure is tried again at once when it was a container that ran, and after 10 s when it was not (a pull).

use std::time::Duration;

use quorate_proto::world::Instant;

/// The first wait.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// What went well for so long is forgiven its past.
pub(crate) const RESET: Duration = Duration::from_secs(600);

/// How often something failed lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    wait: Duration,
    last: Instant,
}

impl Backoff {
    /// Notes a failure, or a restart after one: the next wait is twice as long.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.forgive(now);
        self.wait = if self.wait.is_zero() { FIRST } else { (self.wait * 2).min(LONGEST) };
        self.last = now;
    }

    /// Forgets everything if nothing was noted for long enough.
    pub(crate) fn forgive(&mut self, now: Instant) {
        if now.since(self.last) >= RESET {
            self.wait = Duration::ZERO;
        }
    }

    /// The earliest time to try again, after a failure at `since`.
    #[must_use]
    pub(crate) fn until(&self, since: Instant) -> Instant {
        since + self.wait
    }

    /// The present wait; zero if nothing failed lately.
    #[must_use]
    pub(crate) const fn wait(&self) -> Duration {
        self.wait
    }
}

/// How a wait is written in messages: `10s`, `1m20s`, `5m0s`, as Go writes durations.
#[must_use]
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(1_000 + seconds))
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..7)
            .map(|second| {
                backoff.failed(at(second));
                backoff.wait().as_secs()
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn what_has_not_failed_yet_is_tried_at_once() {
        assert_eq!(Backoff::default().until(at(5)), at(5));
    }

    #[test]
    fn ten_good_minutes_are_forgiveness() {
        let mut backoff = Backoff::default();
        backoff.failed(at(0));
        backoff.failed(at(10));
        backoff.forgive(at(609));
        assert_eq!(backoff.wait().as_secs(), 20);
        backoff.failed(at(610));
        assert_eq!(backoff.wait().as_secs(), 10);
    }

    #[test]
    fn a_wait_is_written_as_go_does() {
        let texts = [10, 80, 300, 3_700].map(|seconds| go_duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["10s", "1m20s", "5m0s", "1h1m40s"]);
    }
}
