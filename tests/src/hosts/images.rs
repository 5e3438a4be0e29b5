//! The images of the stories' pods: the shop's, made of busybox; no registry is asked.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::said::Said;

/// Builds `shop/hello:1` into a directory: an archive that `quorate dev load` reads.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn hello(directory: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/images").canonicalize().unwrap();
    let _ = Said::by(Command::new(script).arg(directory), b"").done();
    directory.join("hello.tar")
}
