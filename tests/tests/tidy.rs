//! Rules about the project itself that no compiler holds: which way dependencies point, what a pure crate may use, how files begin,
//! that paths named in text exist.
//!
//! Invariant: every test names all that break its rule, each with file and line, and fails if it finds nothing to look at.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use toml::Table;

/// Who may depend on whom, by directory. The tests may on all.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("raft", &["proto"]),
    ("dns", &["proto"]),
    ("node/control", &["proto"]),
    ("node/agent", &["proto"]),
    ("node/mesh", &["proto"]),
    ("node/traffic", &["proto"]),
    ("node/api", &["proto"]),
    ("node", &["proto", "raft", "dns", "node/control", "node/agent", "node/mesh", "node/traffic", "node/api"]),
    ("cli", &["proto", "node/mesh", "node"]),
];

/// Crates that decide and do nothing else.
const PURE: &[&str] = &["proto", "node/control"];

/// What no pure crate may reach, however indirectly: runtimes, sockets, disks, randomness from the system.
const IMPURE: &[&str] = &[
    "async-std",
    "bollard",
    "futures-executor",
    "getrandom",
    "hickory-server",
    "hyper",
    "mio",
    "openraft",
    "quinn",
    "rocksdb",
    "rustls",
    "signal-hook",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
];

/// What no source of a pure crate may name, but in its tests.
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::std",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "async fn",
    "async move",
    ".await",
];

/// Crates that stand behind one seam, and the only place whose sources name them.
const SEAMS: &[(&str, &str)] = &[
    ("openraft", "raft/"),
    ("rocksdb", "raft/"),
    ("quinn", "node/mesh/"),
    ("rustls", "node/mesh/"),
    ("rcgen", "node/mesh/"),
    ("bollard", "node/agent/"),
    ("bincode", "proto/src/wire.rs"),
];

/// The most lines of a source file. About 400 are easy to read; beyond this it is time to split.
const MAX_LINES: usize = 700;

/// What stops the process, and may stand in tests only. (Clippy holds `unwrap` and `expect`.)
const BANNED_CALLS: &[&str] = &["panic!(", "unimplemented!(", "todo!("];

/// Words that say that something is not done, or nothing at all.
const BANNED_WORDS: &[&str] = &["TODO", "FIXME", "XXX", "HACK", "helper", "helpers"];

/// Names that say nothing about what a file is for.
const BANNED_FILES: &[&str] = &["util.rs", "utils.rs", "helpers.rs", "common.rs", "misc.rs", "manager.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All files below the root with this ending, by their path from it.
fn files(ending: &str) -> BTreeMap<String, String> {
    fn walk(root: &Path, directory: &Path, ending: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                walk(root, &path, ending, found);
                continue;
            }
            let from_root = path.strip_prefix(root).unwrap().to_str().unwrap();
            if path.is_file() && from_root.ends_with(ending) {
                found.insert(from_root.to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root(), &root(), ending, &mut found);
    assert!(!found.is_empty(), "no {ending} files below {}", root().display());
    found
}

/// The sources that are compiled for tests only: those in `tests/`, and modules behind `#[cfg(test)]`.
fn test_sources(sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found: BTreeSet<_> = sources.keys().filter(|path| path.starts_with("tests/")).cloned().collect();
    for (path, text) in sources {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let below = match name {
            "lib.rs" | "main.rs" => directory.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        for name in test_modules(text).filter_map(|(_, name)| name.strip_suffix(';')) {
            let inside = format!("{below}/{name}/");
            found.extend(sources.keys().filter(|path| path.starts_with(&inside)).cloned());
            found.insert(format!("{below}/{name}.rs"));
        }
    }
    found
}

/// The modules of a source behind `#[cfg(test)]`, each with its line (from 0) and what follows `mod`.
fn test_modules(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let pairs = text.lines().zip(text.lines().skip(1)).enumerate();
    pairs.filter(|(_, (first, _))| *first == "#[cfg(test)]").filter_map(|(at, (_, second))| {
        let name = second.strip_prefix("pub(crate) ").unwrap_or(second).strip_prefix("mod ")?;
        Some((at, name))
    })
}

/// The lines of all sources that are not tests: path, number, text.
fn outside_tests(sources: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, usize, &str)> {
    let tests = test_sources(sources);
    sources.iter().filter(move |(path, _)| !tests.contains(*path)).flat_map(|(path, text)| {
        // A test module ends its file.
        let end = test_modules(text).find(|(_, name)| name.ends_with('{')).map_or(usize::MAX, |(at, _)| at);
        text.lines().take(end).enumerate().map(move |(index, line)| (path.as_str(), index + 1, line))
    })
}

/// A line without what is a comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether a word stands in a text by itself.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let part_of_a_word = |character: char| character.is_alphanumeric() || "_-".contains(character);
        let before = text[..at].chars().next_back().is_some_and(part_of_a_word);
        let after = text[at + word.len()..].chars().next().is_some_and(part_of_a_word);
        !before && !after
    })
}

fn manifest(directory: &str) -> Table {
    fs::read_to_string(root().join(directory).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The names a manifest depends on, in these sections.
fn dependencies(manifest: &Table, sections: &[&str]) -> BTreeSet<String> {
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

fn package(directory: &str) -> String {
    manifest(directory)["package"]["name"].as_str().unwrap().to_owned()
}

#[track_caller]
fn none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

const ALL_SECTIONS: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn dependencies_point_one_way() {
    let known: BTreeSet<_> = ARROWS.iter().map(|(directory, _)| *directory).chain(["tests"]).collect();
    let workspace = manifest("");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<_> = members.iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(members, known, "a crate without arrows");

    let mut breaches = Vec::new();
    for (directory, allowed) in ARROWS {
        let allowed: BTreeSet<_> = allowed.iter().map(|directory| package(directory)).collect();
        for name in dependencies(&manifest(directory), ALL_SECTIONS) {
            if name.starts_with("quorate") && !allowed.contains(&name) {
                breaches.push(format!("{directory}/Cargo.toml: {name}"));
            }
        }
    }
    none("a crate depends on one that it must not know", &breaches);
}

#[test]
fn every_crate_keeps_the_rules_of_the_workspace() {
    let mut breaches = Vec::new();
    for directory in ARROWS.iter().map(|(directory, _)| *directory).chain(["tests"]) {
        let manifest = manifest(directory);
        for (section, key) in
            [("lints", "workspace"), ("package", "version"), ("package", "edition"), ("package", "license")]
        {
            let value = manifest.get(section).and_then(|section| section.get(key));
            let inherited = value.and_then(|value| value.get("workspace").unwrap_or(value).as_bool());
            if inherited != Some(true) {
                breaches.push(format!("{directory}/Cargo.toml: {section}.{key} is its own"));
            }
        }
        for section in ALL_SECTIONS {
            let table = manifest.get(*section).and_then(|section| section.as_table());
            for (name, value) in table.into_iter().flatten() {
                if value.get("workspace").and_then(|workspace| workspace.as_bool()) != Some(true) {
                    breaches.push(format!("{directory}/Cargo.toml: {name} has a version of its own"));
                }
            }
        }
    }
    none("a crate does not keep the rules of the workspace", &breaches);
}

#[test]
fn pure_crates_reach_no_runtime_and_no_device() {
    let lock: Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let on = package.get("dependencies").and_then(|list| list.as_array()).map_or(&[][..], Vec::as_slice);
        let names = on.iter().map(|name| name.as_str().unwrap().split(' ').next().unwrap());
        needs.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    let mut breaches = Vec::new();
    for directory in PURE {
        // The lock file does not tell tests' dependencies from others, so the first step is the manifest's.
        let mut waiting: Vec<_> = dependencies(&manifest(directory), &["dependencies"]).into_iter().collect();
        waiting.retain(|name| !name.starts_with("quorate"));
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if IMPURE.contains(&name.as_str()) {
                breaches.push(format!("{directory}: {name}"));
            }
            waiting.extend(needs.get(name.as_str()).into_iter().flatten().map(|name| (*name).to_owned()));
        }
        assert!(!seen.is_empty(), "{directory} depends on nothing at all");
    }
    let sources = files(".rs");
    let is_pure = |path: &str| PURE.iter().any(|directory| path.starts_with(&format!("{directory}/")));
    for (path, number, line) in outside_tests(&sources).filter(|(path, ..)| is_pure(path)) {
        for word in IMPURE_WORDS.iter().filter(|word| code(line).contains(**word)) {
            breaches.push(format!("{path}:{number}: {word}"));
        }
    }
    none("a crate that only decides reaches something that acts", &breaches);
}

#[test]
fn what_stands_behind_a_seam_is_named_only_there() {
    let mut breaches = Vec::new();
    for (path, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            let named = |name: &str| {
                let code = code(line);
                has_word(code, name) && (code.contains(&format!("{name}::")) || code.contains(&format!("use {name}")))
            };
            for (name, place) in SEAMS.iter().filter(|(name, _)| named(name)) {
                if !path.starts_with(place) && !path.starts_with("tests/") {
                    breaches.push(format!("{path}:{}: {name} belongs to {place}", number + 1));
                }
            }
        }
    }
    for (directory, _) in ARROWS {
        for name in dependencies(&manifest(directory), ALL_SECTIONS) {
            for (_, place) in SEAMS.iter().filter(|(seam, _)| *seam == name) {
                if !place.starts_with(&format!("{directory}/")) {
                    breaches.push(format!("{directory}/Cargo.toml: {name} belongs to {place}"));
                }
            }
        }
    }
    none("a crate is named outside its seam", &breaches);
}

#[test]
fn every_source_says_what_it_is_for_and_is_short_enough_to_read() {
    let mut breaches = Vec::new();
    for (path, text) in files(".rs") {
        let header = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
        // `x/tests.rs` is the end of `x.rs`, moved out because it is long.
        if (header.len() < 10 || header == "placeholder") && !path.ends_with("/tests.rs") {
            breaches.push(format!("{path}:1: no header"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            breaches.push(format!("{path}: {lines} lines, more than {MAX_LINES}"));
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if BANNED_FILES.contains(&name) {
            breaches.push(format!("{path}: a name that says nothing"));
        }
    }
    none("a source is not as a reader needs it", &breaches);
}

#[test]
fn the_root_of_a_library_is_a_map() {
    let mut breaches = Vec::new();
    for (path, text) in files("src/lib.rs") {
        let plain: String = text.lines().map(code).filter(|line| !line.trim().starts_with("#")).collect();
        for statement in plain.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let words = statement.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let is_export = words.starts_with("mod ") && !words.contains('{') || words.starts_with("use ");
            if !is_export && !words.starts_with("compile_error!") {
                let start: String = statement.chars().take(60).collect();
                breaches.push(format!("{path}: {start}"));
            }
        }
    }
    none("a lib.rs has more than a header, modules and exports", &breaches);
}

#[test]
fn nothing_that_stops_the_process_or_is_not_done_stands_outside_tests() {
    let mut breaches = Vec::new();
    let sources = files(".rs");
    for (path, number, line) in outside_tests(&sources) {
        for call in BANNED_CALLS.iter().filter(|call| code(line).contains(**call)) {
            breaches.push(format!("{path}:{number}: {call}"));
        }
        for word in BANNED_WORDS.iter().filter(|word| has_word(line, word)) {
            breaches.push(format!("{path}:{number}: {word}"));
        }
        // A comment must say what it means by itself, not `#1234`.
        let comment = line.find("//").map_or("", |at| &line[at..]);
        let digits = |(at, _): (usize, &str)| comment[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if comment.match_indices('#').any(|found| digits(found) >= 3) {
            breaches.push(format!("{path}:{number}: a ticket"));
        }
    }
    none("something must not stand outside tests", &breaches);
}

#[test]
fn every_dependency_says_why_it_is_here_and_is_used() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut used = BTreeSet::new();
    for directory in ARROWS.iter().map(|(directory, _)| *directory).chain(["tests"]) {
        used.extend(dependencies(&manifest(directory), ALL_SECTIONS));
    }
    let mut breaches = Vec::new();
    let mut lines = 0;
    for line in section.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        lines += 1;
        let name = line.split([' ', '=', '.']).next().unwrap_or_default();
        let reason = line.split(" # ").nth(1).unwrap_or_default();
        if reason.len() < 4 && !line.contains("path = ") {
            breaches.push(format!("Cargo.toml: {name} does not say why it is here"));
        }
        if !used.contains(name) {
            breaches.push(format!("Cargo.toml: {name} is not used by any crate"));
        }
    }
    assert!(lines > 10, "the table of dependencies was not found");
    none("a dependency is not accounted for", &breaches);
}

#[test]
fn every_path_that_is_named_exists() {
    let mut breaches = Vec::new();
    let mut named = 0;
    let tops: BTreeSet<_> =
        fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let pages = files(".md").into_iter().map(|(path, text)| (path, text, false));
    let sources = files(".rs").into_iter().map(|(path, text)| (path, text, true));
    for (path, text, is_source) in pages.chain(sources) {
        for (number, line) in text.lines().enumerate() {
            let prose = if is_source { line.find("//").map_or("", |at| &line[at..]) } else { line };
            for quoted in prose.split('`').skip(1).step_by(2) {
                let whole =
                    quoted.chars().all(|character| character.is_ascii_alphanumeric() || "_-./".contains(character));
                let top = quoted.split('/').next().unwrap_or_default();
                if !whole || !quoted.contains('/') || !tops.contains(top) {
                    continue;
                }
                named += 1;
                if !root().join(quoted).exists() {
                    breaches.push(format!("{path}:{}: `{quoted}`", number + 1));
                }
            }
        }
    }
    assert!(named > 10, "no paths were found in the documentation");
    none("a path is named that does not exist", &breaches);
}
