//! Runs other programs: `ip`, `iptables`, `dockerd`.
//!
//! Invariant: a program that fails fails our command too, with the program's own words; none waits for input.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::Path,
    process::Stdio,
};

use quorate_proto::refusal::{Reason, Refusal};
use tokio::process::Command;

/// Runs a program and returns what it printed. `what` is what did not happen if it fails.
pub(crate) async fn run<Word: AsRef<OsStr>>(what: &str, program: &str, words: &[Word]) -> Result<String, Refusal> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().await.map_err(|error| {
        Refusal::new(Reason::Internal, what, format!("`{program}` was not started: {error}"))
            .hint("tools/install installs what is missing")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("; ");
    let because = format!("`{program} {}` failed: {}", words.join(" "), said.trim());
    Err(Refusal::new(Reason::Internal, what, because))
}

/// Runs `program` with words separated by spaces.
pub(crate) async fn ip(what: &str, words: &str) -> Result<String, Refusal> {
    run(what, "ip", &words.split(' ').collect::<Vec<_>>()).await
}

/// Starts a program that outlives us, in a session of its own, and appends what it says to a log.
pub(crate) fn start(what: &str, words: &[String], environment: &[(&str, &str)], log: &Path) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| {
        Refusal::new(Reason::Internal, what, format!("`{}` was not started: {error}", words.join(" ")))
    };
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
    std::process::Command::new("setsid")
        .args(words)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    Ok(())
}

/// The last lines of a log, for a message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    if last.is_empty() { "it said nothing".to_owned() } else { format!("it said:\n    {}", last.join("\n    ")) }
}
