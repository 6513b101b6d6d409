//! Where a string ends: the first quote, backslash or control byte.
//!
//! This is the encoder's innermost search, and it is written so that the compiler makes a dozen
//! vector instructions of it without any `unsafe`: 32 bytes are compared in arrays of fixed
//! length, every byte that is none of the three becomes 0xff and every other its own index, and
//! the smallest of them all is the answer. (On x86-64-v3 that is three comparisons, an `or`, and
//! `phminposuw`; on aarch64 the smallest is one `uminv`.) Strings differ in length from line to
//! line, so what counts is that no branch depends on the length up to 31 bytes.

const BLOCK: usize = 32;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const INDEX: [u8; BLOCK] = {
    let mut index = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        index[at] = at as u8;
        at += 1;
    }
    index
};

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

/// The index of the first such byte, or more than any index.
#[inline]
fn first_in_block(block: &[u8; BLOCK]) -> usize {
    let mut others = [0u8; BLOCK];
    for (other, byte) in others.iter_mut().zip(block) {
        // Not `&&`: a branch a byte is what is to be avoided.
        let is_other = (*byte != b'"') & (*byte != b'\\') & (*byte >= 0x20);
        *other = if is_other { 0xff } else { 0 };
    }
    let candidates = others.iter().zip(&INDEX).map(|(other, index)| other | index);
    usize::from(candidates.fold(0xff, u8::min))
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
