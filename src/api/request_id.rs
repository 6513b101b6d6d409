//! `X-Request-Id`: the client's, or one of ours.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Bytes of the longest identity that is taken from a client.
const BYTES_MAX: usize = 128;

/// Bytes of an identity of ours: 64 bits in hexadecimal digits.
const OURS: usize = 16;

/// A request's identity as its client has sent it: 1 to 128 visible ASCII characters without quotes and
/// backslashes, which stands in a header field, a JSON text and a log as it is. `None` for anything else.
pub fn of_client(value: &[u8]) -> Option<&str> {
    let is_sane = (1..=BYTES_MAX).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'`' | b'\\'));
    std::str::from_utf8(value).ok().filter(|_| is_sane)
}

/// Makes identities for requests without one. Each worker has its own, so that it costs a few
/// instructions; none of them is a secret.
#[derive(Debug)]
pub struct RequestIds(Cell<u64>);

impl Default for RequestIds {
    fn default() -> Self {
        Self::seeded(RandomState::new().hash_one("request ids"))
    }
}

impl RequestIds {
    /// Always the same ones from the same seed, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// The next identity, all of which are different: SplitMix64 (Steele, Lea, Flood: "Fast splittable
    /// pseudorandom number generators", 2014) is a bijection of its counter.
    #[inline]
    pub fn next(&self) -> RequestId {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.get().wrapping_add(GAMMA);
        self.0.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut digits = [0; OURS];
        let number = mixed ^ mixed >> 31;
        for (digit, shift) in digits.iter_mut().zip((0..u64::BITS).step_by(4).rev()) {
            let value = (number >> shift & 0xf) as u8;
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        }
        RequestId(digits)
    }
}

/// An identity of ours, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; OURS]);

impl RequestId {
    /// The text: hexadecimal digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_identity_is_taken_and_no_other() {
        let longest = "x".repeat(BYTES_MAX);
        for sane in ["a", "0f3b-11", "Root=1-67891233-abcdef012345678912345678", "a,b;c=d/e", longest.as_str()] {
            assert_eq!(of_client(sane.as_bytes()), Some(sane));
        }
        let too_long = "x".repeat(BYTES_MAX + 1);
        for other in ["", " ", "a b", "a\tb", "a\"b", "a'b", "a\\b", "`a`", "\u{e9}", "a\u{7f}", too_long.as_str()] {
            assert_eq!(of_client(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(of_client(b"a\xff"), None);
    }

    #[test]
    fn identities_of_ours_differ_and_would_be_taken() {
        let ids = [RequestIds::default(), RequestIds::default()];
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            for ids in &ids {
                let id = ids.next();
                assert_eq!(of_client(id.as_str().as_bytes()).map(str::len), Some(OURS));
                assert!(seen.insert(id));
            }
        }
    }
}
