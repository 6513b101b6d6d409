//! Hexadecimal digits, of escapes and UUIDs.

/// The value of each byte as a hexadecimal digit; 0xff for other bytes.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        let lower = b"0123456789abcdef"[value];
        digits[lower as usize] = value as u8;
        digits[lower.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    digits
};

/// The value of a hexadecimal digit; 0xff for any other byte.
#[inline(always)]
pub(crate) fn digit(byte: u8) -> u8 {
    DIGITS.get(usize::from(byte)).copied().unwrap_or(0xff)
}
