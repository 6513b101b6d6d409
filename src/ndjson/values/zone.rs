//! From a local time to the moment that it is.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::ValueError;
use crate::schema::Zone;

/// The zones' tables end around the year 2100, though summer time goes on: later years, and the last
/// ones of the tables, are looked up as an equal year of this cycle. In 28 years each day of the week
/// begins a year of either length.
const CYCLE: std::ops::RangeInclusive<i32> = 2069..=2096;

/// Seconds since 1970 of a local time. Of two that it may be (clocks were set back) the first; of
/// none (they were set forward) what the later offset makes of it: both as ClickHouse does.
pub(super) fn in_zone(local: NaiveDateTime, zone: Zone) -> Result<i64, ValueError> {
    let as_utc = local.and_utc().timestamp();
    let zone = match zone {
        Zone::Utc => return Ok(as_utc),
        Zone::Named(zone) => zone,
    };
    let known = known_time(local, zone);
    // A gap is an hour as a rule; one was a whole day.
    for hours in 0..=25 {
        let later = known + TimeDelta::hours(hours);
        if let Some(offset) = zone.offset_from_local_datetime(&later).earliest() {
            return Ok(as_utc - i64::from(offset.fix().local_minus_utc()));
        }
    }
    Err(ValueError::OutOfRange)
}

/// What a clock in the zone shows at a moment: seconds since 1970 as if it were UTC.
pub(super) fn local_seconds(seconds: i64, zone: Zone) -> i64 {
    let (Zone::Named(zone), Some(utc)) = (zone, DateTime::from_timestamp(seconds, 0)) else { return seconds };
    let known = known_time(utc.naive_utc(), zone);
    seconds + i64::from(zone.offset_from_utc_datetime(&known).fix().local_minus_utc())
}

/// The same time of a year that the zone's table has.
fn known_time(time: NaiveDateTime, zone: Tz) -> NaiveDateTime {
    if time.year() <= *CYCLE.end() || has_one_offset(zone) {
        return time;
    }
    let date = time.date();
    let equal = CYCLE.filter_map(|year| date.with_year(year)).find(|equal| {
        let same_days = equal.leap_year() == date.leap_year();
        same_days && equal.weekday() == date.weekday()
    });
    equal.map_or(time, |date| date.and_time(time.time()))
}

/// True for a zone without summer time by the end of its table. One had another rule until then.
fn has_one_offset(zone: Tz) -> bool {
    let offset = |month: u32| {
        let time = chrono::NaiveDate::from_ymd_opt(*CYCLE.end(), month, 1)?.and_hms_opt(0, 0, 0)?;
        Some(zone.offset_from_utc_datetime(&time).fix())
    };
    (2..=12).all(|month| offset(month) == offset(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;
    use std::str::FromStr;

    /// The figures are ClickHouse 26.7's.
    #[test]
    fn summer_time_does_not_end_with_the_tables() {
        for (zone, year, summer, winter) in [
            ("Europe/Berlin", 2096, 7200, 3600),
            ("Europe/Berlin", 2099, 7200, 3600),
            ("Europe/Berlin", 2100, 7200, 3600),
            ("Europe/Berlin", 2299, 7200, 3600),
            ("America/New_York", 2150, -14_400, -18_000),
            ("Australia/Sydney", 2200, 36_000, 39_600),
            ("Asia/Kolkata", 2200, 19_800, 19_800),
            ("Africa/Casablanca", 2150, 3600, 3600),
        ] {
            let named = Zone::Named(Tz::from_str(zone).unwrap());
            for (month, offset) in [(7, summer), (1, winter)] {
                let local = NaiveDate::from_ymd_opt(year, month, 10).unwrap().and_hms_opt(12, 0, 0).unwrap();
                let seconds = in_zone(local, named).unwrap();
                assert_eq!(local.and_utc().timestamp() - seconds, offset, "{zone} {local}");
                assert_eq!(local_seconds(seconds, named), local.and_utc().timestamp(), "{zone} {local}");
            }
        }
    }

    #[test]
    fn each_later_year_has_an_equal_one() {
        let berlin = Tz::Europe__Berlin;
        for year in 2097..=2299 {
            for date in [(1, 1), (2, 28), (3, 1), (3, 31), (10, 31), (12, 31)] {
                let time = NaiveDate::from_ymd_opt(year, date.0, date.1).unwrap().and_hms_opt(1, 2, 3).unwrap();
                let known = known_time(time, berlin);
                assert!(CYCLE.contains(&known.year()) && known.ordinal() == time.ordinal(), "{time} {known}");
                assert_eq!(known.weekday(), time.weekday());
            }
        }
        let leap_day = NaiveDate::from_ymd_opt(2104, 2, 29).unwrap().and_hms_opt(0, 0, 0).unwrap();
        assert_eq!(known_time(leap_day, berlin).ordinal(), 60);
    }
}
