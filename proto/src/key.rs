//! Where an object lives in the store: `/<group>/<resource>/<namespace>/<name>`.
//!
//! The core group is written `core`; cluster-scoped objects have `_` for a namespace, which no namespace can be named.
//!
//! Invariant: a key has exactly four parts, none empty, none with a `/`; keys of one kind, and of one namespace of it, are adjacent.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use thiserror::Error;

/// What stands for the namespace of a cluster-scoped object.
pub const CLUSTER_SCOPE: &str = "_";

/// The longest key, in bytes: four names of 253 bytes, as long as Kubernetes lets a name be, and their slashes.
pub const MAX_KEY: usize = 4 * 254;

/// A key of the store. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not four non-empty parts behind a slash each.
    #[error("a key is `/group/resource/namespace/name`, not `{0}`")]
    Shape(String),
    /// Too long.
    #[error("a key has at most {MAX_KEY} bytes, this one has {0}")]
    Length(usize),
}

impl Key {
    /// The key of an object; the empty group is the core group, no namespace means cluster-scoped.
    ///
    /// # Errors
    /// If a part is empty, holds a `/`, or the whole is longer than [`MAX_KEY`].
    pub fn new(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> Result<Self, KeyError> {
        let group = if group.is_empty() { "core" } else { group };
        Self::parse(&format!("/{group}/{resource}/{}/{name}", namespace.unwrap_or(CLUSTER_SCOPE)))
    }

    /// Reads a key from its text.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_KEY {
            return Err(KeyError::Length(text.len()));
        }
        let shape = text.strip_prefix('/').is_some_and(|rest| {
            let mut parts = rest.split('/');
            parts.by_ref().take(4).filter(|part| !part.is_empty()).count() == 4 && parts.next().is_none()
        });
        if shape { Ok(Self(text.into())) } else { Err(KeyError::Shape(text.to_owned())) }
    }

    /// The whole key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, index: usize) -> &str {
        self.0.split('/').nth(index + 1).unwrap_or_default()
    }

    /// The API group; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        match self.part(0) {
            "core" => "",
            group => group,
        }
    }

    /// The resource: the plural name of the kind.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.part(1)
    }

    /// The namespace, or `None` for a cluster-scoped object.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(self.part(2)).filter(|namespace| *namespace != CLUSTER_SCOPE)
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.part(3)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Keys are ordered and hashed as their texts are, so that ordered maps of keys can be asked for a range of texts.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A key is sent and stored as its text.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                Key::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_parts() {
        let pod = Key::new("", "pods", Some("default"), "web-1").unwrap();
        assert_eq!(pod.as_str(), "/core/pods/default/web-1");
        assert_eq!((pod.group(), pod.resource(), pod.namespace(), pod.name()), ("", "pods", Some("default"), "web-1"));
        let node = Key::new("", "nodes", None, "n1").unwrap();
        assert_eq!((node.as_str(), node.namespace()), ("/core/nodes/_/n1", None));
    }

    #[test]
    fn what_has_not_four_parts_is_no_key() {
        for text in ["", "/", "/a/b/c", "a/b/c/d", "/a/b/c/d/e", "/a//c/d", "/a/b/c/"] {
            assert_eq!(Key::parse(text), Err(KeyError::Shape(text.to_owned())));
        }
        assert_eq!(Key::parse(&format!("/a/b/c/{}", "x".repeat(MAX_KEY))), Err(KeyError::Length(MAX_KEY + 7)));
    }
}
