//! What a program says to whoever watches it.
//!
//! Invariant: a line is there as soon as it was said, also in a file.

use std::io::{self, Write as _};

/// Says something.
pub fn tell(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed the pipe wants to hear no more.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}
