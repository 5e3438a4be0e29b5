//! The texts of refusals: one place, so that the same fault always reads the same.
//!
//! Invariant: what a person wrote is quoted in backticks and cut to a sensible length before it is put in a message.

use quorate_proto::{
    kinds::{Access, KINDS, Kind},
    refusal::{Reason, Refusal},
};

/// The most characters of someone's text that a message repeats.
const QUOTE: usize = 128;

/// What was to be done with an object, and to which: the first line of every refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Apply,
    Create,
    Replace,
    Patch,
    Delete,
    Scale,
    Leave,
    Read,
}

impl Verb {
    const fn past(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::Create => "created",
            Self::Replace => "replaced",
            Self::Patch => "patched",
            Self::Delete => "deleted",
            Self::Scale => "scaled",
            Self::Leave => "asked to leave",
            Self::Read => "read",
        }
    }
}

/// The subject of a refusal: `deployment.apps/web was not applied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    verb: Verb,
    name: String,
}

impl Subject {
    pub(crate) fn new(verb: Verb, kind: &Kind, name: &str) -> Self {
        let name = if name.is_empty() { kind.qualified() } else { format!("{}/{}", kind.qualified(), cut(name)) };
        Self { verb, name }
    }

    /// Before it is known what the object is.
    pub(crate) fn unknown(verb: Verb) -> Self {
        Self { verb, name: "the object".to_owned() }
    }

    pub(crate) fn refuse(&self, reason: Reason, because: impl Into<String>) -> Refusal {
        Refusal::new(reason, format!("{} was not {}", self.name, self.verb.past()), because)
    }

    /// All that is wrong with an object, in one refusal.
    pub(crate) fn invalid(&self, problems: &[Problem]) -> Refusal {
        let because = problems.iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>().join("; ");
        let mut hints: Vec<&str> = Vec::new();
        for hint in problems.iter().filter_map(|problem| problem.hint.as_deref()) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        let refusal = self.refuse(Reason::Invalid, because);
        if hints.is_empty() { refusal } else { refusal.hint(hints.join("; ")) }
    }
}

/// One thing that is wrong with an object: a sentence that names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// `` `spec.replicas` must not be negative ``
    pub(crate) fn new(path: &str, sentence: impl AsRef<str>) -> Self {
        Self { text: format!("`{path}` {}", sentence.as_ref()), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Someone's text, short enough to be repeated.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A kind that is not served.
pub(crate) fn unknown_kind(subject: &Subject, written: &str) -> Refusal {
    let served = || KINDS.iter().filter(|kind| kind.access != Access::Internal);
    let refusal = subject.refuse(Reason::BadRequest, format!("`{}` is no kind that this cluster serves", cut(written)));
    let lower = written.chars().take(QUOTE).collect::<String>().to_ascii_lowercase();
    let nearest = served()
        .flat_map(|kind| [kind.plural, kind.singular])
        .map(|name| (strsim::damerau_levenshtein(&lower, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(4));
    match nearest {
        Some((_, name)) => refusal.hint(format!("did you mean `{name}`?")),
        None => refusal.hint(format!("it serves {}", served().map(|kind| kind.plural).collect::<Vec<_>>().join(", "))),
    }
}

/// There is no such object.
pub(crate) fn not_found(subject: &Subject, kind: &Kind, namespace: Option<&str>, name: &str) -> Refusal {
    let place = match namespace {
        Some(namespace) if kind.namespaced => format!(" in namespace `{}`", cut(namespace)),
        _ => String::new(),
    };
    subject.refuse(Reason::NotFound, format!("there is no {} `{}`{place}", kind.singular, cut(name)))
}
