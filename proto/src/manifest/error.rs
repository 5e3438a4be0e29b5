//! Why a manifest was not read, in the words a user sees.
//!
//! Invariant: every error names its file, and its line where it has one.

use thiserror::Error;

use crate::refusal::{Reason, Refusal};

use super::{MAX_BYTES, MAX_DOCUMENTS};

/// Why a manifest was not read.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Larger than [`MAX_BYTES`].
    #[error("{file}: {bytes} bytes are more than a manifest may have ({MAX_BYTES})")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// More objects than [`MAX_DOCUMENTS`], counting those in lists.
    #[error("{file}: {objects} objects are more than a manifest may have ({MAX_DOCUMENTS})")]
    TooManyObjects {
        /// The file.
        file: String,
        /// How many.
        objects: usize,
    },
    /// Neither YAML nor JSON, or beyond a limit inside.
    #[error("{file}:{line}: {message}")]
    Malformed {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        message: String,
        /// What to do instead, where we know.
        hint: Option<String>,
        /// What the parser said.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// It was read, but some objects are not acceptable. Never empty.
    #[error("{}", lines(file, flaws).join("\n"))]
    Objects {
        /// The file.
        file: String,
        /// All that is wrong, in the order of the file.
        flaws: Vec<Flaw>,
    },
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The object: `deployment.apps/web`; `None` if it has no name or kind.
    pub object: Option<String>,
    /// The line, counted from 1.
    pub line: u64,
    /// What, as a sentence.
    pub message: String,
    /// What to do instead, where we know.
    pub hint: Option<String>,
}

impl ManifestError {
    /// The refusal a user gets. `done` is what did not happen: with `applied`, `deployment.apps/web was not applied`.
    #[must_use]
    pub fn refusal(&self, done: &str) -> Refusal {
        let (reason, thing, because, hint) = match self {
            Self::TooLarge { file, .. } | Self::TooManyObjects { file, .. } => {
                (Reason::TooLarge, file.clone(), self.to_string(), Some("split the file".to_owned()))
            }
            Self::Malformed { file, line, hint, .. } => {
                let hint = hint.clone().unwrap_or_else(|| format!("correct line {line}, or one just above it"));
                (Reason::BadRequest, file.clone(), self.to_string(), Some(hint))
            }
            Self::Objects { file, flaws } => {
                let object = flaws.first().and_then(|flaw| flaw.object.clone());
                let one = flaws.iter().all(|flaw| flaw.object == object);
                let hint = match flaws.as_slice() {
                    [flaw] => flaw.hint.clone(),
                    _ => Some(format!("correct each of them: nothing in {file} was {done}")),
                };
                let thing = object.filter(|_| one).unwrap_or_else(|| file.clone());
                (Reason::Invalid, thing, lines(file, flaws).join(ALIGNED), hint)
            }
        };
        Refusal { reason, what: format!("{thing} was not {done}"), because, hint }
    }
}

/// Puts further lines of a reason below its first: behind `  because: `.
const ALIGNED: &str = "\n           ";

/// A line for each flaw; if there are several, each with its own hint.
fn lines(file: &str, flaws: &[Flaw]) -> Vec<String> {
    flaws
        .iter()
        .map(|Flaw { line, message, hint, .. }| match hint {
            Some(hint) if flaws.len() > 1 => format!("{file}:{line}: {message} ({hint})"),
            _ => format!("{file}:{line}: {message}"),
        })
        .collect()
}
