//! Ends namespaces: contents first, then the namespace itself.
//!
//! Invariant: a namespace is removed only when nothing is left in it; nothing new is made in one that ends.

use quorate_proto::{
    kinds::{KINDS, NAMESPACES, PODS},
    txn::Txn,
};

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::delete,
    pod::end,
};

/// How many objects one transaction removes: each is a compare and a write.
const BATCH: usize = 32;

/// Ends what was asked to end.
pub(crate) fn end_namespaces(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    for namespace in snapshot.objects.list(&NAMESPACES) {
        if namespace.object.deletion_timestamp().is_none() {
            continue;
        }
        let mut left = Vec::new();
        for kind in KINDS.iter().filter(|kind| kind.namespaced) {
            let contents: Vec<_> = snapshot.objects.list_in(kind, namespace.object.name()).collect();
            for batch in contents.chunks(BATCH) {
                let end = |txn, stored| {
                    if **kind == PODS { end(txn, stored, moment.wall) } else { delete(txn, stored, moment.wall) }
                };
                decision.propose(batch.iter().fold(Txn::new(), |txn, stored| end(txn, stored)));
            }
            if !contents.is_empty() {
                left.push(format!(
                    "{} {}",
                    contents.len(),
                    if contents.len() == 1 { kind.singular } else { kind.plural }
                ));
            }
        }
        if left.is_empty() {
            decision.propose(delete(Txn::new(), namespace, moment.wall));
        } else {
            decision.explain(&namespace.key, format!("waits for {} to end", left.join(", ")));
        }
    }
    decision
}

#[cfg(test)]
mod tests;
