//! Parsing of dates and times in all accepted forms: the subset of ClickHouse's "best effort" formats
//! that is unambiguous
//! (<https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions#parsedatetimebesteffort>).
//!
//! ```text
//! text    = [spaces] ( number | date [ ("T" | spaces) time ] [spaces] [ zone ] ) [spaces]
//! number  = 9 or 10 digits: seconds since 1970, in DateTime64 with an optional "." digits
//!         | 13, 16 or 19 digits: milliseconds, microseconds, nanoseconds since 1970
//!         | YYYYMMDD | YYYYMMDDhhmmss
//! date    = YYYY "-" M[M] "-" D[D] | YYYY "/" M[M] "/" D[D]
//! time    = h[h] [ ":" m[m] [ ":" s[s] [ "." digits ] ] ]
//! zone    = "Z" | "UTC" | "GMT" | ("+" | "-") h[h] [ ":" mm ] | ("+" | "-") hhmm
//! ```

use chrono::{NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};

use super::ValueError;
use crate::schema::Zone;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970, UTC.
    pub(super) seconds: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub(super) nanoseconds: u32,
}

/// Parses a date and time. `zone` is the time zone of text without an offset; `unix_fraction` allows a
/// fraction after Unix seconds.
pub(super) fn parse(text: &[u8], zone: Zone, unix_fraction: bool) -> Result<Moment, ValueError> {
    let text = text.trim_ascii();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits).ok_or(ValueError::Mismatch)?;
    match (digits, rest) {
        (8 | 14, []) => compact(number, zone),
        (13 | 16 | 19, []) => unix(number, b""),
        (9 | 10, []) => unix(number, b""),
        (9 | 10, [b'.', fraction @ ..]) if unix_fraction => unix(number, fraction),
        (4, [b'-' | b'/', ..]) => civil(text, zone),
        _ => Err(ValueError::Mismatch),
    }
}

/// Parses a date without time: `YYYY-M-D`, `YYYY/M/D` or `YYYYMMDD`.
pub(super) fn parse_date(text: &[u8]) -> Result<NaiveDate, ValueError> {
    let mut cursor = Cursor(text);
    let date = if text.len() == 8 && text.iter().all(u8::is_ascii_digit) {
        (cursor.digits(4, 4)?, cursor.digits(2, 2)?, cursor.digits(2, 2)?)
    } else {
        cursor.date()?
    };
    if !cursor.0.is_empty() {
        return Err(ValueError::Mismatch);
    }
    calendar_date(date)
}

/// The moment of a Unix time: seconds, milliseconds, microseconds or nanoseconds since 1970, by the
/// number of digits. `fraction` are the digits of a fraction of seconds.
fn unix(number: &[u8], fraction: &[u8]) -> Result<Moment, ValueError> {
    let value = Cursor(number).long()?;
    let per_second = match number.len() {
        13 => 1_000,
        16 => 1_000_000,
        19 => 1_000_000_000,
        _ => 1,
    };
    let seconds = value / per_second;
    let nanoseconds = if per_second == 1 {
        Cursor(fraction).fraction_if_any()?
    } else {
        (value % per_second * (1_000_000_000 / per_second)) as u32
    };
    Ok(Moment { seconds: seconds as i64, nanoseconds })
}

fn compact(number: &[u8], zone: Zone) -> Result<Moment, ValueError> {
    let mut cursor = Cursor(number);
    let date = (cursor.digits(4, 4)?, cursor.digits(2, 2)?, cursor.digits(2, 2)?);
    let time = if cursor.0.is_empty() {
        (0, 0, 0)
    } else {
        (cursor.digits(2, 2)?, cursor.digits(2, 2)?, cursor.digits(2, 2)?)
    };
    let seconds = in_zone(calendar(date, time)?, zone)?;
    Ok(Moment { seconds, nanoseconds: 0 })
}

fn civil(text: &[u8], zone: Zone) -> Result<Moment, ValueError> {
    let mut cursor = Cursor(text);
    let date = cursor.date()?;
    let mut time = (0, 0, 0);
    let mut nanoseconds = 0;
    let separated = cursor.eat(b'T') || cursor.spaces();
    if separated && cursor.0.first().is_some_and(u8::is_ascii_digit) {
        time.0 = cursor.digits(1, 2)?;
        if cursor.eat(b':') {
            time.1 = cursor.digits(1, 2)?;
            if cursor.eat(b':') {
                time.2 = cursor.digits(1, 2)?;
                if cursor.eat(b'.') {
                    nanoseconds = cursor.fraction()?;
                }
            }
        }
        cursor.spaces();
    }
    let local = calendar(date, time)?;
    let seconds = match cursor.offset()? {
        Some(offset) => local.and_utc().timestamp() - offset,
        None => in_zone(local, zone)?,
    };
    Ok(Moment { seconds, nanoseconds })
}

fn calendar_date((year, month, day): (u32, u32, u32)) -> Result<NaiveDate, ValueError> {
    NaiveDate::from_ymd_opt(year as i32, month, day).filter(|_| year > 0).ok_or(ValueError::OutOfRange)
}

fn calendar(date: (u32, u32, u32), (hour, minute, second): (u32, u32, u32)) -> Result<NaiveDateTime, ValueError> {
    calendar_date(date)?.and_hms_opt(hour, minute, second).ok_or(ValueError::OutOfRange)
}

/// The seconds since 1970 of a local time. A local time that occurs twice, because clocks are set back,
/// is the first one. A local time that does not occur, because clocks are set forward, is converted
/// by the offset that is valid afterwards. ClickHouse does the same in both cases.
fn in_zone(local: NaiveDateTime, zone: Zone) -> Result<i64, ValueError> {
    let as_utc = local.and_utc().timestamp();
    let zone = match zone {
        Zone::Utc => return Ok(as_utc),
        Zone::Named(zone) => zone,
    };
    // A gap usually is an hour long; the longest one was a day.
    for hours in 0..=25 {
        let later = local + TimeDelta::hours(hours);
        if let Some(offset) = zone.offset_from_local_datetime(&later).earliest() {
            return Ok(as_utc - i64::from(offset.fix().local_minus_utc()));
        }
    }
    Err(ValueError::OutOfRange)
}

/// A cursor over the text: the part that has not been parsed yet.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips spaces; returns true when there was one.
    fn spaces(&mut self) -> bool {
        let mut any = false;
        while self.eat(b' ') {
            any = true;
        }
        any
    }

    /// The value of at least `least` and at most `most` digits; `most` is at most 9.
    fn digits(&mut self, least: usize, most: usize) -> Result<u32, ValueError> {
        let mut value = 0;
        let mut count = 0;
        while let [first @ b'0'..=b'9', rest @ ..] = self.0 {
            if count == most {
                break;
            }
            value = value * 10 + u32::from(first - b'0');
            count += 1;
            self.0 = rest;
        }
        if count < least {
            return Err(ValueError::Mismatch);
        }
        Ok(value)
    }

    /// The value of the rest of the text, at most 19 digits.
    fn long(&mut self) -> Result<u64, ValueError> {
        let text = std::str::from_utf8(self.0).map_err(|_| ValueError::Mismatch)?;
        text.parse().map_err(|_| ValueError::OutOfRange)
    }

    /// Year, month and day of `YYYY-M-D` or `YYYY/M/D`.
    fn date(&mut self) -> Result<(u32, u32, u32), ValueError> {
        let year = self.digits(4, 4)?;
        let separator = if self.eat(b'/') { b'/' } else { b'-' };
        if separator == b'-' && !self.eat(b'-') {
            return Err(ValueError::Mismatch);
        }
        let month = self.digits(1, 2)?;
        if !self.eat(separator) {
            return Err(ValueError::Mismatch);
        }
        Ok((year, month, self.digits(1, 2)?))
    }

    /// The nanoseconds of the digits after a decimal point; digits after the ninth are dropped.
    fn fraction(&mut self) -> Result<u32, ValueError> {
        let mut value = 0;
        let mut count = 0;
        while let [first @ b'0'..=b'9', rest @ ..] = self.0 {
            if count < 9 {
                value = value * 10 + u32::from(first - b'0');
            }
            count += 1;
            self.0 = rest;
        }
        if count == 0 {
            return Err(ValueError::Mismatch);
        }
        Ok(value * 10u32.pow(9u32.saturating_sub(count)))
    }

    /// The nanoseconds of the rest of the text, which is a fraction or empty.
    fn fraction_if_any(&mut self) -> Result<u32, ValueError> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let value = self.fraction()?;
        if self.0.is_empty() { Ok(value) } else { Err(ValueError::Mismatch) }
    }

    /// The UTC offset, in seconds, that the rest of the text consists of; `None` at the end of the text.
    fn offset(&mut self) -> Result<Option<i64>, ValueError> {
        if matches!(self.0, b"Z" | b"UTC" | b"GMT") {
            return Ok(Some(0));
        }
        let sign = match self.0.first() {
            None => return Ok(None),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return Err(ValueError::Mismatch),
        };
        let mut rest = Cursor(self.0.get(1..).unwrap_or_default());
        let hours = rest.digits(1, 2)?;
        let minutes = if rest.eat(b':') || !rest.0.is_empty() { rest.digits(2, 2)? } else { 0 };
        if !rest.0.is_empty() {
            return Err(ValueError::Mismatch);
        }
        if hours > 23 || minutes > 59 {
            return Err(ValueError::OutOfRange);
        }
        Ok(Some(sign * i64::from(hours * 3600 + minutes * 60)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn seconds(text: &str, zone: &str) -> Result<i64, ValueError> {
        let zone = match zone {
            "UTC" => Zone::Utc,
            name => Zone::Named(chrono_tz::Tz::from_str(name).unwrap()),
        };
        parse(text.as_bytes(), zone, false).map(|moment| moment.seconds)
    }

    #[test]
    fn every_form_of_the_grammar_is_accepted() {
        for text in [
            "2020-12-01 23:09:54",
            "2020-12-01T23:09:54",
            "2020-12-01T23:09:54Z",
            "2020-12-01 23:09:54Z",
            "2020-12-01T23:09:54.123Z",
            "2020-12-02T02:09:54.123456789123+03:00",
            "2020-12-02 02:09:54 +0300",
            "2020-12-02 02:09:54+03",
            "2020-12-01 19:39:54-03:30",
            "2020/12/01 23:09:54",
            "20201201230954",
            "1606864194",
            "1606864194123",
            "1606864194123456",
            "1606864194123456789",
            " 2020-12-01  23:9:54 ",
            "2020-12-01 23:09:54 UTC",
            "2020-12-01T23:09:54 GMT",
        ] {
            assert_eq!(seconds(text, "UTC"), Ok(1_606_864_194), "{text}");
        }
        for text in ["2020-12-01", "20201201", "2020-12-01Z", "2020-12-1 0", "2020-12-01T00:00"] {
            assert_eq!(seconds(text, "UTC"), Ok(1_606_780_800), "{text}");
        }
    }

    #[test]
    fn other_forms_are_rejected() {
        for text in [
            "",
            " ",
            "x",
            "5",
            "2020",
            "202012",
            "2020-12",
            "12345-01-01",
            "2020-12-01T23:09:54z",
            "2020-12-01 23:09:54.abc",
            "2020-12-01 23:09:54.",
            "2020-12-01 23:09:54.1.2",
            "1606864194.5",
            "16068641941",
            "-1",
            "+1606864194",
            "2020-12/01",
            "2020-12-01x",
            "2020-12-01T23:09:54+3:0",
            "2020-12-01T23:09:54+030",
            "2020-12-01T23:09:54+03:00x",
        ] {
            assert_eq!(seconds(text, "UTC"), Err(ValueError::Mismatch), "{text}");
        }
        for text in [
            "0000-00-00 00:00:00",
            "2020-02-30",
            "2020-13-01",
            "2020-12-00",
            "2020-12-01 24:00:00",
            "2020-12-01 23:60:00",
            "2020-12-01 23:59:60",
            "2020-12-01T23:09:54+99:99",
        ] {
            assert_eq!(seconds(text, "UTC"), Err(ValueError::OutOfRange), "{text}");
        }
    }

    /// The expected values are those of ClickHouse 26.7.
    #[test]
    fn local_times_follow_the_rules_of_their_zone() {
        assert_eq!(seconds("2020-12-02 02:09:54", "Europe/Moscow"), Ok(1_606_864_194));
        assert_eq!(seconds("2020-12-01T23:09:54Z", "Europe/Moscow"), Ok(1_606_864_194));
        assert_eq!(seconds("1606864194", "Europe/Moscow"), Ok(1_606_864_194));
        // A local time that occurs twice is the first one.
        assert_eq!(seconds("2020-10-25 02:30:00", "Europe/Berlin"), Ok(1_603_585_800));
        // A local time that does not occur is converted by the later offset.
        assert_eq!(seconds("2020-03-29 02:30:00", "Europe/Berlin"), Ok(1_585_441_800));
        assert_eq!(seconds("2020-03-08 02:30:00", "America/New_York"), Ok(1_583_649_000));
    }
}
