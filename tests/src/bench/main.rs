//! The store against etcd: the same load, client, keys, values and disk for both, in turns, and one table of what came of it.
//!
//! ```text
//! three quorate daemons (release, simulated pods)  ─┐
//!                                                   ├─ on loopback, same disk, fsync on ─ one closed-loop client, one thread
//! three etcd members (Debian's, its defaults)      ─┘
//! ```
//!
//! `make bench-store` runs all of it, `tools/bench-store --quick` the short form; `--only NAME,NAME` some of it.
//!
//! Invariant: whatever is compared was measured in turns (ours, etcd, etcd, ours, …), and what is told is the median of the pairs' ratios.

use std::{path::PathBuf, process::ExitCode, time::Duration};

mod audit;
mod cluster;
mod failover;
mod load;
mod machine;
mod plan;
mod report;
mod rest;
mod watching;

use cluster::Both;
use plan::Plan;
use quorate_tests::{
    stores::{Failure, signals},
    tell::tell,
};
use report::Report;

const USAGE: &str = "usage: bench-store [--quick] [--only NAME,NAME...] [--pairs N] [--seconds N] [--directory DIR]

  --quick        at most 5 minutes instead of 40
  --only         some of: puts, large, mixed, gets, watch, idle, memory, kill, stop, start, audit
  --pairs        so many pairs of legs
  --seconds      a leg lasts so long
  --directory    where both sides keep their data: the disk that is measured";

/// What was asked for.
struct Asked {
    plan: Plan,
    directory: PathBuf,
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (mut plan, mut directory) = (Plan::full(), PathBuf::from("/var/tmp"));
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u32>().map_err(|error| format!("`{text}`: {error}"));
        match word.as_str() {
            "--quick" => plan = Plan { only: plan.only, ..Plan::quick() },
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            "--pairs" => plan.pairs = number(value()?)?.max(1),
            "--seconds" => plan.leg = Duration::from_secs(number(value()?)?.max(1).into()),
            "--directory" => directory = value()?.into(),
            other => return Err(format!("`{other}` is no option")),
        }
    }
    match plan.unknown() {
        Some(name) => Err(format!("`{name}` is no part of the benchmark")),
        None => Ok(Asked { plan, directory }),
    }
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            tell(&format!("{error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    // One thread: the client is to cost little, and the same on both sides.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended =
        runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(signals::unless_told_to_stop(run(&asked))));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: the benchmark did not come to its end\n  because: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(asked: &Asked) -> Result<(), Failure> {
    let directory = tempfile::Builder::new().prefix("bench-store-").tempdir_in(&asked.directory)?;
    let mut report = Report::default();
    let mut both = Both::start(directory.path()).await?;
    tell(&both.describe()?);
    for part in asked.plan.parts() {
        tell(&format!("── {part}"));
        match part {
            "idle" => rest::idle(&both, &asked.plan, &mut report).await?,
            "puts" | "large" | "mixed" | "gets" => {
                for load in asked.plan.loads(part) {
                    load::compare(&both, &asked.plan, &load, &mut report).await?;
                }
            }
            "watch" => watching::compare(&both, &asked.plan, &mut report).await?,
            "memory" => rest::memory(&both, &asked.plan, &mut report).await?,
            "kill" => failover::compare(&mut both, &asked.plan, failover::How::Killed, &mut report).await?,
            "stop" => failover::compare(&mut both, &asked.plan, failover::How::Stopped, &mut report).await?,
            "start" => rest::start(directory.path(), &asked.plan, &mut report).await?,
            "audit" => audit::both(&mut both, &mut report).await?,
            _ => {}
        }
    }
    both.stop().await?;
    tell(&report.table());
    Ok(())
}
