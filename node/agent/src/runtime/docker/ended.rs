//! What a container leaves as its last words: a file of the node that it sees at its termination message path, or the end of its log.
//!
//! The limits are the kubelet's (`pkg/kubelet/kuberuntime`): 4096 bytes of the file; of the log 80 lines, and of these 2048 bytes.
//!
//! Invariant: no more than the limits is ever read; the file goes with the pod's volumes.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::volume;
use crate::runtime::{ContainerSpec, LogLines, RuntimeError};

/// The most bytes of a termination message that are kept.
const MOST: u64 = 4096;
/// The most lines of a log that stand for one, and the most bytes of these.
const LINES: u32 = 80;
const LOG_MOST: usize = 2048;

/// Which lines of a log may stand for a message.
pub(super) fn log_lines() -> LogLines {
    LogLines { tail: Some(LINES), ..LogLines::default() }
}

/// Where the last words of one attempt are kept.
fn path(dir: &Path, uid: &str, name: &str, attempt: u32) -> io::Result<PathBuf> {
    // No volume's name begins with a dot.
    Ok(volume::pod_dir(dir, uid)?.join(".ended").join(format!("{}-{attempt}", volume::component(name)?)))
}

/// Makes an empty file that whoever the container runs as may write to.
pub(super) fn make(dir: &Path, container: &ContainerSpec) -> Result<PathBuf, RuntimeError> {
    let made = || {
        let path = path(dir, &container.uid, &container.name, container.attempt)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(&path)?;
        // Whatever the daemon's own mask is.
        file.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(path)
    };
    made().map_err(|error: io::Error| RuntimeError::Machine {
        what: format!("the file for the termination message of {} was not made", container.name),
        because: error.to_string(),
    })
}

/// What an attempt wrote to its file; empty if there is nothing.
pub(super) fn read(dir: &Path, uid: &str, name: &str, attempt: u32) -> String {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path(dir, uid, name, attempt)?)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error: io::Error| {
        tracing::debug!(container = name, %error, "it left no termination message");
        String::new()
    })
}

/// The end of a log, as much of it as a message may be.
pub(super) fn end_of(log: &[u8]) -> String {
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_MOST)..]).into_owned()
}

/// Adds a part to the end of a log, and lets go of what is too old to be of use.
pub(super) fn keep(log: &mut Vec<u8>, part: &[u8]) {
    log.extend_from_slice(part);
    log.drain(..log.len().saturating_sub(LOG_MOST));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_up_to_its_limit_and_there_may_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let container = ContainerSpec { name: "web".into(), uid: "u".into(), ..ContainerSpec::default() };
        assert_eq!(read(dir.path(), "u", "web", 0), "");
        let path = make(dir.path(), &container).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert_eq!(read(dir.path(), "u", "web", 0).len(), 4096);
        assert_eq!(read(dir.path(), "u", "web", 1), "", "another attempt has a file of its own");
        make(dir.path(), &container).unwrap();
        assert_eq!(read(dir.path(), "u", "web", 0), "", "made again, it is empty");
    }

    #[test]
    fn of_a_log_the_last_two_kilobytes_are_kept() {
        let mut log = Vec::new();
        for _ in 0..3 {
            keep(&mut log, &[b'a'; 1000]);
        }
        keep(&mut log, b"the end");
        assert_eq!(log.len(), 2048);
        assert!(end_of(&log).ends_with("athe end"));
    }
}
