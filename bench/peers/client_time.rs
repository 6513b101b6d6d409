//! A client's time as the events have it, `2020-12-01 23:59:00`, to seconds since 1970.

use std::borrow::Cow;

use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, de::Error};

/// Reads the field `client_time`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let Text(text) = Text::deserialize(deserializer)?;
    parse(text.as_bytes()).ok_or_else(|| D::Error::custom("not a time like 2020-12-01 23:59:00"))
}

/// Digits at their places and a checked date: a tenth of what `chrono`'s general parser takes.
fn parse(text: &[u8]) -> Option<u32> {
    let text: &[u8; 19] = text.try_into().ok()?;
    let [_, _, _, _, b'-', _, _, b'-', _, _, b' ' | b'T', _, _, b':', _, _, b':', _, _] = text else { return None };
    let number = |at: usize, len: usize| {
        text.get(at..at + len)?
            .iter()
            .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 2)?, number(8, 2)?)?;
    let time = date.and_hms_opt(number(11, 2)?, number(14, 2)?, number(17, 2)?)?;
    u32::try_from(time.and_utc().timestamp()).ok()
}
