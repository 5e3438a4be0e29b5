//! Which objects a command line means: `pods`, `pods,services`, `pod web-1 web-2`, `pod/web-1 svc/web`, `all`.
//!
//! Invariant: every target names a kind of the registry that users may see.

use quorate_proto::{
    kinds::{Access, CRONJOBS, DAEMONSETS, DEPLOYMENTS, JOBS, KINDS, Kind, PODS, REPLICASETS, SERVICES},
    refusal::{Reason, Refusal},
};

/// What `all` means, in the order in which it is shown, as with `kubectl`.
const ALL: [&Kind; 7] = [&PODS, &SERVICES, &DAEMONSETS, &DEPLOYMENTS, &REPLICASETS, &CRONJOBS, &JOBS];

/// All objects of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The kind.
    pub(crate) kind: &'static Kind,
    /// One object; `None`: all.
    pub(crate) name: Option<String>,
}

/// Reads what a command line means.
///
/// # Errors
/// If a kind is not known, or names and `KIND/NAME` are mixed.
pub(crate) fn parse(what: &[String]) -> Result<Vec<Target>, Refusal> {
    let Some((first, names)) = what.split_first() else { return Ok(Vec::new()) };
    if what.iter().any(|word| word.contains('/')) {
        return what.iter().map(|word| one(word)).collect();
    }
    let mut kinds = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        match word {
            "all" => kinds.extend(ALL),
            word => kinds.push(kind(word)?),
        }
    }
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| Target { kind, name: None }).collect());
    }
    let targets = kinds.iter().flat_map(|kind| names.iter().map(|name| Target { kind, name: Some(name.clone()) }));
    Ok(targets.collect())
}

/// Reads `KIND/NAME`.
///
/// # Errors
/// If it is something else.
pub(crate) fn one(word: &str) -> Result<Target, Refusal> {
    match word.split_once('/') {
        Some((text, name)) if !name.is_empty() && !name.contains('/') => {
            Ok(Target { kind: kind(text)?, name: Some(name.to_owned()) })
        }
        _ => Err(Refusal::new(Reason::BadRequest, "nothing was asked", format!("`{word}` is not KIND/NAME"))
            .hint("write either KIND NAME NAME..., or KIND/NAME KIND/NAME...")),
    }
}

/// Finds a kind by any of its names.
///
/// # Errors
/// If there is none; the hint names what is close, or all.
pub(crate) fn kind(text: &str) -> Result<&'static Kind, Refusal> {
    if let Some(kind) = Kind::named(text).filter(|kind| kind.access != Access::Internal) {
        return Ok(kind);
    }
    let shown = || KINDS.iter().filter(|kind| kind.access != Access::Internal);
    let lower = text.to_lowercase();
    let close = shown()
        .flat_map(|kind| [kind.plural, kind.singular])
        .map(|name| (strsim::damerau_levenshtein(name, &lower), name))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let hint = match close {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("there are {}", shown().map(|kind| kind.plural).collect::<Vec<_>>().join(", ")),
    };
    Err(Refusal::new(Reason::NotFound, "nothing was asked", format!("there is no kind `{text}`")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<String>, String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let text = |target: Target| format!("{}:{}", target.kind.plural, target.name.as_deref().unwrap_or("*"));
        parse(&words).map(|targets| targets.into_iter().map(text).collect()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn kinds_and_names_are_read_as_kubectl_reads_them() {
        for (line, meant) in [
            ("po", "pods:*"),
            ("deploy,svc", "deployments:* services:*"),
            ("pod a b", "pods:a pods:b"),
            ("pod/a svc/b", "pods:a services:b"),
            ("deployments.apps web", "deployments:web"),
            ("all", "pods:* services:* daemonsets:* deployments:* replicasets:* cronjobs:* jobs:*"),
        ] {
            assert_eq!(read(line).unwrap().join(" "), meant, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_gets_a_hint() {
        insta::assert_snapshot!(
            ["deploymnet", "gizmos", "jointokens", "pod/a b", "pod/", "pod/a/b"]
                .map(|line| read(line).unwrap_err())
                .join("\n")
        );
    }
}
