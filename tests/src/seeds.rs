//! Runs the same thing from many seeds, on all cores, and says which seeds failed and how to see one again.
//!
//! `SEEDS=1..200` (both included) or `SEED=7` in the environment take the place of the seeds a test brings.
//!
//! Invariant: what a run is depends on its seed alone: not on its thread, nor on the runs beside it.

#![expect(clippy::expect_used, reason = "seeds that are no numbers are a mistake of whoever asked for them")]

use std::{
    any::Any,
    env,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use tracing_subscriber::EnvFilter;

/// The seeds that were asked for, or else these.
///
/// # Panics
/// If what was asked for is no seed and no range of them.
#[must_use]
pub fn chosen(usual: RangeInclusive<u64>) -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    match (env::var("SEED"), env::var("SEEDS")) {
        (Ok(seed), _) => vec![number(&seed)],
        (_, Ok(seeds)) => {
            let (from, to) = seeds.split_once("..").expect("seeds are written 1..200");
            (number(from)..=number(to)).collect()
        }
        _ => usual.collect(),
    }
}

/// What each seed came to: what the run returned, or what it said when it panicked.
#[must_use]
pub fn run<T: Send>(seeds: Vec<u64>, run: impl Fn(u64) -> T + Sync) -> Vec<(u64, Result<T, String>)> {
    let (next, done) = (Mutex::new(seeds.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(seed) = seed else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|panic| said(&*panic));
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(seed, _)| *seed);
    done
}

/// What was said by a panic.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// Shows what `RUST_LOG` asks for, in the order in which it happens.
pub fn log() {
    if env::var_os("RUST_LOG").is_some() {
        // A second run in the same process finds it set.
        drop(tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer().try_init());
    }
}
