//! A step of a learned order: the key that is expected next, as it is spelled, and what is done with its value.

use super::format::{Format, Reader};
use crate::schema::KeyTarget;

/// Bytes of a step's spelling; a key with a longer spelling is always looked up.
const SPELLING_BYTES_MAX: usize = 64;
/// Bytes of a spelling that are compared at once.
pub(super) const COMPARED_BYTES: usize = 32;
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
    length: u8,
    target: KeyTarget,
    /// The field, if it is one's.
    pub(super) field: u16,
    /// True if the server fills columns behind the field.
    pub(super) has_run: bool,
    /// True if none of the steps behind it has a field that comes before this one in the table.
    pub(super) is_lowest: bool,
    /// Who reads the value; of a key that no column has [`Reader::Count`].
    pub(super) reader: Reader,
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
        let length = u8::try_from(spelling.len()).ok()?;
        let (field, has_run, is_lowest, reader, path) = (0, false, false, Reader::Leave, 0);
        Some(Self { spelling: whole, mask, length, target, field, has_run, is_lowest, reader, path })
    }

    /// True when `head` begins with the spelling. Compares 32 bytes at once, without a branch on the length.
    /// No spelling contains a line feed, so a match never crosses the end of a line.
    #[inline(always)]
    pub(super) fn matches(&self, head: &[u8; HEAD_BYTES]) -> bool {
        head.first_chunk().is_some_and(|first| self.begins(first)) && (!self.is_long() || self.matches_long(head))
    }

    /// True if `head` has the first bytes of the spelling, which are all of them unless it is long.
    #[inline(always)]
    pub(super) fn begins(&self, head: &[u8; COMPARED_BYTES]) -> bool {
        let mut difference = 0;
        for ((byte, expected), mask) in head.iter().zip(&self.spelling).zip(&self.mask) {
            difference |= (byte ^ expected) & mask;
        }
        difference == 0
    }

    /// True if the spelling has more bytes than are compared at once.
    #[inline(always)]
    pub(super) fn is_long(&self) -> bool {
        self.length() > COMPARED_BYTES
    }

    /// The length of the spelling.
    #[inline(always)]
    pub(super) fn length(&self) -> usize {
        usize::from(self.length)
    }

    #[inline(always)]
    pub(super) fn target(&self) -> KeyTarget {
        self.target
    }

    /// Decides what is done with the value. `lowest` is the first field in the table that a step behind this one has;
    /// returned is the same for the step before.
    pub(super) fn decide(&mut self, lowest: u16, formats: &[Format]) -> u16 {
        match self.target {
            KeyTarget::Field(field) => {
                let format = formats.get(usize::from(field)).copied().unwrap_or(Format::ANY);
                (self.field, self.has_run, self.reader) = (field, format.has_run, format.reader);
                self.is_lowest = field < lowest;
                lowest.min(field)
            }
            KeyTarget::Counted(number) => {
                self.reader = Reader::Count(number);
                lowest
            }
            _ => lowest,
        }
    }

    #[inline(never)]
    fn matches_long(&self, head: &[u8; HEAD_BYTES]) -> bool {
        self.spelling.get(..self.length()).is_some_and(|spelling| head.starts_with(spelling))
    }

    /// True for a step of the same spelling.
    pub(super) fn is_spelled_as(&self, other: &Self) -> bool {
        self.length == other.length && self.spelling == other.spelling
    }

    /// A hash of the spellings so far and this one.
    pub(super) fn path_after(&self, before: u64) -> u64 {
        let words = self.spelling.chunks_exact(8).filter_map(<[u8]>::first_chunk);
        let mixed = words.fold(before ^ u64::from(self.length), |mixed, word| {
            (mixed.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        mixed | 1
    }
}

/// The first of these steps whose first bytes `head` has: its index. Which of them it is decides no branch but one in
/// [`COMPARED_STEPS`].
#[inline(always)]
pub(super) fn first_match(steps: &[Step], head: Option<&[u8; COMPARED_BYTES]>) -> Option<usize> {
    let head = head?;
    let (groups, rest) = steps.as_chunks::<COMPARED_STEPS>();
    for (number, [one, two, three, four]) in groups.iter().enumerate() {
        let bits = u32::from(one.begins(head))
            | u32::from(two.begins(head)) << 1
            | u32::from(three.begins(head)) << 2
            | u32::from(four.begins(head)) << 3;
        if bits != 0 {
            return Some(number * COMPARED_STEPS + bits.trailing_zeros() as usize);
        }
    }
    for (number, step) in rest.iter().enumerate() {
        if step.begins(head) {
            return Some(groups.len() * COMPARED_STEPS + number);
        }
    }
    None
}
