//! Collects manifests: files, directories, standard input → objects, checked before anything is sent.
//!
//! Invariant: either all objects of all files are sound, or none is sent; what others need (namespaces, config maps) comes first.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use quorate_proto::{
    kinds::{KINDS, Kind},
    manifest::{self, MAX_BYTES, ManifestObject, Surveyed},
    refusal::{Reason, Refusal},
};

use crate::failure::Failure;

/// What stands for standard input.
const STDIN: &str = "-";

/// What standard input is called in messages.
const STDIN_NAME: &str = "stdin";

/// Reads all objects of the files; a directory means its `*.yaml`, `*.yml` and `*.json`, sorted by name, and `-` standard input.
///
/// `done` is what did not happen if this fails: `applied`.
///
/// # Errors
/// With everything that is wrong with any of them.
pub(crate) fn collect(names: &[PathBuf], stdin: &mut dyn Read, done: &str) -> Result<Vec<ManifestObject>, Failure> {
    let what = &format!("nothing was {done}");
    let mut objects = Vec::new();
    let mut refusals = Vec::new();
    for path in files(names, what)? {
        let (name, text) = contents(&path, stdin);
        match text {
            Ok(text) => match manifest::read(&text, &name) {
                Ok(found) => objects.extend(found),
                Err(error) => refusals.push(error.refusal(done)),
            },
            Err(error) => refusals.push(unreadable(what, &name, &error)),
        }
    }
    if !refusals.is_empty() {
        return Err(Failure::Refused(refusals));
    }
    if objects.is_empty() {
        return Err(nothing(what).into());
    }
    // Stable: objects of one kind stay in the order in which they were written.
    objects.sort_by_key(|object| {
        let kind = Kind::of(object.object.api_version(), object.object.kind());
        KINDS.iter().position(|row| Some(*row) == kind).unwrap_or(KINDS.len())
    });
    Ok(objects)
}

/// Looks at all objects of the files, acceptable or not, in the order of the files.
///
/// # Errors
/// With every file that cannot be read, or is neither YAML nor JSON.
pub(crate) fn survey(names: &[PathBuf], stdin: &mut dyn Read) -> Result<Vec<Surveyed>, Failure> {
    const WHAT: &str = "nothing was checked";
    let (mut objects, mut refusals) = (Vec::new(), Vec::new());
    for path in files(names, WHAT)? {
        let (name, text) = contents(&path, stdin);
        match text {
            Ok(text) => match manifest::survey(&text, &name) {
                Ok(found) => objects.extend(found),
                Err(error) => refusals.push(error.refusal("checked")),
            },
            Err(error) => refusals.push(unreadable(WHAT, &name, &error)),
        }
    }
    match (refusals.is_empty(), objects.is_empty()) {
        (false, _) => Err(Failure::Refused(refusals)),
        (true, true) => Err(nothing(WHAT).into()),
        (true, false) => Ok(objects),
    }
}

/// What a file is called in messages, and its text.
fn contents(path: &Path, stdin: &mut dyn Read) -> (String, io::Result<String>) {
    if path.as_os_str() == STDIN {
        return (STDIN_NAME.to_owned(), text(stdin));
    }
    (path.display().to_string(), fs::File::open(path).and_then(|mut file| text(&mut file)))
}

fn nothing(what: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, what, "there are no objects in what was given")
        .hint("a directory is searched for *.yaml, *.yml and *.json, not deeper")
}

fn files(names: &[PathBuf], what: &str) -> Result<Vec<PathBuf>, Refusal> {
    let mut files = Vec::new();
    for name in names {
        if !name.is_dir() {
            files.push(name.clone());
            continue;
        }
        let unreadable = |error| unreadable(what, &name.display().to_string(), &error);
        let entries: Result<BTreeSet<_>, _> =
            fs::read_dir(name).map_err(unreadable)?.map(|entry| entry.map(|entry| entry.path())).collect();
        files.extend(entries.map_err(unreadable)?.into_iter().filter(|path| is_manifest(path)));
    }
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

/// Reads at most one byte more than a manifest may have: enough for the limit to be named.
fn text(source: &mut dyn Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than the limit of {MAX_BYTES} bytes (1.5 MiB) for a manifest"),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8: {}", error.utf8_error())))
}

fn unreadable(what: &str, name: &str, error: &io::Error) -> Refusal {
    let (reason, hint) = match error.kind() {
        io::ErrorKind::NotFound => (Reason::NotFound, None),
        io::ErrorKind::FileTooLarge => (Reason::TooLarge, Some("split it into several files")),
        _ => (Reason::BadRequest, None),
    };
    let refusal = Refusal::new(reason, what, format!("{name}: {error}"));
    match hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}
