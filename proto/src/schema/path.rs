//! Where in an object a value stands: `spec.containers[0].image`, `metadata.labels[app.kubernetes.io/name]`.
//!
//! Invariant: a path is kept in steps and written only for people; a map's key may hold dots and brackets.

use std::fmt;

/// A path from an object's root to one of its values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a field of an object.
    Field(String),
    /// Into a value of a map, by its key.
    Key(String),
    /// Into an item of a list, counted from 0.
    Index(usize),
}

/// The most characters of a name from a manifest that a message repeats.
const SHOWN: usize = 128;

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => write!(formatter, "{}", shown(name))?,
                Step::Field(name) => write!(formatter, ".{}", shown(name))?,
                Step::Key(key) => write!(formatter, "[{}]", shown(key))?,
                Step::Index(item) => write!(formatter, "[{item}]")?,
            }
        }
        Ok(())
    }
}

/// A name or value from a manifest as a message repeats it: on one line, not longer than a person reads, nothing a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    one_line(text, SHOWN)
}

/// A text that may repeat parts of a manifest, on one line of at most so many characters.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).flat_map(escape).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

fn escape(character: char) -> impl Iterator<Item = char> {
    // Direction overrides and the like can make a terminal show another text than the one that was refused.
    let invisible =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let escaped = character.is_control() || invisible;
    escaped.then(|| character.escape_default()).into_iter().flatten().chain((!escaped).then_some(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_kubernetes_writes_it() {
        let path = Path(vec![
            Step::Field("spec".to_owned()),
            Step::Field("containers".to_owned()),
            Step::Index(2),
            Step::Field("resources".to_owned()),
            Step::Field("limits".to_owned()),
            Step::Key("nvidia.com/gpu".to_owned()),
        ]);
        assert_eq!(path.to_string(), "spec.containers[2].resources.limits[nvidia.com/gpu]");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_what_is_long_is_cut() {
        assert_eq!(shown("a\u{1b}[31m\nb\u{202e}ü"), "a\\u{1b}[31m\\nb\\u{202e}ü");
        assert_eq!(shown(&"ü".repeat(1000)), format!("{}…", "ü".repeat(SHOWN)));
    }
}
