//! When a cron job is due: five fields or a name such as `@hourly`, in a time zone.
//!
//! The grammar is that of Kubernetes (`robfig/cron`, standard): numbers, names, ranges, lists and steps; where both the day of the month
//! and the day of the week are given, either will do. What the library behind it knows beyond that is refused, so that a manifest means
//! the same elsewhere. Time zones are those compiled in: every node of a release knows the same.
//!
//! A time that a change of clocks leaves out is due as soon as the clock goes on; one that it repeats is due once, unless the schedule
//! says every hour or every minute.
//!
//! Invariant: what is due is a function of schedule, zone and time alone.

use std::str::FromStr as _;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};
use thiserror::Error;

/// The longest schedule, in bytes.
pub const MAX_SCHEDULE: usize = 256;

const NICKNAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due, again and again.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Too long.
    #[error("has {0} bytes, at most {MAX_SCHEDULE} are allowed")]
    Length(usize),
    /// It names its zone, which has a field of its own.
    #[error("must not name a time zone: write it into `timeZone`")]
    ZoneInside,
    /// A name that means no schedule.
    #[error("has the name `{0}`: the names are @yearly, @monthly, @weekly, @daily and @hourly")]
    Nickname(String),
    /// Not five fields.
    #[error("has {0} fields: it takes minute, hour, day of the month, month and day of the week")]
    Fields(usize),
    /// A field is none.
    #[error(
        "has `{field}` for the {which}: it takes `*`, numbers from {first} to {last}, and `,`, `-` and `/` between them"
    )]
    Field {
        /// What the field is.
        which: &'static str,
        /// What it says.
        field: String,
        /// The least number it may say.
        first: u8,
        /// The greatest.
        last: u8,
    },
    /// The library behind it takes it for none.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// No day fits.
    #[error("never comes: no day is the one it asks for")]
    Never,
    /// There is no such time zone.
    #[error("is no time zone this release knows")]
    Zone,
}

impl Schedule {
    /// Reads a schedule. Without a zone it is in UTC.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = zone.map_or(Ok(TimeZone::UTC), self::zone)?;
        if text.len() > MAX_SCHEDULE {
            return Err(ScheduleError::Length(text.len()));
        }
        let text = text.trim();
        let cron = if text.starts_with('@') {
            nickname(text)?
        } else {
            check(text)?;
            let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
            parser.parse(text).map_err(|error| ScheduleError::Unreadable(error.to_string()))?
        };
        let schedule = Self { cron, zone };
        match schedule.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }

    /// The first time after a moment.
    #[must_use]
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = moment.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|due| due.timestamp())
    }

    /// The last time up to a moment, and at it.
    #[must_use]
    pub fn until(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = Timestamp::from_second(moment.as_second()).ok()?.to_zoned(self.zone.clone());
        self.cron.find_previous_occurrence(&from, true).ok().map(|due| due.timestamp())
    }

    /// A time as its zone writes it: RFC 3339 with its offset.
    #[must_use]
    pub fn written(&self, moment: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return moment.to_string();
        }
        moment.display_with_offset(self.zone.to_offset(moment)).to_string()
    }
}

/// Finds a time zone by its name: `Europe/Berlin`.
///
/// # Errors
/// If this release knows none of this name.
pub fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if name.eq_ignore_ascii_case("local") || name.is_empty() {
        return Err(ScheduleError::Zone);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| ScheduleError::Zone)
}

fn nickname(text: &str) -> Result<Cron, ScheduleError> {
    let known = NICKNAMES.into_iter().find(|name| text.eq_ignore_ascii_case(name));
    let name = match known.ok_or_else(|| ScheduleError::Nickname(text.to_owned()))? {
        "@midnight" => "@daily",
        name => name,
    };
    Cron::from_str(name).map_err(|error| ScheduleError::Unreadable(error.to_string()))
}

/// Refuses what Kubernetes would.
fn check(text: &str) -> Result<(), ScheduleError> {
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Err(ScheduleError::ZoneInside);
    }
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else { return Err(ScheduleError::Fields(fields.len())) };
    for (which, field, bounds, names) in [
        ("minute", minute, 0..=59, &[][..]),
        ("hour", hour, 0..=23, &[]),
        ("day of the month", day, 1..=31, &[]),
        ("month", month, 1..=12, &MONTHS),
        ("day of the week", weekday, 0..=7, &DAYS),
    ] {
        let known = |word: &str| {
            ["*", "?"].contains(&word)
                || number(word).is_some_and(|number| bounds.contains(&number))
                || names.contains(&word.to_ascii_lowercase().as_str())
        };
        let is_step = |step: &str| number(step).is_some_and(|step| step > 0);
        let fits = |part: &str| match part.split_once('/') {
            Some((range, step)) => range.split('-').all(known) && is_step(step),
            None => part.split('-').all(known),
        };
        if !field.split(',').all(fits) {
            let (first, last) = (*bounds.start(), *bounds.end());
            return Err(ScheduleError::Field { which, field: field.to_owned(), first, last });
        }
    }
    Ok(())
}

fn number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.bytes().all(|letter| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next times after one.
    fn times(schedule: &str, zone: Option<&str>, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let next = |time: &Timestamp| schedule.after(*time);
        std::iter::successors(schedule.after(at(after)), next).take(count).map(|time| time.to_string()).collect()
    }

    #[test]
    fn schedules_mean_what_they_mean_in_kubernetes() {
        let next = |schedule: &str| times(schedule, None, "2027-01-15T08:00:00Z", 1).concat();
        for (schedule, due) in [
            ("* * * * *", "2027-01-15T08:01:00Z"),
            ("*/15 * * * *", "2027-01-15T08:15:00Z"),
            ("0 8 * * *", "2027-01-16T08:00:00Z"),
            ("5,10-12 8 * * *", "2027-01-15T08:05:00Z"),
            ("10-40/15 8 * * *", "2027-01-15T08:10:00Z"),
            ("0 0 1 * *", "2027-02-01T00:00:00Z"),
            ("0 0 * * MON", "2027-01-18T00:00:00Z"),
            ("0 0 * * mon-fri", "2027-01-18T00:00:00Z"),
            ("0 0 * * 0", "2027-01-17T00:00:00Z"),
            ("0 0 13 * 5", "2027-01-22T00:00:00Z"),
            ("0 0 ? 3 ?", "2027-03-01T00:00:00Z"),
            ("0 0 29 FEB *", "2028-02-29T00:00:00Z"),
            ("@hourly", "2027-01-15T09:00:00Z"),
            ("@daily", "2027-01-16T00:00:00Z"),
            ("@midnight", "2027-01-16T00:00:00Z"),
            ("@weekly", "2027-01-17T00:00:00Z"),
            ("@monthly", "2027-02-01T00:00:00Z"),
            ("@yearly", "2028-01-01T00:00:00Z"),
            ("@annually", "2028-01-01T00:00:00Z"),
        ] {
            assert_eq!(next(schedule), due, "{schedule}");
        }
    }

    #[test]
    fn the_last_time_is_found_from_any_moment_after_it() {
        let schedule = Schedule::parse("30 8 * * *", None).unwrap();
        for (moment, last) in [
            ("2027-01-15T08:30:00Z", "2027-01-15T08:30:00Z"),
            ("2027-01-15T08:30:00.9Z", "2027-01-15T08:30:00Z"),
            ("2027-01-15T08:29:59.9Z", "2027-01-14T08:30:00Z"),
            ("2027-01-16T00:00:00Z", "2027-01-15T08:30:00Z"),
        ] {
            assert_eq!(schedule.until(at(moment)), Some(at(last)), "{moment}");
        }
    }

    #[test]
    fn a_zone_moves_the_times_and_its_clock_changes_neither_lose_nor_repeat_one() {
        let berlin = Some("Europe/Berlin");
        assert_eq!(times("0 8 * * *", berlin, "2027-01-15T08:00:00Z", 1), ["2027-01-16T07:00:00Z"]);
        let written = Schedule::parse("0 8 * * *", berlin).unwrap().written(at("2027-01-16T07:00:00Z"));
        assert_eq!(written, "2027-01-16T08:00:00+01:00");
        let spring = times("30 2 * * *", berlin, "2027-03-27T12:00:00Z", 2);
        assert_eq!(spring, ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"], "half past two does not come on that day");
        let autumn = times("30 2 * * *", berlin, "2027-10-30T12:00:00Z", 2);
        assert_eq!(autumn, ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"], "half past two comes twice on that day");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What is due is found by looking ahead and by looking back, also where clocks change.
        #[test]
        fn looking_back_finds_what_looking_ahead_found(
            schedule in prop::sample::select(vec!["30 2 * * *", "0 * * * *", "*/7 1-3 * * *", "15 3 * 3,10 0", "@monthly"]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            moment in 1_800_000_000_i64..1_900_000_000,
            near in prop::sample::select(vec![None, Some("2027-03-28T01:00:00Z"), Some("2027-10-31T00:00:00Z"), Some("2027-03-14T06:00:00Z")]),
        ) {
            let schedule = Schedule::parse(schedule, Some(zone)).unwrap();
            let moment = near.map_or(moment, |near| at(near).as_second() + moment % 10_000 - 5_000);
            let moment = Timestamp::from_second(moment).unwrap();
            let due = schedule.after(moment).unwrap();
            prop_assert!(due > moment);
            prop_assert_eq!(schedule.until(due), Some(due));
            let before = Timestamp::from_second(due.as_second() - 1).unwrap();
            prop_assert!(schedule.until(before).unwrap() <= moment, "nothing is due in between");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_why() {
        let why = |schedule: &str| Schedule::parse(schedule, None).unwrap_err().to_string();
        for (schedule, because) in [
            ("* * * *", "has 4 fields: it takes minute, hour, day of the month, month and day of the week"),
            ("0 * * * * *", "has 6 fields: it takes minute, hour, day of the month, month and day of the week"),
            ("", "has 0 fields: it takes minute, hour, day of the month, month and day of the week"),
            ("TZ=UTC 0 0 * * *", "must not name a time zone: write it into `timeZone`"),
            ("@every 5m", "has the name `@every 5m`: the names are @yearly, @monthly, @weekly, @daily and @hourly"),
            (
                "0 25 * * *",
                "has `25` for the hour: it takes `*`, numbers from 0 to 23, and `,`, `-` and `/` between them",
            ),
            (
                "0 0 L * *",
                "has `L` for the day of the month: it takes `*`, numbers from 1 to 31, and `,`, `-` and `/` between them",
            ),
            (
                "0 0 * JANUARY *",
                "has `JANUARY` for the month: it takes `*`, numbers from 1 to 12, and `,`, `-` and `/` between them",
            ),
            ("0 0 30 2 *", "never comes: no day is the one it asks for"),
        ] {
            assert_eq!(why(schedule), because, "{schedule}");
        }
        for schedule in [
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "0 0 * * 5#2",
            "0 0 15W * *",
            "0 0 * * +1",
        ] {
            assert!(Schedule::parse(schedule, None).is_err(), "{schedule}");
        }
        assert_eq!(why(&"1,".repeat(200)), "has 400 bytes, at most 256 are allowed");
        for zone in ["Europe/Atlantis", "Local", ""] {
            assert_eq!(Schedule::parse("@daily", Some(zone)).unwrap_err(), ScheduleError::Zone, "{zone}");
        }
    }
}
