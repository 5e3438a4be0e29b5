//! Questions to the store: the rows of a range, at present or at an older revision, a page at a time.
//!
//! Invariant: a page has at most [`MAX_PAGE`] rows and, unless it is one row, [`MAX_PAGE_BYTES`]; whatever is left out, `more` says so.

use serde::{Deserialize, Serialize};

use crate::{
    key::Key,
    lease::LeaseId,
    range::KeyRange,
    txn::{Document, Revision, Versioned},
};

/// The most rows of one page.
pub const MAX_PAGE: u32 = 10_000;

/// The most bytes of one page, unless its only row has more: a page and what surrounds it fit into one frame.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// Asks for a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many rows; 0: as many as a page may have.
    pub limit: u32,
    /// As of this revision; `None`: at present.
    pub at: Option<Revision>,
    /// What of them.
    pub select: Select,
}

/// What a query wants to know of the keys in its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Select {
    /// Everything.
    Rows,
    /// Everything but the documents.
    Keys,
    /// How many there are. Neither the limit nor that of a page applies.
    Count,
}

/// Rows of a range, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Page {
    /// The store's revision when the question was answered, also if it was about an older one.
    pub revision: Revision,
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether the range has more rows behind these: the next page is of [`KeyRange::after`] the last key, at the same revision.
    pub more: bool,
    /// How many keys there are, for [`Select::Count`]; otherwise how many rows this page has.
    pub count: u64,
}

/// A key, and what the store knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
    /// How often it was written since it was created; 1 at first.
    pub version: u64,
    /// The lease it is attached to.
    pub lease: Option<LeaseId>,
    /// Its document; `None` if it was not asked for.
    pub document: Option<Document>,
}

impl Query {
    /// Asks for all rows of a range at present, as many as a page may have.
    #[must_use]
    pub const fn new(range: KeyRange) -> Self {
        Self { range, limit: 0, at: None, select: Select::Rows }
    }

    /// As of a revision.
    #[must_use]
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// At most so many rows.
    #[must_use]
    pub const fn limit(mut self, rows: u32) -> Self {
        self.limit = rows;
        self
    }

    /// Less than everything.
    #[must_use]
    pub const fn select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }

    /// How many rows its page has at most.
    #[must_use]
    pub fn rows(&self) -> u32 {
        if self.limit == 0 { MAX_PAGE } else { self.limit.min(MAX_PAGE) }
    }
}

impl Row {
    /// Its document with its revisions; `None` if the document was not asked for.
    #[must_use]
    pub fn versioned(&self) -> Option<Versioned> {
        let document = self.document.clone()?;
        Some(Versioned { document, created: self.created, modified: self.modified })
    }

    /// What it weighs in a page, in bytes: somewhat more than it takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        64 + self.key.as_str().len() + self.document.as_ref().map_or(0, |document| document.0.len())
    }
}
