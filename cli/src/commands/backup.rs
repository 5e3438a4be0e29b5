//! `quorate backup`: saves the state of a running cluster, shows what a backup holds, makes a new cluster of one.
//!
//! Invariant: a backup is under its name only when it was received, checked and written whole, and for nobody but its owner to read.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate_node::{
    backup::{self, Restoration, Summary, Target},
    world::{SystemClock, SystemRandom},
};
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, Read, Request},
    world::{Random, Timestamp},
};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::up;
use crate::{
    args::{Backup, Global, Restore},
    client::unexpected,
    config::{self, Config, ConfigError},
    failure::Failure,
    output::{Aligned, Console},
    session::Session,
};

const NOT_SAVED: &str = "no backup was saved";
const NOT_RESTORED: &str = "the backup was not restored";
const NOT_READ: &str = "the backup was not read";

/// Pieces that wait to be checked.
const AHEAD: usize = 4;

/// What needs no cluster.
pub(crate) fn offline(global: &Global, verb: &Backup, console: &mut Console<'_>) -> Option<Result<(), Failure>> {
    match verb {
        Backup::Save { .. } => None,
        Backup::Inspect { file } => Some(inspect(file, console)),
        Backup::Restore(arguments) => Some(restore(global, arguments, console)),
    }
}

/// What asks a cluster.
pub(crate) async fn run(session: &mut Session<'_>, verb: Backup) -> Result<(), Failure> {
    let Backup::Save { file, force, stale } = verb else { return Ok(()) };
    let read = if stale { Read::Stale } else { Read::Linearizable };
    if file == Path::new("-") {
        let summary = receive(session, read, None).await?;
        return Ok(print(&summary, session.console.err)?);
    }
    let failed = |error: &io::Error| {
        Refusal::new(Reason::Invalid, NOT_SAVED, format!("{}: {error}", file.display()))
            .hint("choose a file in a directory that is there and can be written to")
    };
    let taken = || {
        Refusal::new(Reason::AlreadyExists, NOT_SAVED, format!("{} is there already", file.display()))
            .hint("choose another name, or --force to write over it")
    };
    if !force && file.exists() {
        return Err(taken().into());
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        let because = format!("there is no directory {}", directory.display());
        return Err(Refusal::new(Reason::NotFound, NOT_SAVED, because).hint("make it, or choose another").into());
    }
    let mut partial = NamedTempFile::new_in(directory).map_err(|error| failed(&error))?;
    let summary = receive(session, read, Some(partial.as_file_mut())).await?;
    let kept = || {
        partial.as_file().set_permissions(Permissions::from_mode(0o600))?;
        partial.as_file().sync_all()
    };
    kept().map_err(|error| failed(&error))?;
    let persisted = if force { partial.persist(&file) } else { partial.persist_noclobber(&file) };
    persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => taken(),
        _ => failed(&error.error),
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| failed(&error))?;
    print(&summary, session.console.out)?;
    writeln!(
        session.console.err,
        "{} holds the cluster's secrets: keep it where only administrators can read it",
        file.display()
    )?;
    Ok(())
}

/// Takes a backup from the cluster: passes its bytes on, and reads it whole meanwhile.
async fn receive(session: &mut Session<'_>, read: Read, file: Option<&mut File>) -> Result<Summary, Failure> {
    let request = Request::Backup { read };
    let mut answers = session.client.follow(&request).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let check = tokio::task::spawn_blocking(move || {
        backup::inspect(Arriving { receiver, piece: Bytes::new() }, "what the node sent", NOT_SAVED)
    });
    let sink: &mut dyn Write = match file {
        Some(file) => file,
        None => &mut *session.console.out,
    };
    let mut ended = false;
    while let Some(answer) = answers.next().await {
        match answer? {
            Answer::Data(piece) => {
                sink.write_all(&piece).map_err(|error| not_written(&error))?;
                // It stops to listen only when it has found a fault, which it tells at the end.
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Answer::End => {
                ended = true;
                break;
            }
            answer => return Err(unexpected(&request, &answer).into()),
        }
    }
    sink.flush().map_err(|error| not_written(&error))?;
    drop(sender);
    let checked = check.await.map_err(|error| Refusal::new(Reason::Internal, NOT_SAVED, error.to_string()))?;
    if !ended && checked.as_ref().is_err_and(|refusal| refusal.because.contains("cut short")) {
        let because = "the node ended it too early";
        return Err(Refusal::new(Reason::Timeout, NOT_SAVED, because)
            .hint("try again; --endpoint asks another node")
            .into());
    }
    Ok(checked.map_err(|refusal| refusal.hint("try again; --endpoint asks another node"))?)
}

fn not_written(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Output(io::Error::from(io::ErrorKind::BrokenPipe)),
        _ => Refusal::new(Reason::Invalid, NOT_SAVED, format!("it cannot be written: {error}"))
            .hint("make room, or choose another place")
            .into(),
    }
}

/// The bytes of a backup on their way, for whoever checks them.
struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl io::Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.receiver.blocking_recv().unwrap_or_default();
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

fn inspect(file: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let name = file.display().to_string();
    let summary = if file == Path::new("-") {
        backup::inspect(io::stdin().lock(), "standard input", NOT_READ)?
    } else {
        let opened = File::open(file).map_err(|error| {
            Refusal::new(Reason::NotFound, NOT_READ, format!("{name}: {error}")).hint("is the name right?")
        })?;
        backup::inspect(opened, &name, NOT_READ)?
    };
    print(&summary, console.out)?;
    writeln!(console.out)?;
    let mut rows = vec![vec!["KIND".to_owned(), "OBJECTS".to_owned()]];
    rows.extend(summary.resources.iter().map(|(resource, count)| vec![resource.clone(), count.to_string()]));
    Aligned::default().print(&rows, console.out)?;
    Ok(())
}

fn restore(global: &Global, arguments: &Restore, console: &mut Console<'_>) -> Result<(), Failure> {
    let Restore { file, dry_run, data_dir, listen, advertise, name } = arguments;
    let (contexts, context) = free_context(global)?;
    let target = Target::new(data_dir.clone(), name.clone(), *listen, advertise);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let restored = backup::restore(file, &target, *dry_run, &SystemClock::start(), &random, |founded| {
        up::remember(&contexts, &context, &founded)
    })?;
    print(&restored.summary, console.out)?;
    tell(&restored, &target, &context, console)?;
    Ok(())
}

/// Where contexts are, and under which name the new cluster's administrator will be known: one that is free.
fn free_context(global: &Global) -> Result<(PathBuf, String), Refusal> {
    let refused = |error: ConfigError| error.refusal(NOT_RESTORED);
    let path = config::path(|name| std::env::var(name).ok()).map_err(refused)?;
    let name = global.context.clone().unwrap_or_else(|| up::CONTEXT.to_owned());
    match Config::read(&path).map_err(refused)?.contexts.get(&name) {
        Some(other) => {
            let because = format!("the context `{name}` is of the cluster {}", other.cluster);
            Err(Refusal::new(Reason::Conflict, NOT_RESTORED, because)
                .hint("the new cluster gets a context of its own: name it with --context NAME"))
        }
        None => Ok((path, name)),
    }
}

fn tell(restored: &Restoration, target: &Target, context: &str, console: &mut Console<'_>) -> io::Result<()> {
    let Restoration { cluster, left, .. } = restored;
    let out = &mut *console.out;
    writeln!(out)?;
    writeln!(out, "Nodes that are not taken over:            {}", left.nodes)?;
    writeln!(out, "Pods that their controllers make anew:    {}", left.pods)?;
    writeln!(out, "Pods without owner, bound anew:           {}", left.unbound)?;
    writeln!(out, "Join tokens that end:                     {}", left.tokens)?;
    match cluster {
        Some(cluster) => {
            writeln!(out, "\nnode/{} is the first of the new cluster {cluster}", target.name)?;
            let start = format!("quorate up --data-dir {}", target.data.display());
            writeln!(console.err, "The context `{context}` is its administrator's")?;
            writeln!(console.err, "Start it with `{start}`; `quorate token create` then lets other machines join")
        }
        None => writeln!(
            console.err,
            "Nothing was written; without --dry-run, {} becomes node/{} of a new cluster",
            target.data.display(),
            target.name
        ),
    }
}

/// What a backup is of.
fn print(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let taken =
        Timestamp::from_second(summary.origin.taken).map_or_else(|_| "unknown".to_owned(), |taken| taken.to_string());
    let sum: String = summary.sum.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "Cluster:    {}", summary.origin.cluster)?;
    writeln!(out, "Taken:      {taken}, by quorate {}", summary.origin.build)?;
    writeln!(out, "Revision:   {}", summary.origin.revision)?;
    writeln!(out, "Objects:    {}", summary.objects)?;
    writeln!(out, "Bytes:      {}", summary.bytes)?;
    writeln!(out, "SHA-256:    {sum}")
}

#[cfg(test)]
mod tests;
