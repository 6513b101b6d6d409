//! A step of a learned order: the key that is expected next, as it is spelled, and what it means.

use crate::schema::KeyTarget;

/// Bytes of a step's spelling; a key with a longer spelling is always looked up.
const SPELLING_BYTES_MAX: usize = 64;
/// Bytes of a spelling that are compared at once.
const COMPARED_BYTES: usize = 32;
/// Bytes of a body that are compared with a spelling.
pub(crate) const HEAD_BYTES: usize = 64;
/// Steps that are compared without a branch for each.
const COMPARED_STEPS: usize = 4;

/// The expected bytes before a value, and the field of the value.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The bytes before the value, from behind the comma or the opening brace: the key, the colon, and white space.
    spelling: [u8; SPELLING_BYTES_MAX],
    /// 0xff for every byte among the first [`COMPARED_BYTES`] of the spelling, 0 after its end.
    mask: [u8; COMPARED_BYTES],
    /// Bytes of the spelling.
    length: usize,
    target: KeyTarget,
    /// A hash of the spellings up to this one in its order; 0 outside of any.
    pub(super) path: u64,
}

impl Step {
    pub(super) fn new(spelling: &[u8], target: KeyTarget) -> Option<Self> {
        let (mut whole, mut mask) = ([0; SPELLING_BYTES_MAX], [0; COMPARED_BYTES]);
        whole.get_mut(..spelling.len())?.copy_from_slice(spelling);
        for byte in mask.iter_mut().take(spelling.len()) {
            *byte = 0xff;
        }
        Some(Self { spelling: whole, mask, length: spelling.len(), target, path: 0 })
    }

    /// True when `head` begins with the spelling. Compares 32 bytes at once, without a branch on the length.
    /// No spelling contains a line feed, so a match never crosses the end of a line.
    #[inline(always)]
    pub(super) fn matches(&self, head: &[u8; HEAD_BYTES]) -> bool {
        self.begins(head) && (self.length <= COMPARED_BYTES || self.matches_long(head))
    }

    #[inline(always)]
    fn begins(&self, head: &[u8; HEAD_BYTES]) -> bool {
        let mut difference = 0;
        for ((byte, expected), mask) in head.iter().zip(&self.spelling).zip(&self.mask) {
            difference |= (byte ^ expected) & mask;
        }
        difference == 0
    }

    /// The length of the spelling.
    #[inline(always)]
    pub(super) fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    pub(super) fn target(&self) -> KeyTarget {
        self.target
    }

    #[inline(never)]
    fn matches_long(&self, head: &[u8; HEAD_BYTES]) -> bool {
        self.spelling.get(..self.length).is_some_and(|spelling| head.starts_with(spelling))
    }

    /// True for a step of the same spelling.
    pub(super) fn is_spelled_as(&self, other: &Self) -> bool {
        self.spelling == other.spelling && self.length == other.length
    }

    /// A hash of the spellings so far and this one.
    pub(super) fn path_after(&self, before: u64) -> u64 {
        let words = self.spelling.chunks_exact(8).filter_map(<[u8]>::first_chunk);
        let mixed = words.fold(before ^ self.length as u64, |mixed, word| {
            (mixed.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        mixed | 1
    }
}

/// The first of these steps that `head` begins with: its index. Which of them it is decides no branch but one in
/// [`COMPARED_STEPS`].
#[inline(always)]
pub(super) fn first_match(steps: &[Step], head: &[u8; HEAD_BYTES]) -> Option<usize> {
    let (groups, rest) = steps.as_chunks::<COMPARED_STEPS>();
    for (number, group) in groups.iter().enumerate() {
        let bits = group.iter().enumerate().fold(0, |bits, (at, step)| bits | u32::from(step.begins(head)) << at);
        if bits != 0 {
            let at = bits.trailing_zeros() as usize;
            return group.get(at)?.matches(head).then_some(number * COMPARED_STEPS + at);
        }
    }
    let at = rest.iter().position(|step| step.matches(head))?;
    Some(groups.len() * COMPARED_STEPS + at)
}
