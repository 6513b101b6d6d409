//! Integers of 256 bits, as far as digits need them: made of decimal digits, and written as such.

use std::fmt;

/// A magnitude below 2^256, in 64-bit words, the lowest one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wide([u64; 4]);

impl Wide {
    /// Appends a decimal digit: ten times the value, and `digit`. `None` if that needs more than 256 bits.
    #[must_use]
    pub fn with_digit(self, digit: u8) -> Option<Self> {
        let mut carry = u128::from(digit);
        let words = self.0.map(|word| {
            let product = u128::from(word) * 10 + carry;
            carry = product >> 64;
            product as u64
        });
        (carry == 0).then_some(Self(words))
    }

    /// The value of a two's complement integer, little-endian, of at most 32 bytes, and whether it is
    /// negative.
    pub fn of_signed(bytes: &[u8]) -> (Self, bool) {
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let value = Self::of_bytes(bytes, if negative { 0xff } else { 0 });
        (if negative { value.negated() } else { value }, negative)
    }

    /// The value of an unsigned integer, little-endian, of at most 32 bytes.
    pub fn of_unsigned(bytes: &[u8]) -> Self {
        Self::of_bytes(bytes, 0)
    }

    fn of_bytes(bytes: &[u8], fill: u8) -> Self {
        let mut whole = [fill; 32];
        for (byte, given) in whole.iter_mut().zip(bytes) {
            *byte = *given;
        }
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(whole.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self(words)
    }

    /// The two's complement of the value.
    fn negated(self) -> Self {
        let mut carry = true;
        Self(self.0.map(|word| {
            let (sum, overflowed) = (!word).overflowing_add(u64::from(carry));
            carry = overflowed;
            sum
        }))
    }

    /// Bits of the value, without leading zeros.
    fn bits(self) -> u32 {
        let top = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0);
        top.map_or(0, |(index, word)| index as u32 * 64 + 64 - word.leading_zeros())
    }

    /// True if an unsigned integer of `width` bytes holds the value.
    pub fn fits_unsigned(self, width: u8) -> bool {
        self.bits() <= u32::from(width) * 8
    }

    /// True if a signed integer of `width` bytes holds the value, or minus the value if it is `negative`.
    pub fn fits_signed(self, negative: bool, width: u8) -> bool {
        let bits = u32::from(width) * 8;
        let is_least = negative && self.bits() == bits && self.0.iter().map(|word| word.count_ones()).sum::<u32>() == 1;
        self.bits() < bits || is_least
    }

    /// The value, or minus the value, as 32 bytes of two's complement, little-endian. A narrower integer
    /// that it fits is the first of them.
    pub fn to_le_bytes(self, negative: bool) -> [u8; 32] {
        let words = if negative { self.negated().0 } else { self.0 };
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

impl fmt::Display for Wide {
    /// The value in decimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The largest power of ten of a word.
        const STEP: u64 = 10_000_000_000_000_000_000;
        let mut rest = self.0;
        let mut groups = [0u64; 5];
        let mut count = 0;
        for group in &mut groups {
            let mut remainder = 0u128;
            for word in rest.iter_mut().rev() {
                let dividend = remainder << 64 | u128::from(*word);
                *word = (dividend / u128::from(STEP)) as u64;
                remainder = dividend % u128::from(STEP);
            }
            *group = remainder as u64;
            count += 1;
            if rest == [0; 4] {
                break;
            }
        }
        for (index, group) in groups.iter().take(count).rev().enumerate() {
            if index == 0 {
                write!(f, "{group}")?;
            } else {
                write!(f, "{group:019}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(digits: &str) -> Option<Wide> {
        digits.bytes().try_fold(Wide::default(), |value, digit| value.with_digit(digit - b'0'))
    }

    proptest! {
        #[test]
        fn it_is_what_the_integers_of_rust_are_up_to_128_bits(value in any::<i128>()) {
            let magnitude = parse(&value.unsigned_abs().to_string()).unwrap();
            prop_assert_eq!(magnitude.to_string(), value.unsigned_abs().to_string());
            let bytes = magnitude.to_le_bytes(value < 0);
            prop_assert_eq!(&bytes[..16], &value.to_le_bytes()[..]);
            prop_assert!(magnitude.fits_signed(value < 0, 16));
            prop_assert_eq!(Wide::of_signed(&bytes[..16]), (magnitude, value < 0));
            prop_assert_eq!(Wide::of_signed(&bytes), (magnitude, value < 0));
            prop_assert_eq!(magnitude.fits_unsigned(8), value.unsigned_abs() <= u128::from(u64::MAX));
            prop_assert_eq!(magnitude.fits_signed(value < 0, 8), i64::try_from(value).is_ok());
        }

        #[test]
        fn digits_come_back_up_to_256_bits(digits in "[1-9][0-9]{0,76}") {
            prop_assert_eq!(parse(&digits).unwrap().to_string(), digits);
        }
    }

    #[test]
    fn each_width_has_its_limits() {
        let least = "57896044618658097711785492504343953926634992332820282019728792003956564819968";
        let most = "57896044618658097711785492504343953926634992332820282019728792003956564819967";
        assert!(parse(least).unwrap().fits_signed(true, 32) && !parse(least).unwrap().fits_signed(false, 32));
        assert!(parse(most).unwrap().fits_signed(false, 32));
        let all = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(parse(all).unwrap().to_le_bytes(false), [0xff; 32]);
        assert_eq!(parse("115792089237316195423570985008687907853269984665640564039457584007913129639936"), None);
        assert!(!parse("170141183460469231731687303715884105729").unwrap().fits_signed(true, 16));
        assert_eq!(parse("0").unwrap().to_string(), "0");
        assert!(parse("0").unwrap().fits_signed(true, 16));
    }
}
