//! The registry of kinds as data: what a kind is called, where it lives, what may be done with it, what a table of it shows.
//!
//! The API, the command line, tables and discovery read it; adding a kind is a row here, a controller and its tests. Rows stand in
//! `kinds/`, a file per API group.
//!
//! Invariant: no other place lists kinds; names, plurals and short names are unique.

mod apps;
mod batch;
mod core;
mod quorate;

use crate::key::{Key, KeyError};

pub use self::{
    apps::{DAEMONSETS, DEPLOYMENTS, REPLICASETS},
    batch::{CRONJOBS, JOBS},
    core::{CONFIGMAPS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICES},
    quorate::{ADDRESSES, CLUSTERS, JOINTOKENS},
};

/// All kinds, in the order in which they are listed and applied: what others need comes first.
pub const KINDS: &[&Kind] = &[
    &NAMESPACES,
    &NODES,
    &CONFIGMAPS,
    &SECRETS,
    &SERVICES,
    &PODS,
    &REPLICASETS,
    &DEPLOYMENTS,
    &DAEMONSETS,
    &JOBS,
    &CRONJOBS,
    &EVENTS,
    &CLUSTERS,
    &JOINTOKENS,
    &ADDRESSES,
];

/// One kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The served version.
    pub version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `pods`: the resource.
    pub plural: &'static str,
    /// `pod`.
    pub singular: &'static str,
    /// `po`.
    pub short: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Who may change it, and how.
    pub access: Access,
    /// The columns of its table, in order.
    pub columns: &'static [Column],
}

/// Who may do what with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Users create, change and delete it.
    Full,
    /// Users read, change and delete it; only the cluster creates it (nodes).
    Adopted,
    /// Users only read it; the cluster writes it (events).
    Observed,
    /// Not served: the cluster's own records.
    Internal,
}

/// A column of a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading, in capitals as `kubectl` prints it.
    pub name: &'static str,
    /// Whether it is shown only by `-o wide`.
    pub wide: bool,
    /// Where its text comes from.
    pub cell: Cell,
}

/// Where the text of a cell comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Cell {
    /// The value at a path; what stands for a missing one.
    Path(&'static [&'static str], &'static str),
    /// How long ago the time at a path was: `5m`, `3h12m`, `2d`.
    Age(&'static [&'static str]),
    /// Computed from the whole object, by the function of this name in `node/api/src/table.rs`.
    Computed(&'static str),
}

impl Kind {
    /// `apiVersion`: `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind as messages name it: `pod`, `deployment.apps`.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.singular.to_owned() } else { format!("{}.{}", self.singular, self.group) }
    }

    /// The key of one object. The namespace is left out for cluster-scoped kinds and `default` where it is missing.
    ///
    /// # Errors
    /// If the name or the namespace cannot be part of a key.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> Result<Key, KeyError> {
        let namespace = self.namespaced.then(|| namespace.unwrap_or("default"));
        Key::new(self.group, self.plural, namespace, name)
    }

    /// What the keys of this kind begin with; with a namespace, those in it.
    #[must_use]
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/{group}/{}/{namespace}/", self.plural),
            None => format!("/{group}/{}/", self.plural),
        }
    }

    /// Finds a kind by what a user may write: plural, singular, short name, kind, or any of them with the group (`deployments.apps`).
    #[must_use]
    pub fn named(text: &str) -> Option<&'static Self> {
        let text = text.to_ascii_lowercase();
        let (name, group) = text.split_once('.').map_or((text.as_str(), None), |(name, group)| (name, Some(group)));
        KINDS.iter().copied().find(|kind| {
            let group_fits =
                group.is_none_or(|group| group == kind.group || format!("{}.{}", kind.version, kind.group) == group);
            let names = [kind.plural, kind.singular];
            group_fits && (names.contains(&name) || kind.short.contains(&name) || kind.kind.eq_ignore_ascii_case(name))
        })
    }

    /// Finds a kind by the `apiVersion` and `kind` of a manifest.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().copied().find(|row| row.kind == kind && row.api_version() == api_version)
    }

    /// The kind of the object under a key.
    #[must_use]
    pub fn at(key: &Key) -> Option<&'static Self> {
        KINDS.iter().copied().find(|row| row.group == key.group() && row.plural == key.resource())
    }
}

const NAME: Column = Column { name: "NAME", wide: false, cell: Cell::Path(&["metadata", "name"], "") };
const AGE: Column = Column { name: "AGE", wide: false, cell: Cell::Age(&["metadata", "creationTimestamp"]) };

const fn computed(name: &'static str, function: &'static str) -> Column {
    Column { name, wide: false, cell: Cell::Computed(function) }
}

const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, wide: true, cell }
}

const fn path(name: &'static str, path: &'static [&'static str], missing: &'static str) -> Column {
    Column { name, wide: false, cell: Cell::Path(path, missing) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kind_is_found_by_every_name_a_user_may_write() {
        for name in ["deployments", "deployment", "deploy", "Deployment", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(Kind::named(name), Some(&DEPLOYMENTS), "{name}");
        }
        assert_eq!(Kind::named("pods.apps"), None);
        assert_eq!(Kind::of("apps/v1", "Deployment"), Some(&DEPLOYMENTS));
        assert_eq!(Kind::of("v1", "Deployment"), None);
    }

    #[test]
    fn no_name_means_two_kinds() {
        let mut seen = BTreeSet::new();
        for kind in KINDS {
            let names = [kind.plural, kind.singular].into_iter().chain(kind.short.iter().copied());
            for name in names.collect::<BTreeSet<_>>() {
                assert!(seen.insert(name), "{name} is used twice");
            }
        }
    }

    #[test]
    fn keys_and_prefixes_fit_together() {
        for kind in KINDS {
            let key = kind.key(Some("shop"), "x").unwrap();
            assert!(key.as_str().starts_with(&kind.prefix(Some("shop"))));
            assert!(key.as_str().starts_with(&kind.prefix(None)));
            assert_eq!(Kind::at(&key), Some(*kind));
        }
    }
}
