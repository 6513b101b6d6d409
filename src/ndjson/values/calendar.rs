//! Conversion of `YYYY-MM-DD` to days and of `hh:mm:ss` to seconds.
//!
//! `YYYY-MM-` and `hh:mm:ss` have eight bytes each: one 64-bit word. XOR with a pattern of zeros and
//! separators leaves the digits' values in their bytes, and 0 in the bytes of separators. Two masks
//! check all eight bytes at once.

/// Days before each month in a common year.
const DAYS_BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
/// Days of each month in a common year.
const DAYS_IN: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// Days from 0001-01-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_162;

/// The days from 1970-01-01 to a date of the proleptic Gregorian calendar; `None` for a date that does
/// not exist, and for the year 0.
#[inline]
pub(super) fn days(year: u32, month: u32, day: u32) -> Option<i64> {
    let index = month.wrapping_sub(1) as usize;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in = u32::from(*DAYS_IN.get(index)?) + u32::from(leap && month == 2);
    if day == 0 || day > days_in || year == 0 {
        return None;
    }
    let full = i64::from(year - 1);
    Some(
        full * 365 + full / 4 - full / 100
            + full / 400
            + i64::from(*DAYS_BEFORE.get(index)?)
            + i64::from(leap && month > 2)
            + i64::from(day - 1)
            - DAYS_TO_EPOCH,
    )
}

/// The days from 1970-01-01 to the date `YYYY-MM-DD`.
#[inline(always)]
pub(super) fn days_of(text: &[u8; 10]) -> Option<i64> {
    let (head, [tens, ones]) = text.split_first_chunk::<8>()? else {
        return None;
    };
    let [a, b, c, d, _, m, n, _] = digits(head, b"0000-00-", 0xff00_00ff_0000_0000)?;
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return None;
    }
    let two = |tens: u8, ones: u8| u32::from(tens) * 10 + u32::from(ones);
    days(two(a, b) * 100 + two(c, d), two(m, n), two(tens, ones))
}

/// The seconds from midnight to `hh:mm:ss`.
#[inline(always)]
pub(super) fn seconds_of(text: &[u8; 8]) -> Option<i64> {
    let digits = u64::from_le_bytes(digits(text, b"00:00:00", 0x0000_ff00_00ff_0000)?);
    // Ten times each byte and the next one: a number of two digits is where its tens were, and none is above 99.
    let pairs = digits * 10 + (digits >> 8);
    let (hours, minutes, seconds) = (pairs & 0xff, pairs >> 24 & 0xff, pairs >> 48 & 0xff);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((hours * 3600 + minutes * 60 + seconds) as i64)
}

/// The values of the digits of `text`, which must match `pattern`: a digit at each `0`, and equal bytes
/// where the mask `separators` is set.
#[inline]
fn digits(text: &[u8; 8], pattern: &[u8; 8], separators: u64) -> Option<[u8; 8]> {
    let values = u64::from_le_bytes(*text) ^ u64::from_le_bytes(*pattern);
    // A byte above 9 has its top bit set, or gets it set when 0x76 is added.
    let high = values | (values & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676);
    let wrong = high & 0x8080_8080_8080_8080 | values & separators;
    (wrong == 0).then_some(values.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{NaiveDate, NaiveTime};
    use proptest::prelude::*;

    /// The twin is `chrono`.
    #[test]
    fn days_are_right_for_ten_thousand_years() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for year in 0..=9999u32 {
            for month in 0..=13 {
                for day in [0, 1, 15, 28, 29, 30, 31, 32, 99] {
                    let twin = NaiveDate::from_ymd_opt(year as i32, month, day)
                        .filter(|_| year > 0)
                        .map(|date| (date - epoch).num_days());
                    assert_eq!(days(year, month, day), twin, "{year}-{month}-{day}");
                }
            }
        }
    }

    #[test]
    fn seconds_are_right_for_every_hour_of_a_day() {
        for hour in 0..=24 {
            for minute in [0, 1, 9, 10, 59, 60, 99] {
                for second in [0, 1, 9, 10, 59, 60, 99] {
                    let text = format!("{hour:02}:{minute:02}:{second:02}");
                    let twin = NaiveTime::from_hms_opt(hour, minute, second)
                        .map(|_| i64::from(hour * 3600 + minute * 60 + second));
                    assert_eq!(seconds_of(text.as_bytes().first_chunk().unwrap()), twin, "{text}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_other_byte_is_refused(at in 0usize..18, byte in any::<u8>()) {
            let mut text = *b"2021-03-0412:34:56";
            let same_sort = text[at].is_ascii_digit() && byte.is_ascii_digit() || text[at] == byte;
            text[at] = byte;
            let (date, time) = text.split_first_chunk::<10>().unwrap();
            let taken = days_of(date).is_some() && seconds_of(time.first_chunk().unwrap()).is_some();
            prop_assert!(same_sort || !taken);
        }
    }
}
