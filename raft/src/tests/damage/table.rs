//! Bits flipped, ends cut off, sectors zeroed and files removed, in every file of a store that was killed or closed.
//!
//! `QUORATE_DAMAGE=20` makes it twenty times as many places in each file.
//!
//! Invariant: what was acknowledged is all there, or the store says that it is damaged. It is never short, and never new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::RaftLogReader as _;
use quorate_proto::{
    ids::{NodeId, RequestId},
    txn::{Document, Outcome, Revision, Txn},
};

use super::copy_tree;
use crate::{
    Config, LogLimits, Storage, Store, Timing,
    engine::look,
    machine,
    open::{self, Opened},
    scrub,
    tests::fixture::{CLUSTER, document, key, open_with},
};

/// Keys and values at each revision.
type Model = Vec<BTreeMap<String, Document>>;

fn config() -> Config {
    // A snapshot is made, and the log before it purged.
    let log = LogLimits { bytes: u64::MAX, entries: 12, keep: 4 };
    Config { log, ..Config::new(CLUSTER, NodeId(1), Timing::QUICK) }
}

async fn write(store: &Store, model: &mut Model, count: u64) {
    for _ in 0..count {
        let number = model.len() as u64;
        let mut now = model.last().cloned().unwrap_or_default();
        let (name, value) = (format!("k{}", number % 9), document(&number.to_string().repeat(40)));
        let mut txn = Txn::new().put(key(&name), value.clone());
        now.insert(name, value);
        let gone = format!("k{}", (number + 3) % 9);
        if number.is_multiple_of(4) && now.remove(&gone).is_some() {
            txn = txn.delete(key(&gone));
        }
        let outcome = store.propose(RequestId(number.into()), txn).await.unwrap();
        assert_eq!(outcome, Outcome::Applied(Revision(number)));
        model.push(now);
    }
}

/// A directory with files of every kind, as a killed process leaves it, and as a closed one does.
async fn directories(directory: &Path) -> (BTreeMap<&'static str, PathBuf>, Model) {
    let (live, killed) = (directory.join("live"), directory.join("killed"));
    let mut model = vec![BTreeMap::new()];
    for life in 1..=3 {
        let store = open_with(config(), Storage::Disk(live.clone())).await.unwrap();
        store.initialize().await.unwrap();
        store.status().wait_for(|status| status.leading).await.unwrap();
        write(&store, &mut model, 10).await;
        if life == 3 {
            copy_tree(&live, &killed);
        }
        store.shutdown().await;
    }
    (BTreeMap::from([("closed", live), ("killed", killed)]), model)
}

/// One case: what is done to which file.
#[derive(Clone, Copy)]
enum Damage {
    Flip(usize, u8),
    Zero(usize),
    Cut(usize),
    Remove,
}

/// Cases for a file of a length, always the same ones.
fn damages(length: usize, more: usize) -> Vec<Damage> {
    let mut cases = vec![Damage::Remove, Damage::Cut(0)];
    let places =
        |count: usize, salt: usize| (0..count).map(move |step| (step * length / count + salt * step) % length.max(1));
    if length > 0 {
        cases.extend(places(10 * more, 7).enumerate().map(|(step, at)| Damage::Flip(at, (step % 8) as u8)));
        cases.extend(places(2 * more, 11).map(Damage::Zero));
        cases.extend(places(4 * more, 13).skip(1).map(Damage::Cut));
    }
    cases
}

fn inflict(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    match damage {
        Damage::Flip(at, bit) => bytes[at] ^= 1 << bit,
        Damage::Zero(at) => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
        }
        Damage::Cut(at) => bytes.truncate(at),
        Damage::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

/// What a store comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Complete,
    /// At open, or when it is read.
    Fenced,
}

/// What a directory comes to; otherwise what is wrong with that.
async fn verdict(path: &Path, model: &Model) -> Result<Verdict, String> {
    let opened = match open::open(&config(), Storage::Disk(path.to_path_buf())) {
        Ok(opened) => opened,
        Err(error) if error.is_damage() => return Ok(Verdict::Fenced),
        Err(error) => return Err(format!("{error:?}")),
    };
    let (engine, fence) = (Arc::clone(&opened.engine), opened.fence.clone());
    let read = read_all(opened, model).await;
    engine.close();
    match (read, fence.fault()) {
        (Ok(None), _) => Ok(Verdict::Complete),
        (Ok(Some(wrong)), _) => Err(wrong),
        (Err(_), Some(fault)) if fault.is_damage() => Ok(Verdict::Fenced),
        (Err(error), fault) => Err(format!("{error:?}, and the fault is {fault:?}")),
    }
}

/// Reads everything; what is not as it should be, though it can be read.
async fn read_all(opened: Opened, model: &Model) -> io::Result<Option<String>> {
    let Opened { engine, vault, mut log, meta, .. } = opened;
    let (revision, rows) = look(&*engine, |view| machine::rows(view, "/"))?;
    let found: BTreeMap<_, _> = rows.into_iter().map(|(key, row)| (key.name().to_owned(), row.document)).collect();
    if usize::try_from(revision.0).ok().and_then(|revision| model.get(revision)) != Some(&found) {
        return Ok(Some(format!("another state at revision {revision}")));
    }
    look(&*engine, |view| {
        scrub::state(view, &mut |_| Ok(()))?;
        scrub::rest(view, &mut |_| Ok(()))
    })?;
    if let Some(snapshot) = vault.current()? {
        scrub::snapshot(&snapshot, &mut |_| Ok(()))?;
    }
    let next = meta.applied.map_or(0, |id| id.index + 1);
    let left = log.try_get_log_entries(next..).await?.len() as u64;
    // The log has an entry for each revision, and two or so of its own for each life.
    let short = revision.0 + left < model.len() as u64 - 1;
    Ok(short.then(|| format!("acknowledged writes are gone: {revision} and {left} entries")))
}

/// The kind of a file, by its name; `None` for RocksDB's own log and for locks, which hold nothing.
fn class(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    Some(match (name, extension) {
        ("mark", _) => "mark",
        ("current", _) => "snapshot",
        ("CURRENT", _) => "CURRENT",
        ("IDENTITY", _) => "IDENTITY",
        (_, Some("sst")) => "SST",
        (_, Some("log")) => "WAL",
        _ if name.starts_with("MANIFEST-") => "MANIFEST",
        _ if name.starts_with("OPTIONS-") => "OPTIONS",
        _ => return None,
    })
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn damage_to_any_file_is_harmless_or_noticed() {
    let more = std::env::var("QUORATE_DAMAGE").map_or(1, |more| more.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (bases, model) = directories(directory.path()).await;
    let target = directory.path().join("damaged");
    let mut failed = Vec::new();
    let mut table: BTreeMap<(&str, &str), BTreeMap<Verdict, u32>> = BTreeMap::new();
    for (base, source) in &bases {
        copy_tree(source, &target);
        assert_eq!(verdict(&target, &model).await, Ok(Verdict::Complete), "nothing is wrong with it");
        fs::remove_dir_all(&target).unwrap();
        for file in files(source) {
            let Some(class) = class(&file) else { continue };
            let name = file.strip_prefix(source).unwrap();
            for damage in damages(fs::read(&file).unwrap().len(), more) {
                copy_tree(source, &target);
                inflict(&target.join(name), damage);
                let what = match damage {
                    Damage::Flip(at, bit) => format!("bit {bit} of byte {at} flipped"),
                    Damage::Zero(at) => format!("a sector zeroed at {at}"),
                    Damage::Cut(at) => format!("cut at {at}"),
                    Damage::Remove => "removed".to_owned(),
                };
                match verdict(&target, &model).await {
                    Ok(verdict) => *table.entry((class, base)).or_default().entry(verdict).or_default() += 1,
                    Err(wrong) => failed.push(format!("{base} {}: {what}: {wrong}", name.display())),
                }
                fs::remove_dir_all(&target).unwrap();
            }
        }
    }
    for ((class, base), verdicts) in &table {
        println!("{class:9} {base}: {verdicts:?}");
    }
    assert!(failed.is_empty(), "neither complete nor fenced:\n{}", failed.join("\n"));
    let classes: BTreeSet<_> = table.keys().map(|(class, _)| *class).collect();
    let all = ["CURRENT", "IDENTITY", "MANIFEST", "OPTIONS", "SST", "WAL", "mark", "snapshot"];
    assert_eq!(classes, BTreeSet::from(all), "a file of every kind");
    let fenced: u32 = table.values().filter_map(|verdicts| verdicts.get(&Verdict::Fenced)).sum();
    assert!(fenced > 100, "damage that nothing notices proves nothing: {table:?}");
}
