//! Enum8 and Enum16 values. ClickHouse does not validate enum values in RowBinary, and a stored value
//! that the type lacks makes every later SELECT of the column fail. So values are validated here.

use super::number::signed;
use super::text::plain_string;
use super::{JsonToken, ValueError};
use crate::rowbinary::RowBuffer;
use crate::schema::EnumElements;

pub(super) fn read(elements: &EnumElements, width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (start, length, end) = plain_string(body, at)?;
    let value = elements.value(body.get(start..start + length)?)?;
    out.put_integer(value as u64, width);
    Some(end)
}

/// Writes the value of an element, given by its name or by its number, quoted or not. A string is
/// looked up as a name first.
pub(super) fn write(
    elements: &EnumElements,
    width: u8,
    token: JsonToken<'_>,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    let value = match token {
        JsonToken::Text(name) => match elements.value(name) {
            Some(value) => value,
            None if name.iter().any(u8::is_ascii_digit) => by_number(elements, token)?,
            None => return Err(ValueError::Mismatch),
        },
        JsonToken::Number(_) => by_number(elements, token)?,
        _ => return Err(ValueError::Mismatch),
    };
    out.put_integer(value as u64, width);
    Ok(())
}

fn by_number(elements: &EnumElements, token: JsonToken<'_>) -> Result<i16, ValueError> {
    i16::try_from(signed(token)?).ok().filter(|value| elements.has(*value)).ok_or(ValueError::OutOfRange)
}
