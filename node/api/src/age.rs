//! How long ago something was, as `kubectl` writes it: `5s`, `3m12s`, `2d`, `3d4h`.
//! Source: apimachinery `pkg/util/duration/duration.go`, `HumanDuration`.

use quorate_proto::world::Timestamp;

/// The time since an RFC 3339 time; `<unknown>` if it is none, `<invalid>` if it is well in the future.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => written(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

fn written(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |unit: i64, name: char, smaller: i64, smaller_name: char| {
        let (whole, rest) = (seconds / unit, seconds % unit / smaller);
        if rest == 0 { format!("{whole}{name}") } else { format!("{whole}{name}{rest}{smaller_name}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(), // clocks differ a little
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, 'm', 1, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, 'h', MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, 'd', HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(YEAR, 'y', DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 12 * 60, "3h12m"),
            (9 * 3600 + 60, "9h"),
            (48 * 3600, "2d"),
            (76 * 3600, "3d4h"),
            (9 * 86400 + 3600, "9d"),
            (800 * 86400, "2y70d"),
            (3650 * 86400, "10y"),
        ] {
            assert_eq!(written(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn what_is_no_time_has_no_age() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(since("2027-01-15T07:59:18Z", now), "42s");
        assert_eq!(since("yesterday", now), "<unknown>");
    }
}
