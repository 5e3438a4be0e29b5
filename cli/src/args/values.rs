//! Reads single values of the command line.
//!
//! Invariant: what is wrong is quoted, and what would be right is shown.

use std::time::Duration;

use crate::transport::local;

/// The largest duration: more is a mistake.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d`, or several of them in a row.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 500ms, 30s, 5m, 1h30m or 7d");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_length = match &rest[digits..digits + unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(wrong()),
        };
        let part = unit_length.checked_mul(number).ok_or_else(wrong)?;
        total = total
            .checked_add(part)
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| format!("`{text}` is longer than the limit of 366d"))?;
        rest = &rest[digits + unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Reads where a node is: `HOST:PORT` or `unix:///PATH`.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let port =
        |text: &str| text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let is_endpoint = if text.starts_with(local::SCHEME) { local::path(text).is_some() } else { port(text) };
    match is_endpoint {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no node: write HOST:PORT or {}{}", local::SCHEME, local::SOCKET)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_named() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "5y", "-5s", "5 s", "99999999999s", "5sé"] {
            let said = duration(wrong).unwrap_err();
            assert_eq!(said, format!("`{wrong}` is no duration: write 500ms, 30s, 5m, 1h30m or 7d"));
        }
        assert_eq!(duration("9999d"), Err("`9999d` is longer than the limit of 366d".to_owned()));
    }

    #[test]
    fn a_node_is_named_by_its_port_or_its_socket() {
        for right in ["n1:7443", "10.99.0.1:7443", "[::1]:7443", "unix:///run/quorate/api.sock"] {
            assert_eq!(endpoint(right), Ok(right.to_owned()));
        }
        for wrong in ["n1", ":7443", "n1:", "n1:70000", "unix://api.sock", "unix:", ""] {
            let said = endpoint(wrong).unwrap_err();
            assert_eq!(said, format!("`{wrong}` is no node: write HOST:PORT or unix:///run/quorate/api.sock"));
        }
    }
}
