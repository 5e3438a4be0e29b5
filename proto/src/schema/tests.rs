//! What each field of a manifest leads to.
