//! Decoding of the escapes of a JSON string (RFC 8259, section 7).

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

/// Decodes the run of escapes that begins at `at`, and returns the offset after it.
fn decode_escapes(body: &[u8], at: usize, text: &mut Vec<u8>) -> Option<usize> {
    let mut at = at;
    while body.get(at) == Some(&b'\\') {
        let plain = match body.get(at + 1)? {
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                at = decode_unicode(body, at, text)?;
                continue;
            }
            _ => return None,
        };
        text.push(plain);
        at += 2;
    }
    Some(at)
}

/// Decodes `\uXXXX`, or a pair of them that is a surrogate pair, and returns the offset after it.
fn decode_unicode(body: &[u8], at: usize, text: &mut Vec<u8>) -> Option<usize> {
    let unit = code_unit(body, at)?;
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
    if code < 0x80 {
        text.push(code as u8);
    } else {
        let mut utf8 = [0; 4];
        let decoded = char::from_u32(code)?.encode_utf8(&mut utf8);
        text.extend_from_slice(decoded.as_bytes());
    }
    Some(end)
}

/// The value of `\uXXXX` at `at`.
fn code_unit(body: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = body.get(at..)?.first_chunk::<6>()? else {
        return None;
    };
    let word = u32::from_be_bytes(*digits);
    // A letter has bit 6 set, and its low four bits are nine less than its value as a digit.
    let values = (word & 0x0f0f_0f0f) + 9 * (word >> 6 & 0x0101_0101);
    let unit = values >> 12 & 0xf000 | values >> 8 & 0x0f00 | values >> 4 & 0x00f0 | values & 0x000f;
    let all_digits = digits.iter().fold(true, |all, digit| all & digit.is_ascii_hexdigit());
    all_digits.then_some(unit)
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
