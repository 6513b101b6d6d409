//! Decoding of the escapes of a JSON string (RFC 8259, section 7).

use super::hex::digit;
use super::scan::string_end;

/// Decodes the string whose opening quote is at `at` into `text`, which is emptied first. Returns the
/// offset after the closing quote; `None` when there is no valid string, or it contains an unpaired
/// surrogate.
#[inline(always)]
pub(crate) fn decode(body: &[u8], at: usize, text: &mut Vec<u8>) -> Option<usize> {
    text.clear();
    if body.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        let (end, byte) = string_end(body, at)?;
        text.extend_from_slice(body.get(at..end)?);
        match byte {
            b'"' => return Some(end + 1),
            b'\\' => at = decode_escapes(body, end, text)?,
            _ => return None,
        }
    }
}

/// What a letter behind a backslash stands for; 0 for `u`, and for what is no escape.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const SINGLE: [u8; 256] = {
    let mut table = [0; 256];
    let pairs = [
        (b'"', b'"'),
        (b'\\', b'\\'),
        (b'/', b'/'),
        (b'b', 0x08),
        (b'f', 0x0c),
        (b'n', b'\n'),
        (b'r', b'\r'),
        (b't', b'\t'),
    ];
    let mut at = 0;
    while at < pairs.len() {
        let (letter, byte) = pairs[at];
        table[letter as usize] = byte;
        at += 1;
    }
    table
};

/// Decodes the run of escapes that begins at `at`, and returns the offset after it.
fn decode_escapes(body: &[u8], at: usize, text: &mut Vec<u8>) -> Option<usize> {
    let mut at = at;
    while body.get(at) == Some(&b'\\') {
        let letter = *body.get(at + 1)?;
        match SINGLE.get(usize::from(letter)) {
            Some(0) if letter == b'u' => at = decode_unicode(body, at, text)?,
            Some(0) | None => return None,
            Some(byte) => {
                text.push(*byte);
                at += 2;
            }
        }
    }
    Some(at)
}

/// Decodes `\uXXXX`, or a pair of them that is a surrogate pair, and returns the offset after it.
#[inline(always)]
fn decode_unicode(body: &[u8], at: usize, text: &mut Vec<u8>) -> Option<usize> {
    let unit = code_unit(body, at)?;
    if unit < 0x80 {
        text.push(unit as u8);
        return Some(at + 6);
    }
    let (code, end) = match unit {
        0xd800..0xdc00 => {
            let low = code_unit(body, at + 6)?;
            if !(0xdc00..0xe000).contains(&low) {
                return None;
            }
            (0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), at + 12)
        }
        _ => (unit, at + 6),
    };
    let mut utf8 = [0; 4];
    let decoded = char::from_u32(code)?.encode_utf8(&mut utf8);
    text.extend_from_slice(decoded.as_bytes());
    Some(end)
}

/// The value of `\uXXXX` at `at`.
#[inline(always)]
fn code_unit(body: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = body.get(at..)?.first_chunk::<6>()? else {
        return None;
    };
    let [one, two, three, four] = digits.map(|byte| u32::from(digit(byte)));
    (one | two | three | four < 16).then_some(one << 12 | two << 8 | three << 4 | four)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The twin is `sonic-rs`, which the slow path uses.
        #[test]
        fn it_decodes_what_sonic_decodes(
            inside in prop_oneof![
                "(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}|[ -~]|\u{43f}|\u{1f600}){0,12}",
                "[\\\\ud8c0\"a]{0,16}",
            ]
        ) {
            let raw = format!("\"{inside}\"");
            let mut text = Vec::new();
            let own = decode(raw.as_bytes(), 0, &mut text)
                .filter(|end| *end == raw.len())
                .map(|_| text);
            let twin = sonic_rs::from_str::<String>(&raw).ok().map(String::into_bytes);
            prop_assert_eq!(own, twin, "{}", raw);
        }
    }
}
