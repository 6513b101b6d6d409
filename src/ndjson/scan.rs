//! The search for the end of a string: the first quote, backslash or control byte.
//!
//! This is the innermost loop of the encoder. Strings differ in length from line to line, so no branch
//! may depend on a length below 32 bytes: 32 bytes are compared at once, and the number of trailing
//! zeros of the resulting mask is the offset. Plain loops over arrays are vectorized by the compiler
//! as well, but without such a mask they compute the minimum of 32 indexes; the whole encoder was an
//! eighth slower that way.

use wide::u8x32;

/// Bytes that are compared at once.
pub(super) const BLOCK: usize = 32;
/// Blocks that are searched inline. A UUID in text form takes two.
const BLOCKS_IN_PLACE: usize = 2;
/// Bytes that are searched at once in a longer string.
const STRIDE: usize = 4 * BLOCK;

/// The first offset from `at` on that holds `"`, `\` or a byte below 0x20, and that byte.
#[inline(always)]
pub(crate) fn string_end(body: &[u8], at: usize) -> Option<(usize, u8)> {
    let mut at = at;
    for _ in 0..BLOCKS_IN_PLACE {
        let Some(block) = body.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) else {
            break;
        };
        let ends = ends(block);
        if ends != 0 {
            let end = at + ends.trailing_zeros() as usize;
            return Some((end, *body.get(end)?));
        }
        at += BLOCK;
    }
    string_end_far_off(body, at)
}

/// The bytes that can end a string, as bits, the lowest for the first byte.
#[inline(always)]
pub(super) fn ends(block: &[u8; BLOCK]) -> u32 {
    is_end(block).to_bitmask()
}

/// A mask of the bytes that can end a string: 0xff for each of them, 0 for the others.
#[inline(always)]
fn is_end(block: &[u8; BLOCK]) -> u8x32 {
    let bytes = u8x32::new(*block);
    bytes.simd_eq(u8x32::splat(b'"'))
        | bytes.simd_eq(u8x32::splat(b'\\'))
        | bytes.simd_eq(bytes.min(u8x32::splat(0x1f)))
}

/// [`string_end`] for a long string, and near the end of the body.
#[inline(never)]
fn string_end_far_off(body: &[u8], at: usize) -> Option<(usize, u8)> {
    let mut at = at;
    while let Some(stride) = body.get(at..).and_then(|rest| rest.first_chunk::<STRIDE>()) {
        let (blocks, _) = stride.as_chunks::<BLOCK>();
        let ends = blocks.iter().fold(u8x32::splat(0), |ends, block| ends | is_end(block));
        if ends.to_bitmask() != 0 {
            break;
        }
        at += STRIDE;
    }
    loop {
        let rest = body.get(at..)?;
        let Some(block) = rest.first_chunk::<BLOCK>() else {
            let index = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
            return Some((at + index, *rest.get(index)?));
        };
        let ends = ends(block);
        if ends != 0 {
            let end = at + ends.trailing_zeros() as usize;
            return Some((end, *body.get(end)?));
        }
        at += BLOCK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn twin(body: &[u8], at: usize) -> Option<(usize, u8)> {
        let bytes = body.iter().copied().enumerate().skip(at);
        bytes.into_iter().find(|(_, byte)| *byte == b'"' || *byte == b'\\' || *byte < 0x20)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            body in prop::collection::vec(
                prop_oneof![4 => any::<u8>(), 20 => 0x20u8..0x80, 4 => 0x80u8..=0xff, 1 => Just(b'"'), 1 => Just(b'\\')],
                0..100,
            ),
            at in 0usize..110,
        ) {
            prop_assert_eq!(string_end(&body, at), twin(&body, at));
        }
    }

    #[test]
    fn an_end_is_found_at_every_offset_of_blocks_and_strides() {
        let length = 2 * BLOCK + 2 * STRIDE + BLOCK + 3;
        for place in 0..length {
            for end in [b'"', b'\\', b'\n', 0, 0x1f] {
                let mut body = vec![b'a'; length];
                body[place] = end;
                for cut in [place, place + 1, length] {
                    assert_eq!(string_end(&body[..cut], 0), twin(&body[..cut], 0), "{end:x} at {place} of {cut}");
                }
            }
        }
    }
}
