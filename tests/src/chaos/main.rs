//! `make chaos`: faults of real processes on real disks, for as long as it is told to.
//!
//! Invariant: it ends with 0 only if nothing was wrong; else what was on the disks is kept, and it says where.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use quorate_tests::{
    chaos::{
        Settings,
        fault::Kind,
        report::{Tally, table},
        run,
    },
    stores::{Failure, cluster::Cluster, etcd, ours, signals},
    tell::tell,
};

const USAGE: &str = "usage: chaos [--minutes N] [--only NAME,NAME...] [--seed S] [--directory DIR] [--etcd]

  --minutes      for how long faults strike: 5
  --only         some of: kill, pause, partition, disk, damage, sync, clock, files
  --seed         chooses the faults: the same, in the same order, on the same roles
  --directory    where the nodes keep their data: a real disk
  --etcd         the same load, and of the faults those that fit, on Debian's etcd besides";

/// What was asked for.
struct Asked {
    settings: Settings,
    directory: PathBuf,
    etcd: bool,
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let settings = Settings { lasts: minutes("5")?, rounds: u64::MAX, kinds: Kind::ALL.to_vec(), seed: 1 };
    let mut asked = Asked { settings, directory: PathBuf::from("/var/tmp"), etcd: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--minutes" => asked.settings.lasts = minutes(&value()?)?,
            "--only" => {
                let kind = |name: &str| Kind::named(name).ok_or(format!("`{name}` is no fault"));
                asked.settings.kinds = value()?.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--seed" => {
                let text = value()?;
                asked.settings.seed = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
            }
            "--directory" => asked.directory = value()?.into(),
            "--etcd" => asked.etcd = true,
            other => return Err(format!("`{other}` is no option")),
        }
    }
    Ok(asked)
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| format!("`{text}`: {error}"))
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            tell(&format!("{error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    // One thread: the clients are to leave the machine to the nodes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended =
        runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(signals::unless_told_to_stop(all(&asked))));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("error: the run did not come to its end\n  because: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it should be.
async fn all(asked: &Asked) -> Result<bool, Failure> {
    let directory = tempfile::Builder::new().prefix("chaos-").tempdir_in(&asked.directory)?;
    let names: Vec<_> = asked.settings.kinds.iter().map(|kind| kind.name()).collect();
    tell(&format!(
        "{}, seed {}, {:.1} minutes of {}, in {}",
        ours::version()?,
        asked.settings.seed,
        asked.settings.lasts.as_secs_f64() / 60.0,
        names.join(", "),
        directory.path().display()
    ));
    let mut tallies: Vec<Tally> = Vec::new();
    tell("── ours");
    tallies
        .push(run(Cluster::Ours(ours::Cluster::start(&directory.path().join("ours")).await?), &asked.settings).await);
    if asked.etcd {
        let mut settings = asked.settings.clone();
        settings.kinds.retain(|kind| kind.fits_etcd());
        tell(&format!("── {}", etcd::version()?));
        tallies.push(run(Cluster::Etcd(etcd::Cluster::start(&directory.path().join("etcd"))?), &settings).await);
    }
    tell(&format!("\n{}", table(&tallies)));
    let good = tallies.iter().all(Tally::is_good);
    if !good {
        let complaints: String = tallies.iter().map(Tally::complaint).collect();
        tell(&format!(
            "{complaints}\nkept: {}\nagain: tools/chaos --seed {}",
            directory.keep().display(),
            asked.settings.seed
        ));
    }
    Ok(good)
}
