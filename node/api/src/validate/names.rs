//! The grammars of names (RFC 1123, RFC 1035, RFC 6335), as Kubernetes uses them. An `Err` is the rest of a sentence about the field.

use crate::message::cut;

/// What a qualified name looks like.
pub(super) const QUALIFIED: &str = "a name of at most 63 letters, digits, `-`, `_` and `.`, perhaps with a DNS name and `/` before it: `example.com/name`";

/// What the value of a label looks like.
pub(super) const VALUE: &str =
    "at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, or nothing";

/// A DNS label (RFC 1123): the name of a namespace, a container, a volume.
pub(super) fn label(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err(format!("has {} characters, at most 63 are allowed", text.len()));
    }
    if is_label(text) { Ok(()) } else { Err(wrong(text, "lower-case letters, digits and `-`")) }
}

/// A DNS label that begins with a letter (RFC 1035): the name of a service.
pub(super) fn label_1035(text: &str) -> Result<(), String> {
    label(text)?;
    if text.starts_with(|first: char| first.is_ascii_lowercase()) {
        Ok(())
    } else {
        Err(format!("must begin with a letter, since it becomes a DNS name, and `{}` does not", cut(text)))
    }
}

/// A DNS name (RFC 1123): the name of most objects.
pub(super) fn subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err(format!("has {} characters, at most 253 are allowed", text.len()));
    }
    if text.split('.').all(is_label) { Ok(()) } else { Err(wrong(text, "lower-case letters, digits, `-` and `.`")) }
}

/// The name of a port (RFC 6335).
pub(super) fn port(text: &str) -> Result<(), String> {
    let shape = is_label(text)
        && text.len() <= 15
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase());
    if shape {
        Ok(())
    } else {
        Err(format!(
            "must be at most 15 lower-case letters, digits and single `-`, with a letter among them, not `{}`",
            cut(text)
        ))
    }
}

/// A key of a config map or a secret, which may become the name of a file.
pub(super) fn data_key(text: &str) -> Result<(), String> {
    let shape = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if shape && (1..=253).contains(&text.len()) && text != "." && !text.starts_with("..") {
        Ok(())
    } else {
        Err(format!(
            "has the key `{}`: keys are at most 253 letters, digits, `-`, `_` and `.`, and not `..`",
            cut(text)
        ))
    }
}

fn is_label(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    inside && !text.is_empty() && text.len() <= 253 && !text.starts_with('-') && !text.ends_with('-')
}

fn wrong(text: &str, of: &str) -> String {
    format!("must be made of {of}, beginning and ending with a letter or digit, not `{}`", cut(text))
}
