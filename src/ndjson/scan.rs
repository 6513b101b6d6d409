//! Where a string ends: the first quote, backslash or control byte.
//!
//! This is the encoder's innermost search. Strings differ in length from line to line, so what
//! counts is that no branch depends on the length up to 31 bytes: 32 bytes are compared at once,
//! and the place is the number of zeros before the mask's first bit. The same in plain loops over
//! arrays, which the compiler makes vector instructions of as well, has no such mask and takes the
//! smallest of 32 indexes instead: measured, the whole encoder was an eighth slower with it.

use wide::u8x32;

const BLOCK: usize = 32;

/// The first place at or behind `at` that holds `"`, `\` or a byte below 0x20, and that byte.
#[inline(always)]
pub(crate) fn string_end(body: &[u8], at: usize) -> Option<(usize, u8)> {
    let mut at = at;
    while let Some(block) = body.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let first = first_in_block(block);
        if first < BLOCK {
            return Some((at + first, *body.get(at + first)?));
        }
        at += BLOCK;
    }
    string_end_near_the_bodys(body, at)
}

/// The index of the first such byte, or [`BLOCK`].
#[inline(always)]
fn first_in_block(block: &[u8; BLOCK]) -> usize {
    let bytes = u8x32::new(*block);
    let is_end = bytes.simd_eq(u8x32::splat(b'"'))
        | bytes.simd_eq(u8x32::splat(b'\\'))
        | bytes.simd_eq(bytes.min(u8x32::splat(0x1f)));
    is_end.to_bitmask().trailing_zeros() as usize
}

#[inline(never)]
fn string_end_near_the_bodys(body: &[u8], at: usize) -> Option<(usize, u8)> {
    let rest = body.get(at..)?;
    let index = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some((at + index, *rest.get(index)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            body in prop::collection::vec(
                prop_oneof![4 => any::<u8>(), 20 => 0x20u8..0x80, 4 => 0x80u8..=0xff, 1 => Just(b'"'), 1 => Just(b'\\')],
                0..100,
            ),
            at in 0usize..110,
        ) {
            let twin = body
                .iter()
                .copied()
                .enumerate()
                .skip(at)
                .find(|(_, byte)| *byte == b'"' || *byte == b'\\' || *byte < 0x20);
            prop_assert_eq!(string_end(&body, at), twin);
        }
    }
}
