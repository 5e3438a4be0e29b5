//! How low an OOM score may be set on this machine.
//!
//! The kernel lets only who has `CAP_SYS_RESOURCE` lower a score; where the engine is confined without it (rootless, in a container of
//! its own), no container with a lower score starts at all. The engine is on this machine and confined as we are, so our own
//! capabilities tell. containerd knows the same rule as `restrict_oom_score_adj`.
//!
//! Invariant: where scores cannot be lowered they are as low as they can be, and everything else is as it should be.

use std::{fs, io};

/// `CAP_SYS_RESOURCE` (capabilities(7)).
const SYS_RESOURCE: u32 = 24;
/// The lowest score there is.
const LOWEST: i64 = -1000;

/// The lowest score that a container may have.
pub(super) fn floor() -> i64 {
    match (fs::read_to_string("/proc/self/status"), fs::read_to_string("/proc/self/oom_score_adj")) {
        (Ok(status), Ok(own)) => of(&status, &own),
        (status, own) => {
            let error: Option<io::Error> = status.err().or(own.err());
            tracing::warn!(?error, "whether OOM scores may be lowered is not known; they are not");
            0
        }
    }
}

fn of(status: &str, own: &str) -> i64 {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    if effective & (1 << SYS_RESOURCE) != 0 { LOWEST } else { own.trim().parse().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_lower_a_score_keeps_to_its_own() {
        assert_eq!(of("Name:\tq\nCapEff:\t000001ffffffffff\n", "0\n"), LOWEST);
        assert_eq!(of("Name:\tq\nCapEff:\t000001fffeffffff\n", "100\n"), 100);
    }
}
