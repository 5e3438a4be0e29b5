//! What a command printed, and with which exit code it ended.
//!
//! Invariant: a refusal that does not read as one (what, because, hint, once) fails the story that meets it.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    thread,
};

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// What was run, for messages.
    pub command: String,
    /// The exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Runs a command to its end and hands it `input`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn by(command: &mut Command, input: &[u8]) -> Self {
        let name = format!("{command:?}");
        let name: String = name.chars().take(400).collect();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let output = thread::scope(|scope| {
            // Whoever reads nothing closes the pipe: that is its right.
            scope.spawn(move || stdin.write_all(input).is_ok());
            child.wait_with_output().unwrap()
        });
        Self::of(name, &output)
    }

    fn of(command: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { command, code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output of a command that did what it was asked for.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.out
    }

    /// Checks that it was refused with this exit code and one error that says what, because and a hint, and that the error contains these
    /// words.
    ///
    /// # Panics
    /// If it was not.
    pub fn refused(&self, code: i32, words: &[&str]) {
        self.refused_because(code, words);
        self.says_once("  hint: ");
    }

    /// The same for what speaks for itself: a hint may be missing.
    ///
    /// # Panics
    /// If it was not refused so.
    pub fn refused_because(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        self.says_once("error: ");
        self.says_once("  because: ");
        assert!(self.out.is_empty(), "what is refused prints no result\n{self}");
        let error = &self.err[self.err.find("error: ").unwrap()..];
        for word in words {
            assert!(error.contains(word), "`{word}` in the error\n{self}");
        }
        assert!(error.len() < 2000, "an error that can be read\n{self}");
    }

    fn says_once(&self, start: &str) {
        let lines = self.err.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines, 1, "one line that begins with `{start}`\n{self}");
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, out, err } = self;
        write!(formatter, "$ {command}\n{out}{err}exit code {code:?}")
    }
}
