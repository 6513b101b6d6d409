//! Date, Date32, DateTime and DateTime64 values.

use chrono::{Datelike, NaiveDate};

use super::calendar::{days_of, seconds_of};
use super::moment::{self, Moment};
use super::number::signed;
use super::unix::{of_number, of_number_in};
use super::zone::local_seconds;
use super::{JsonToken, ValueError};
use crate::rowbinary::RowBuffer;
use crate::schema::{ColumnType, TimeUnit, Zone};

/// The documented range of Date32, 1900-01-01 to 2299-12-31, in days since 1970-01-01
/// (<https://clickhouse.com/docs/sql-reference/data-types/date32>).
const DATE32_DAYS: std::ops::RangeInclusive<i64> = -25_567..=120_529;
/// The accepted range of DateTime64, 1900-01-01 to the end of 2299 on the clock of the column's zone, in
/// seconds: some versions of ClickHouse store a time outside it and read back another one.
const DATE_TIME64_SECONDS: std::ops::RangeInclusive<i64> = -2_208_988_800..=10_413_791_999;
const DAY: i64 = 86_400;
/// Nanoseconds of a second.
const NANOSECONDS: u32 = 1_000_000_000;

/// Parses `"YYYY-MM-DD hh:mm:ss"`, optionally with `T` for the space, a fraction of one to nine digits
/// and a `Z`, and returns the moment and the offset after the closing quote. A time without `Z` is
/// accepted for a column in UTC only.
#[inline(always)]
fn read_moment(zone: Zone, body: &[u8], at: usize) -> Option<(Moment, usize)> {
    let (head, rest) = body.get(at..)?.split_first_chunk::<20>()?;
    let [b'"', head @ ..] = head else {
        return None;
    };
    let (date, [b' ' | b'T', time @ ..]) = head.split_first_chunk::<10>()? else {
        return None;
    };
    let seconds = days_of(date)? * 86_400 + seconds_of(time.first_chunk()?)?;
    let (nanoseconds, end) = match rest {
        [b'.', fraction @ ..] => {
            let (nanoseconds, digits) = read_fraction(fraction)?;
            (nanoseconds, at + 21 + digits)
        }
        _ => (0, at + 20),
    };
    let end = match (body.get(end)?, zone) {
        (b'"', Zone::Utc) => end + 1,
        (b'Z', _) if body.get(end + 1) == Some(&b'"') => end + 2,
        _ => return None,
    };
    let moment = Moment { seconds, nanoseconds };
    Some((moment, end))
}

/// The nanoseconds of a fraction of one to nine digits, and the number of its digits.
#[inline]
fn read_fraction(text: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u32;
    let mut count = 0;
    for byte in text.iter().take(10) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u32::from(digit));
        count += 1;
    }
    if count == 0 || count > 9 {
        return None;
    }
    Some((value * 10u32.pow(9 - count), count as usize))
}

#[inline(always)]
pub(super) fn read_date_time(zone: Zone, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (moment, end) = read_moment(zone, body, at)?;
    out.put(u32::try_from(moment.seconds).ok()?.to_le_bytes());
    Some(end)
}

/// The date that was read last. The events of a body are often of one day.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ndjson) struct LastDay {
    /// The first eight bytes of the date, and the last two.
    text: (u64, u16),
    /// Seconds from 1970 to its midnight.
    seconds: i64,
}

impl LastDay {
    /// The seconds from 1970 to the midnight of a date.
    #[inline(always)]
    fn seconds_of(&mut self, date: &[u8; 10]) -> Option<i64> {
        let (head, tail) = date.split_first_chunk::<8>()?;
        let text = (u64::from_le_bytes(*head), u16::from_le_bytes(*tail.first_chunk()?));
        if text != self.text {
            self.read(date, text)?;
        }
        Some(self.seconds)
    }

    #[inline(never)]
    fn read(&mut self, date: &[u8; 10], text: (u64, u16)) -> Option<()> {
        *self = Self { seconds: days_of(date)? * DAY, text };
        Some(())
    }
}

/// The bytes of the longest form that [`read_seconds`] reads, with its quotes.
pub(in crate::ndjson) const SECONDS_BYTES: usize = 22;

/// The seconds from 1970 to a time of the form `"YYYY-MM-DD hh:mm:ss"`, optionally with `T` for the space and `Z` behind
/// it, which a column needs that is not in UTC; and the number of its bytes. `None` for any other form, and a time that
/// no DateTime has.
#[inline(always)]
pub(in crate::ndjson) fn read_seconds(
    last: &mut LastDay,
    zone: Zone,
    text: &[u8; SECONDS_BYTES],
) -> Option<(u32, usize)> {
    let [b'"', text @ ..] = text else { return None };
    let (date, [b' ' | b'T', text @ ..]) = text.split_first_chunk::<10>()? else { return None };
    let (time, behind) = text.split_first_chunk::<8>()?;
    let length = match behind {
        [b'"', ..] if zone == Zone::Utc => SECONDS_BYTES - 1,
        [b'Z', b'"'] => SECONDS_BYTES,
        _ => return None,
    };
    let seconds = u32::try_from(last.seconds_of(date)? + seconds_of(time)?).ok()?;
    Some((seconds, length))
}

#[inline]
pub(super) fn read_date_time64(
    precision: u8,
    zone: Zone,
    body: &[u8],
    at: usize,
    out: &mut RowBuffer,
) -> Option<usize> {
    let (moment, end) = read_moment(zone, body, at)?;
    out.put(ticks(moment, precision, zone).ok()?.to_le_bytes());
    Some(end)
}

/// Parses `"YYYY-MM-DD"` with its quotes, and returns the days since 1970-01-01 and the offset after it.
fn read_days(body: &[u8], at: usize) -> Option<(i64, usize)> {
    let [b'"', date @ .., b'"'] = body.get(at..)?.first_chunk::<12>()? else {
        return None;
    };
    Some((days_of(date)?, at + 12))
}

pub(super) fn read_date(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (days, end) = read_days(body, at)?;
    out.put(u16::try_from(days).ok()?.to_le_bytes());
    Some(end)
}

pub(super) fn read_date32(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (days, end) = read_days(body, at).filter(|(days, _)| DATE32_DAYS.contains(days))?;
    out.put((days as i32).to_le_bytes());
    Some(end)
}

/// The ticks since 1970 of a moment. A fraction finer than a tick is truncated, as in ClickHouse.
#[inline]
fn ticks(moment: Moment, precision: u8, zone: Zone) -> Result<i64, ValueError> {
    if !is_shown_as_it_is(moment.seconds, zone) {
        return Err(ValueError::OutOfRange);
    }
    let per_second = 10i64.pow(u32::from(precision.min(9)));
    let fraction = i64::from(moment.nanoseconds) / (i64::from(NANOSECONDS) / per_second);
    moment.seconds.checked_mul(per_second).and_then(|ticks| ticks.checked_add(fraction)).ok_or(ValueError::OutOfRange)
}

#[inline]
fn is_shown_as_it_is(seconds: i64, zone: Zone) -> bool {
    let (first, last) = (*DATE_TIME64_SECONDS.start(), *DATE_TIME64_SECONDS.end());
    // No clock is a day ahead of another.
    (first + DAY..=last - DAY).contains(&seconds) || DATE_TIME64_SECONDS.contains(&local_seconds(seconds, zone))
}

/// Writes a DateTime. A number is Unix time in the unit that its magnitude says.
pub(super) fn write_date_time(zone: Zone, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let seconds = match token {
        JsonToken::Text(text) => moment::parse(text, zone, false)?.seconds,
        JsonToken::Number(number) => of_number(number)?.seconds,
        _ => return Err(ValueError::Mismatch),
    };
    put_seconds(seconds, out)
}

fn put_seconds(seconds: i64, out: &mut RowBuffer) -> Result<(), ValueError> {
    let seconds = u32::try_from(seconds).map_err(|_| ValueError::OutOfRange)?;
    out.put(seconds.to_le_bytes());
    Ok(())
}

/// Writes a bare number in a unit that is known to a column of times.
pub(super) fn write_in_unit(
    unit: TimeUnit,
    number: &[u8],
    column_type: &ColumnType,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    let moment = of_number_in(unit, number)?;
    match column_type {
        ColumnType::DateTime(_) => put_seconds(moment.seconds, out),
        ColumnType::DateTime64 { precision, zone } => {
            out.put(ticks(moment, *precision, *zone)?.to_le_bytes());
            Ok(())
        }
        _ => Err(ValueError::Mismatch),
    }
}

/// Writes a DateTime64. A number is Unix time in the unit that its magnitude says.
pub(super) fn write_date_time64(
    precision: u8,
    zone: Zone,
    token: JsonToken<'_>,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    let moment = match token {
        JsonToken::Text(text) => moment::parse(text, zone, true)?,
        JsonToken::Number(number) => of_number(number)?,
        _ => return Err(ValueError::Mismatch),
    };
    out.put(ticks(moment, precision, zone)?.to_le_bytes());
    Ok(())
}

/// The days since 1970-01-01 of a date. A number is the days themselves.
fn write_days(token: JsonToken<'_>) -> Result<i64, ValueError> {
    match token {
        JsonToken::Text(text) => {
            let date: NaiveDate = moment::parse_date(text)?;
            // chrono counts the days of the Common Era: 0001-01-01 is day 1.
            Ok(i64::from(date.num_days_from_ce()) - 719_163)
        }
        other => signed(other),
    }
}

pub(super) fn write_date(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let days = u16::try_from(write_days(token)?).map_err(|_| ValueError::OutOfRange)?;
    out.put(days.to_le_bytes());
    Ok(())
}

pub(super) fn write_date32(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let days = write_days(token)?;
    if !DATE32_DAYS.contains(&days) {
        return Err(ValueError::OutOfRange);
    }
    out.put((days as i32).to_le_bytes());
    Ok(())
}

/// Writes the server's time to a column that the server fills.
pub(in crate::ndjson) fn put_server_time(unix_ns: i64, column_type: &ColumnType, out: &mut RowBuffer) {
    let nanoseconds = i64::from(NANOSECONDS);
    let seconds = unix_ns.div_euclid(nanoseconds);
    if let ColumnType::DateTime64 { precision, .. } = column_type {
        let ticks_ns = 10i64.pow(9 - u32::from(*precision.min(&9)));
        out.put(unix_ns.div_euclid(ticks_ns).to_le_bytes());
    } else {
        let clamped = seconds.clamp(0, i64::from(u32::MAX)) as u32;
        out.put(clamped.to_le_bytes());
    }
}
