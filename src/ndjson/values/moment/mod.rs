//! Times in the other forms that are accepted: what ClickHouse calls "best effort", as far as it
//! leaves nothing to guess and drops nothing.
//!
//! ```text
//! text    = number | parts, in any order, with spaces between them
//! number  = 9 or 10 digits: seconds ["." digits, for DateTime64]
//!         | 13, 16 or 19 digits: milliseconds, microseconds, nanoseconds
//! parts   = date | time | zone | "AM" | "PM" | day of the week [","]
//! date    = YYYY [ "-" M[M] [ "-" D[D] ] ] (any other separator as well, twice the same)
//!         | YYYYMM | YYYYMMDD | YYYYMMDDhhmmss
//!         | D[D] "/" M[M] "/" (YYYY | YY), also with "." and "-" and the name of the month;
//!           month and day change places where the month would be above 12
//!         | name of the month, D[D] and YYYY
//! time    = h[h] ":" m[m] [ ":" s[s] ] [ "." digits ] | hhmmss | h[h] behind the day
//! zone    = "Z" | "UTC" | "GMT" | "MSK" | "MSD" | ("+" | "-") (h[h] [ ":" m[m] ] | [h]hmm)
//! ```
//!
//! `T` and a comma may stand between date and time. 24:00:00 is the end of the day, and second 60 the
//! first of the next minute. A text without a year means another day each year, and is no time.

use chrono::{Days, NaiveDate, NaiveDateTime};

use super::ValueError;
use super::unix::of_digits;
use super::zone::in_zone;
use crate::schema::Zone;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970, UTC.
    pub(super) seconds: i64,
    /// Nanoseconds from there on.
    pub(super) nanoseconds: u32,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// Of a word, the letters that its short form has.
const SHORT: usize = 3;

/// The moment that `text` means. What it says without an offset is meant in `zone`.
pub(super) fn parse(text: &[u8], zone: Zone, unix_fraction: bool) -> Result<Moment, ValueError> {
    let text = trim_spaces(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits).ok_or(ValueError::Mismatch)?;
    match (digits, rest) {
        (9 | 10 | 13 | 16 | 19, []) => of_digits(number, b""),
        (9 | 10, [b'.', fraction @ ..]) if unix_fraction => of_digits(number, fraction),
        _ => {
            let mut parts = Parts::default();
            parts.read(&mut Cursor(text))?;
            parts.moment(zone)
        }
    }
}

/// A date alone: `YYYY-M-D`, with any separators, or `YYYYMMDD`.
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

fn calendar_date((year, month, day): (u32, u32, u32)) -> Result<NaiveDate, ValueError> {
    NaiveDate::from_ymd_opt(year as i32, month, day).filter(|_| year > 0).ok_or(ValueError::OutOfRange)
}

fn trim_spaces(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// Takes a part that is not there yet; a text that says something twice is no time.
fn set<T>(part: &mut Option<T>, value: T) -> Result<(), ValueError> {
    match part.replace(value) {
        None => Ok(()),
        Some(_) => Err(ValueError::Mismatch),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Am,
    Pm,
}

/// What a text has said so far.
#[derive(Default)]
struct Parts {
    year: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    /// Hour, minute and second.
    time: Option<(u32, u32, u32)>,
    /// A number behind the day, without minutes.
    hour: Option<u32>,
    nanoseconds: Option<u32>,
    half: Option<Half>,
    /// Seconds east of UTC, of a sign and digits or of a zone that is not UTC.
    offset: Option<i64>,
    /// `Z`, `UTC` or `GMT`; an offset may follow it, or stand before it.
    is_utc: bool,
    /// A comma between date and time, which must both be there.
    comma: bool,
}

impl Parts {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        while let Some(first) = cursor.0.first() {
            match first {
                b'0'..=b'9' => self.number(cursor)?,
                b' ' => _ = cursor.eat(b' '),
                b'T' if self.year.is_some() && self.time.is_none() => _ = cursor.eat(b'T'),
                b'Z' => self.is_utc = cursor.eat(b'Z'),
                b',' if self.year.is_some() != self.time.is_some() => self.comma = cursor.eat(b','),
                b'.' if self.time.is_some() => {
                    cursor.eat(b'.');
                    set(&mut self.nanoseconds, cursor.fraction())?;
                }
                b'+' | b'-' => self.signed(cursor)?,
                b'a'..=b'z' | b'A'..=b'Z' => self.word(cursor)?,
                _ => return Err(ValueError::Mismatch),
            }
        }
        Ok(())
    }

    /// Digits, and what belongs to them.
    fn number(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        let (value, count) = cursor.number();
        match count {
            14 if self.time.is_none() => {
                self.date_of(value / 1_000_000)?;
                self.time_of((value % 1_000_000) as u32)
            }
            8 => self.date_of(value),
            6 if self.year.is_none() && self.month.is_none() => {
                set(&mut self.year, (value / 100) as u32)?;
                set(&mut self.month, (value % 100) as u32)
            }
            6 => self.time_of(value as u32),
            4 => self.year_first(value as u32, cursor),
            1 | 2 => self.small(value as u32, cursor),
            _ => Err(ValueError::Mismatch),
        }
    }

    /// `YYYYMMDD`
    fn date_of(&mut self, digits: u64) -> Result<(), ValueError> {
        set(&mut self.year, (digits / 10_000) as u32)?;
        set(&mut self.month, (digits / 100 % 100) as u32)?;
        set(&mut self.day, (digits % 100) as u32)
    }

    /// `hhmmss`
    fn time_of(&mut self, digits: u32) -> Result<(), ValueError> {
        set(&mut self.time, (digits / 10_000, digits / 100 % 100, digits % 100))
    }

    /// What follows `YYYY`: a separator and the month, the same one and the day; or nothing, where
    /// the month is known already or is a word.
    fn year_first(&mut self, year: u32, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        set(&mut self.year, year)?;
        let separator = match cursor.0 {
            [] => return Ok(()),
            _ if self.month.is_some() => return Ok(()),
            [b',' | b';' | b'\'' | b'"', ..] => return Err(ValueError::Mismatch),
            [separator, ..] if *separator == b' ' || separator.is_ascii_punctuation() => *separator,
            _ => return Err(ValueError::Mismatch),
        };
        cursor.eat(separator);
        if separator == b' ' && !cursor.is_at_digit() {
            return Ok(());
        }
        self.month = Some(cursor.digits(1, 2)?);
        if self.day.is_none() && cursor.eat(separator) && (separator != b' ' || cursor.is_at_digit()) {
            self.day = Some(cursor.digits(1, 2)?);
        }
        if cursor.is_at_digit() { Err(ValueError::Mismatch) } else { Ok(()) }
    }

    /// One or two digits: an hour before a colon, else a day, else an hour behind the day.
    fn small(&mut self, number: u32, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        match cursor.0.first() {
            Some(b':') => {
                cursor.eat(b':');
                let minute = cursor.digits(1, 2)?;
                let second = if cursor.eat(b':') { cursor.digits(1, 2)? } else { 0 };
                set(&mut self.time, (number, minute, second))
            }
            Some(b',') if self.month.is_some() && self.day.is_none() => {
                cursor.eat(b',');
                set(&mut self.day, number)
            }
            Some(b'/' | b'.' | b'-') => self.day_first(number, cursor),
            _ if self.day.is_none() => set(&mut self.day, number),
            _ => set(&mut self.hour, number),
        }
    }

    /// `DD/MM/YYYY` and its like, behind `DD`.
    fn day_first(&mut self, day: u32, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        fn separator(cursor: &mut Cursor<'_>) -> bool {
            cursor.eat(b'/') || cursor.eat(b'.') || cursor.eat(b'-')
        }
        separator(cursor);
        let month = if cursor.is_at_digit() {
            cursor.digits(1, 2)?
        } else {
            position(&MONTHS, cursor.letters()).ok_or(ValueError::Mismatch)?
        };
        let (month, day) = if month > 12 { (day, month) } else { (month, day) };
        set(&mut self.month, month)?;
        set(&mut self.day, day)?;
        if separator(cursor) {
            let (year, count) = cursor.number();
            let century = match (count, year) {
                (4, _) => 0,
                (2, 70..) => 1900,
                (2, _) => 2000,
                _ => return Err(ValueError::Mismatch),
            };
            set(&mut self.year, century + year as u32)?;
        }
        Ok(())
    }

    /// An offset from UTC; or a time that a date has a sign to.
    fn signed(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        let sign = if cursor.eat(b'+') {
            1
        } else {
            cursor.eat(b'-');
            -1
        };
        let (value, count) = cursor.number();
        let value = value as i64;
        let is_dated = self.year.is_some() && self.month.is_some() && self.day.is_some();
        if count == 6 && self.time.is_none() && is_dated {
            return self.time_of(value as u32);
        }
        let (hours, minutes) = match count {
            3 | 4 => (value / 100, value % 100),
            1 | 2 if cursor.eat(b':') => (value, i64::from(cursor.digits(1, 2)?)),
            1 | 2 => (value, 0),
            _ => return Err(ValueError::Mismatch),
        };
        if hours > 23 || minutes > 59 {
            return Err(ValueError::OutOfRange);
        }
        set(&mut self.offset, sign * (hours * 3600 + minutes * 60))
    }

    fn word(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        let word = cursor.letters();
        if let Some(month) = position(&MONTHS, word) {
            return set(&mut self.month, month);
        }
        if position(&WEEKDAYS, word).is_some() {
            cursor.eat(b',');
            return Ok(());
        }
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("UTC") || is("GMT") {
            self.is_utc = true;
            Ok(())
        } else if is("MSK") || is("MSD") {
            set(&mut self.offset, if is("MSK") { 3 * 3600 } else { 4 * 3600 })
        } else if is("AM") || is("PM") {
            set(&mut self.half, if is("AM") { Half::Am } else { Half::Pm })
        } else {
            Err(ValueError::Mismatch)
        }
    }

    fn moment(&self, zone: Zone) -> Result<Moment, ValueError> {
        let is_whole = self.time.is_some() && self.month.is_some() && self.day.is_some();
        if self.comma && !is_whole || self.time.is_some() && self.hour.is_some() {
            return Err(ValueError::Mismatch);
        }
        let year = self.year.ok_or(ValueError::Mismatch)?;
        let date = calendar_date((year, self.month.unwrap_or(1), self.day.unwrap_or(1)))?;
        let (hour, minute, second) = self.time.unwrap_or((self.hour.unwrap_or(0), 0, 0));
        let hour = match self.half {
            Some(Half::Am) if hour == 12 => 0,
            Some(Half::Pm) if hour < 12 => hour + 12,
            _ => hour,
        };
        let nanoseconds = self.nanoseconds.unwrap_or(0);
        let (local, more) = clock(date, (hour, minute, second), nanoseconds).ok_or(ValueError::OutOfRange)?;
        let seconds = match self.offset {
            Some(offset) => local.and_utc().timestamp() - offset,
            None if self.is_utc => local.and_utc().timestamp(),
            None => in_zone(local, zone)?,
        };
        Ok(Moment { seconds: seconds + more, nanoseconds })
    }
}

/// The local time, and a second to be added to it: 24:00:00 is the next day's first, and second 60
/// comes after 59.
fn clock(date: NaiveDate, (hour, minute, second): (u32, u32, u32), nanoseconds: u32) -> Option<(NaiveDateTime, i64)> {
    if (hour, minute, second, nanoseconds) == (24, 0, 0, 0) {
        return Some((date.checked_add_days(Days::new(1))?.and_hms_opt(0, 0, 0)?, 0));
    }
    let more = u32::from(second == 60);
    Some((date.and_hms_opt(hour, minute, second - more)?, i64::from(more)))
}

/// The place, from 1, of a name that is written whole or as its first three letters.
fn position(names: &[&str], word: &[u8]) -> Option<u32> {
    let place = names.iter().position(|name| {
        let name = name.as_bytes();
        name.eq_ignore_ascii_case(word) || name.get(..SHORT).is_some_and(|short| short.eq_ignore_ascii_case(word))
    })?;
    u32::try_from(place + 1).ok()
}

/// What is left of the text.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn is_at_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    fn take(&mut self, of: impl Fn(&u8) -> bool) -> &'a [u8] {
        let count = self.0.iter().take_while(|byte| of(byte)).count();
        let (taken, rest) = self.0.split_at_checked(count).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    fn letters(&mut self) -> &'a [u8] {
        self.take(u8::is_ascii_alphabetic)
    }

    /// All digits from here on, and how many they are; more than 19 have no value.
    fn number(&mut self) -> (u64, usize) {
        let digits = self.take(u8::is_ascii_digit);
        let value =
            digits.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        (value, digits.len())
    }

    /// Between `least` and `most` digits, at most nine.
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
        if count < least { Err(ValueError::Mismatch) } else { Ok(value) }
    }

    /// `YYYY-M-D`, with any separators.
    fn date(&mut self) -> Result<(u32, u32, u32), ValueError> {
        let year = self.digits(4, 4)?;
        self.separator()?;
        let month = self.digits(1, 2)?;
        self.separator()?;
        Ok((year, month, self.digits(1, 2)?))
    }

    fn separator(&mut self) -> Result<(), ValueError> {
        match self.0 {
            [b' ' | b'!'..=b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=b'~', rest @ ..] => {
                self.0 = rest;
                Ok(())
            }
            _ => Err(ValueError::Mismatch),
        }
    }

    /// Digits behind a point as nanoseconds, if there are any; what is finer is cut.
    fn fraction(&mut self) -> u32 {
        let mut value = 0;
        let mut count = 0;
        while let [first @ b'0'..=b'9', rest @ ..] = self.0 {
            if count < 9 {
                value = value * 10 + u32::from(first - b'0');
            }
            count += 1;
            self.0 = rest;
        }
        value * 10u32.pow(9u32.saturating_sub(count))
    }
}

#[cfg(test)]
mod tests;
