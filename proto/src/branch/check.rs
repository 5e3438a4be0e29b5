//! What a branch may be: its limits, and that no way through it writes a key twice.
//!
//! Invariant: pure and bounded: a branch is looked at no deeper than [`MAX_DEPTH`], and its size is known before anything is compared.

use super::{Branch, BranchError, Comparison, MAX_DEPTH, Operation, Target};
use crate::{
    key::Key,
    range::KeyRange,
    txn::{MAX_OPERATIONS, MAX_TXN},
};

/// What one way, or any of several, writes.
#[derive(Default)]
struct Writes<'a> {
    puts: Vec<&'a Key>,
    deletes: Vec<&'a KeyRange>,
}

impl Branch {
    /// Whether it may be proposed.
    ///
    /// # Errors
    /// If it is beyond a limit, or writes a key twice, see [`BranchError`].
    pub fn check(&self) -> Result<(), BranchError> {
        if !self.fits(MAX_DEPTH) {
            return Err(BranchError::Depth);
        }
        let (operations, bytes) = (self.operations(), self.size());
        if operations > MAX_OPERATIONS {
            return Err(BranchError::Operations(operations));
        }
        if bytes > MAX_TXN {
            return Err(BranchError::Bytes(bytes));
        }
        self.writes().map(drop)
    }

    /// Compares and operations together, over all branches within.
    #[must_use]
    pub fn operations(&self) -> usize {
        let within = |operation: &Operation| match operation {
            Operation::Branch(branch) => 1 + branch.operations(),
            Operation::Put { .. } | Operation::Delete { .. } | Operation::Query(_) => 1,
        };
        self.compares.len() + self.then.iter().chain(&self.otherwise).map(within).sum::<usize>()
    }

    /// Bytes of all keys, ranges and documents.
    #[must_use]
    pub fn size(&self) -> usize {
        let compare = |comparison: &Comparison| {
            let target = if let Target::Value(document) = &comparison.target { document.0.len() } else { 9 };
            comparison.range.size() + target
        };
        let operation = |operation: &Operation| match operation {
            Operation::Put { key, document, .. } => key.as_str().len() + document.0.len(),
            Operation::Delete { range, .. } => range.size(),
            Operation::Query(query) => query.range.size() + 16,
            Operation::Branch(branch) => branch.size(),
        };
        let operations: usize = self.then.iter().chain(&self.otherwise).map(operation).sum();
        self.compares.iter().map(compare).sum::<usize>() + operations
    }

    fn fits(&self, depth: usize) -> bool {
        depth > 0
            && self.then.iter().chain(&self.otherwise).all(|operation| match operation {
                Operation::Branch(branch) => branch.fits(depth - 1),
                Operation::Put { .. } | Operation::Delete { .. } | Operation::Query(_) => true,
            })
    }

    /// What it may write, whichever way it goes.
    fn writes(&self) -> Result<Writes<'_>, BranchError> {
        let mut either = way(&self.then)?;
        let other = way(&self.otherwise)?;
        either.puts.extend(other.puts);
        either.deletes.extend(other.deletes);
        Ok(either)
    }
}

/// What operations that are all done write, as long as none of them writes what another one does.
fn way(operations: &[Operation]) -> Result<Writes<'_>, BranchError> {
    let mut all = Writes::default();
    for operation in operations {
        let next = match operation {
            Operation::Put { key, .. } => Writes { puts: vec![key], deletes: Vec::new() },
            Operation::Delete { range, .. } => Writes { puts: Vec::new(), deletes: vec![range] },
            Operation::Query(_) => continue,
            Operation::Branch(branch) => branch.writes()?,
        };
        // Two deletions may overlap: the second finds nothing more to delete.
        let again = |key: &&&Key| all.puts.contains(*key) || all.deletes.iter().any(|range| range.contains(key));
        let deleted = |key: &&&Key| next.deletes.iter().any(|range| range.contains(key));
        if let Some(key) = next.puts.iter().find(again).or_else(|| all.puts.iter().find(deleted)) {
            return Err(BranchError::DuplicateKey((*key).clone()));
        }
        all.puts.extend(next.puts);
        all.deletes.extend(next.deletes);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{branch::Operator, query::Query, txn::Document};

    fn key(name: &str) -> Key {
        Key::new("", "pods", Some("a"), name).unwrap()
    }

    fn put(name: &str) -> Operation {
        Operation::put(key(name), Document(Bytes::from_static(b"{}")))
    }

    fn delete(name: &str) -> Operation {
        Operation::delete(KeyRange::key(&key(name)))
    }

    #[test]
    fn a_key_that_one_way_writes_twice_is_refused() {
        let twice = [
            Branch::new().then(put("a")).then(put("a")),
            Branch::new().then(put("a")).then(delete("a")),
            Branch::new().then(delete("a")).then(put("a")),
            Branch::new().otherwise(put("a")).otherwise(Operation::Branch(Branch::new().otherwise(put("a")))),
            Branch::new().then(Operation::Branch(Branch::new().then(delete("a")))).then(put("a")),
        ];
        for branch in twice {
            assert_eq!(branch.check(), Err(BranchError::DuplicateKey(key("a"))), "{branch:?}");
        }
        let once = [
            Branch::new().then(put("a")).otherwise(put("a")),
            Branch::new().then(delete("a")).then(delete("a")),
            Branch::new().then(put("a")).then(Operation::Query(Query::new(KeyRange::all()))),
            Branch::new().then(Operation::Branch(Branch::new().then(put("a")).otherwise(put("a")))),
        ];
        for branch in once {
            assert_eq!(branch.check(), Ok(()), "{branch:?}");
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_with_the_limit() {
        let many = (0..64).fold(Branch::new(), |branch, _| {
            branch.when(&key("a"), Operator::Equal, Target::Version(0)).then(delete("a"))
        });
        assert_eq!(many.check(), Ok(()));
        let error = many.otherwise(delete("a")).check().unwrap_err();
        assert_eq!(error.to_string(), "a transaction of 129 operations is beyond the limit of 128");
        let large = Branch::new().then(Operation::put(key("a"), Document(vec![b'x'; MAX_TXN].into())));
        let error = large.check().unwrap_err();
        assert_eq!(error.to_string(), "a transaction of 1572878 bytes is beyond the limit of 1572864");
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let nested = |depth| (1..depth).fold(Branch::new(), |inner, _| Branch::new().then(Operation::Branch(inner)));
        assert_eq!(nested(MAX_DEPTH).check(), Ok(()));
        let error = nested(MAX_DEPTH + 1).check().unwrap_err();
        assert_eq!(error.to_string(), "branches are nested at most 8 deep");
    }

    #[test]
    fn a_key_that_was_never_written_compares_as_zero_and_has_no_value() {
        let compare = |operator, target| Comparison { range: KeyRange::key(&key("a")), operator, target };
        assert!(compare(Operator::Equal, Target::Version(0)).holds(None));
        assert!(compare(Operator::Less, Target::Lease(crate::lease::LeaseId::new(1))).holds(None));
        for operator in [Operator::Equal, Operator::NotEqual, Operator::Less, Operator::Greater] {
            assert!(!compare(operator, Target::Value(Document(Bytes::from_static(b"a")))).holds(None));
        }
    }
}
