//! Real time, for what happens on real hosts: waiting until something is so, with a deadline.
//!
//! Invariant: nobody sleeps for luck; who waits in vain says for what, and what was there instead.

#![expect(clippy::disallowed_methods, reason = "real hosts live in real time")]

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

/// This moment.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass that is itself what the story is about: a token's lifetime, a minute of idleness.
pub fn pass(time: Duration) {
    thread::sleep(time);
}

/// Looks until what is wanted is there; the error of `look` says what was there instead.
///
/// # Panics
/// If it is not so in time.
pub fn until<T>(wanted: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) if now() >= deadline => {
                panic!("waited {} s in vain for {wanted}; instead: {instead}", patience.as_secs())
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// `Ok` if it is so, else what was there instead.
///
/// # Errors
/// If it is not so.
pub fn so(is: bool, instead: impl Into<String>) -> Result<(), String> {
    if is { Ok(()) } else { Err(instead.into()) }
}

/// `1.3 s`: how long it is since.
#[must_use]
pub fn since(begun: Instant) -> String {
    seconds(begun.elapsed())
}

/// `1.3 s`
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
