//! Which objects a list or a watch is about.
//!
//! Invariant: selectors are parsed once, before anything is read.

use std::sync::Arc;

use quorate_proto::{
    kinds::Kind,
    refusal::{Reason, Refusal},
    request::{Selection, Shape},
    selector::{FieldSelector, Selector, SelectorError},
    snapshot::{Snapshot, Stored},
};

use crate::{
    decode,
    message::{Subject, Verb},
};

/// A selection, understood.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) kind: &'static Kind,
    pub(crate) shape: Shape,
    namespace: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Selected {
    pub(crate) fn parse(selection: &Selection) -> Result<Self, Refusal> {
        let kind = decode::served(Verb::Read, &selection.kind)?;
        let subject = Subject::new(Verb::Read, kind, "");
        let refuse = |error: SelectorError| subject.refuse(Reason::BadRequest, error.to_string());
        let labels = Selector::parse(&selection.labels).map_err(refuse)?;
        let fields = FieldSelector::parse(&selection.fields).map_err(refuse)?;
        fields.check(kind).map_err(refuse)?;
        let namespace = selection.namespace.clone().filter(|_| kind.namespaced);
        Ok(Self { kind, shape: selection.shape, namespace, labels, fields })
    }

    /// Whether an object of this kind is meant.
    pub(crate) fn selects(&self, stored: &Stored) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| stored.key.namespace() == Some(namespace))
            && self.labels.selects(&stored.object)
            && self.fields.selects(&stored.object)
    }

    /// All that is meant, by namespace and name.
    pub(crate) fn of<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Arc<Stored>> + use<'a> {
        let (some, all) = match &self.namespace {
            Some(namespace) => (Some(snapshot.list_in(self.kind, namespace)), None),
            None => (None, Some(snapshot.list(self.kind))),
        };
        some.into_iter().flatten().chain(all.into_iter().flatten()).filter(|stored| self.selects(stored))
    }
}
