//! A range of keys: what a query, a deletion, a compare or a watch is about.
//!
//! Keys are ordered by their bytes. A range has a first text and an end that is left out; neither needs to be a key itself.
//!
//! Invariant: a range ends behind its beginning, also one that was read from the wire, and neither end is longer than [`MAX_BOUND`].

use std::{fmt, ops::Bound};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::{Key, MAX_KEY};

/// The longest beginning or end of a range, in bytes: the end that follows the longest key is one byte longer than it.
pub const MAX_BOUND: usize = MAX_KEY + 1;

/// Keys from `from` up to `to`, which is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bounds", into = "Bounds")]
pub struct KeyRange {
    from: String,
    to: Option<String>,
}

/// Why two texts bound no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeError {
    /// No key could be in it.
    #[error("a range ends behind its beginning, not at `{to}` when it begins at `{from}`")]
    Backwards {
        /// Where it begins.
        from: String,
        /// Where it ends.
        to: String,
    },
    /// Too long.
    #[error("the ends of a range have at most {MAX_BOUND} bytes, this one has {0}")]
    Length(usize),
}

/// A range as it is sent.
#[derive(Serialize, Deserialize)]
struct Bounds {
    from: String,
    to: Option<String>,
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn key(key: &Key) -> Self {
        Self { from: key.as_str().to_owned(), to: Some(format!("{key}\0")) }
    }

    /// Every key that begins with a text; with the empty one, all.
    ///
    /// # Errors
    /// If the text is longer than [`MAX_BOUND`].
    pub fn prefix(prefix: &str) -> Result<Self, RangeError> {
        Self::new(prefix.to_owned(), behind_all(prefix))
    }

    /// From the first text up to the second, which is left out.
    ///
    /// # Errors
    /// If no key could be in it, or a text is longer than [`MAX_BOUND`].
    pub fn between(from: &str, to: &str) -> Result<Self, RangeError> {
        Self::new(from.to_owned(), Some(to.to_owned()))
    }

    /// Every key from a text on.
    ///
    /// # Errors
    /// If the text is longer than [`MAX_BOUND`].
    pub fn starting_at(from: &str) -> Result<Self, RangeError> {
        Self::new(from.to_owned(), None)
    }

    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { from: String::new(), to: None }
    }

    /// What is left of it behind a key: where the next page of a query begins. `None` if nothing is.
    #[must_use]
    pub fn after(&self, key: &Key) -> Option<Self> {
        let from = format!("{key}\0").max(self.from.clone());
        Self::new(from, self.to.clone()).ok()
    }

    fn new(from: String, to: Option<String>) -> Result<Self, RangeError> {
        let longest = from.len().max(to.as_ref().map_or(0, String::len));
        match to {
            _ if longest > MAX_BOUND => Err(RangeError::Length(longest)),
            Some(to) if to <= from => Err(RangeError::Backwards { from, to }),
            to => Ok(Self { from, to }),
        }
    }

    /// The text it begins with.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The text it ends before; `None`: it goes on to the last key.
    #[must_use]
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// The two as bounds of keys' texts, for ordered maps.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&str>, Bound<&str>) {
        (Bound::Included(&self.from), self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str() >= self.from.as_str() && self.to.as_deref().is_none_or(|to| key.as_str() < to)
    }

    /// The one key it is, if it was made of one.
    #[must_use]
    pub fn single(&self) -> Option<Key> {
        let to = self.to.as_deref()?;
        (to.strip_suffix('\0') == Some(&self.from)).then(|| Key::parse(&self.from).ok()).flatten()
    }

    /// Bytes of both ends.
    #[must_use]
    pub fn size(&self) -> usize {
        self.from.len() + self.to.as_ref().map_or(0, String::len)
    }
}

/// The smallest text behind all that begin with `prefix`; `None` if there is no such text. The order of UTF-8 is that of its characters.
fn behind_all(prefix: &str) -> Option<String> {
    let mut kept = prefix.chars();
    while let Some(last) = kept.next_back() {
        // The range of characters steps over the surrogates, which are none.
        if let Some(next) = (last..=char::MAX).nth(1) {
            let mut end = kept.as_str().to_owned();
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl fmt::Display for KeyRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(to) => write!(formatter, "`{}` up to `{to}`", self.from),
            None => write!(formatter, "`{}` and all behind it", self.from),
        }
    }
}

impl TryFrom<Bounds> for KeyRange {
    type Error = RangeError;

    fn try_from(bounds: Bounds) -> Result<Self, RangeError> {
        Self::new(bounds.from, bounds.to)
    }
}

impl From<KeyRange> for Bounds {
    fn from(range: KeyRange) -> Self {
        Self { from: range.from, to: range.to }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, cap};

    fn key(name: &str) -> Key {
        Key::new("", "pods", Some("a"), name).unwrap()
    }

    #[test]
    fn a_range_of_one_key_holds_that_key_alone() {
        let range = KeyRange::key(&key("web"));
        assert!(range.contains(&key("web")));
        assert!(!range.contains(&key("web-1")) && !range.contains(&key("we")));
        assert_eq!(range.single(), Some(key("web")));
        assert_eq!(KeyRange::prefix("/core/").unwrap().single(), None);
    }

    #[test]
    fn a_range_that_holds_nothing_is_refused_and_says_why() {
        let error = KeyRange::between("/b", "/a").unwrap_err();
        assert_eq!(error.to_string(), "a range ends behind its beginning, not at `/a` when it begins at `/b`");
        assert!(KeyRange::between("/a", "/a").is_err());
        let error = KeyRange::prefix(&"x".repeat(MAX_BOUND + 1)).unwrap_err();
        assert_eq!(error.to_string(), "the ends of a range have at most 1017 bytes, this one has 1018");
    }

    #[test]
    fn a_range_from_the_wire_is_checked_like_any_other() {
        let sent = wire::encode(&("/b", Some("/a")), cap::CONTROL).unwrap();
        assert!(wire::decode::<KeyRange>(&sent, cap::CONTROL).unwrap_err().to_string().contains("ends behind"));
        let range = KeyRange::between("/a", "/b").unwrap();
        let sent = wire::encode(&range, cap::CONTROL).unwrap();
        assert_eq!(wire::decode::<KeyRange>(&sent, cap::CONTROL).unwrap(), range);
    }

    #[test]
    fn the_rest_of_a_range_begins_behind_the_last_key_that_was_seen() {
        let range = KeyRange::prefix("/core/pods/a/").unwrap();
        let rest = range.after(&key("m")).unwrap();
        assert!(!rest.contains(&key("m")) && rest.contains(&key("m-1")));
        assert_eq!(rest.to(), range.to());
        assert_eq!(KeyRange::key(&key("m")).after(&key("m")), None);
    }

    #[test]
    fn a_prefix_of_the_last_characters_has_no_end() {
        assert_eq!(KeyRange::prefix("").unwrap(), KeyRange::all());
        assert_eq!(KeyRange::prefix("\u{10ffff}").unwrap().to(), None);
        assert_eq!(KeyRange::prefix("/a\u{d7ff}").unwrap().to(), Some("/a\u{e000}"));
    }

    proptest! {
        #[test]
        fn a_prefix_holds_exactly_the_keys_that_begin_with_it(prefix in "/[a-c\u{10fffe}\u{10ffff}]{0,3}", name in "[a-c\u{10fffe}\u{10ffff}]{1,4}") {
            let key = Key::parse(&format!("/{name}/b/c/d")).unwrap();
            let range = KeyRange::prefix(&prefix).unwrap();
            prop_assert_eq!(range.contains(&key), key.as_str().starts_with(&prefix));
        }
    }
}
