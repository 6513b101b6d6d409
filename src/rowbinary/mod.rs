//! ClickHouse's types, and writing of its RowBinary format: fixed-size values and length-prefixed strings.
//!
//! A row in RowBinary is the concatenation of its values, little-endian, without separators
//! (<https://clickhouse.com/docs/interfaces/formats/RowBinary>). [`RowBuffer`] writes into space that
//! is already there: the *length* of its vector is the reserved space, and a counter of its own says
//! how much of the space is used. Writing a fixed-size value is then one bounds check and one store.
//! A short string is one fixed-size copy of more bytes than the string has; the next value overwrites
//! the surplus. This needs no `unsafe`: the capacity check of a growing vector would cost as much as
//! the bounds check.

mod data_type;
pub mod dynamic;
mod skip;
mod wide;

use std::ops::Range;

pub use data_type::{DataType, TYPE_DEPTH_MAX};
pub use skip::{fixed_width, leb128, skip_value};
pub use wide::Wide;

/// Strings up to this many bytes are copied as one block of this size: one wide load and store.
const SHORT: usize = 32;
/// Strings up to this many bytes are copied as one block of this size. A UUID in text form has 36
/// bytes.
const MEDIUM: usize = 64;

/// A buffer of RowBinary values. It keeps its space between rows, so in steady state writing does not
/// allocate.
#[derive(Debug, Default)]
pub struct RowBuffer {
    /// The reserved space. The bytes from `used` on are unspecified.
    space: Vec<u8>,
    /// Invariant: `used <= space.len()`.
    used: usize,
}

impl RowBuffer {
    /// An empty buffer with space for `bytes` bytes.
    pub fn with_space(bytes: usize) -> Self {
        Self { space: vec![0; bytes], used: 0 }
    }

    /// The written bytes.
    pub fn written(&self) -> &[u8] {
        self.space.get(..self.used).unwrap_or_default()
    }

    /// The number of written bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.used
    }

    /// True when nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Removes the bytes after the first `length`.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.used = self.used.min(length);
    }

    /// Empties the buffer and releases space above `bytes_kept`.
    pub fn reset(&mut self, bytes_kept: usize) {
        self.used = 0;
        if self.space.len() > bytes_kept {
            self.space.truncate(bytes_kept);
            self.space.shrink_to_fit();
        }
    }

    /// Appends a value of `N` bytes.
    #[inline]
    pub fn put<const N: usize>(&mut self, cell: [u8; N]) {
        let room = self.space.get_mut(self.used..);
        if let Some(destination) = room.and_then(|room| room.first_chunk_mut::<N>()) {
            *destination = cell;
            self.used += N;
        } else {
            self.put_growing(&cell);
        }
    }

    /// Appends an integer of `width` bytes, little-endian; `width` is 1, 2, 4 or 8.
    #[inline]
    pub fn put_integer(&mut self, value: u64, width: u8) {
        debug_assert!(matches!(width, 1 | 2 | 4 | 8));
        let width = usize::from(width);
        let bytes = value.to_le_bytes();
        let room = self.space.get_mut(self.used..);
        if let Some(destination) = room.and_then(|room| room.first_chunk_mut::<8>()) {
            *destination = bytes;
            self.used += width;
        } else {
            self.put_growing(bytes.get(..width).unwrap_or_default());
        }
    }

    /// Appends bytes unchanged.
    #[inline]
    pub fn put_slice(&mut self, bytes: &[u8]) {
        match self.space.get_mut(self.used..self.used + bytes.len()) {
            Some(destination) => {
                destination.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.put_growing(bytes),
        }
    }

    /// Appends `count` zero bytes.
    pub fn put_zeros(&mut self, count: usize) {
        match self.space.get_mut(self.used..self.used + count) {
            Some(destination) => {
                destination.fill(0);
                self.used += count;
            }
            None => {
                self.grow(count);
                self.used += count;
            }
        }
    }

    /// Appends a String value: its length in LEB128, then its bytes.
    pub fn put_string(&mut self, text: &[u8]) {
        self.put_length(text.len());
        self.put_slice(text);
    }

    /// Appends the String value of the first `length` bytes of `block`.
    #[inline(always)]
    pub fn put_short_string(&mut self, block: &[u8; SHORT], length: usize) {
        let room = self.space.get_mut(self.used..).and_then(<[u8]>::first_chunk_mut::<{ SHORT + 1 }>);
        match room {
            Some([prefix, destination @ ..]) if length <= SHORT => {
                *prefix = length as u8;
                *destination = *block;
                self.used += 1 + length;
            }
            _ => self.put_string(block.get(..length).unwrap_or(block)),
        }
    }

    /// Appends the String value `source[start..start + length]`.
    ///
    /// The method takes the whole source so that it can copy a short string as one block that reads
    /// past the string's end: one load and one store instead of a call to `memcpy`. A range that is
    /// not inside the source appends an empty string.
    #[inline]
    pub fn put_string_of(&mut self, source: &[u8], start: usize, length: usize) {
        let block = if length <= MEDIUM { self.put_block(source, start, length) } else { None };
        if block.is_none() {
            self.put_string(source.get(start..start + length).unwrap_or_default());
        }
    }

    /// Appends a range of the written bytes of `other`. A short range is copied as one block, too.
    #[inline]
    pub fn put_range_of(&mut self, other: &Self, range: Range<usize>) {
        let length = range.len();
        if length <= SHORT && range.end <= other.used {
            let block = other.space.get(range.start..).and_then(|rest| rest.first_chunk::<SHORT>());
            let room = self.space.get_mut(self.used..);
            let destination = room.and_then(|room| room.first_chunk_mut::<SHORT>());
            if let (Some(block), Some(destination)) = (block, destination) {
                *destination = *block;
                self.used += length;
                return;
            }
        }
        self.put_slice(other.written().get(range).unwrap_or_default());
    }

    /// Appends a length below 128, which is one byte of LEB128, and copies a block, of which the first `length` bytes
    /// count. Appends nothing and returns `None` when the source or the space has no block.
    #[inline]
    fn put_block(&mut self, source: &[u8], start: usize, length: usize) -> Option<()> {
        debug_assert!(length <= MEDIUM && MEDIUM < 0x80);
        let block = source.get(start..)?.first_chunk::<MEDIUM>()?;
        let room = self.space.get_mut(self.used..)?.first_chunk_mut::<{ MEDIUM + 1 }>()?;
        let [prefix, destination @ ..] = room;
        *prefix = length as u8;
        *destination = *block;
        self.used += 1 + length;
        Some(())
    }

    /// Appends a length in LEB128: seven bits per byte, lowest first; the top bit of a byte is set
    /// when another byte follows.
    pub fn put_length(&mut self, length: usize) {
        let mut rest = length;
        while rest >= 0x80 {
            self.put([(rest as u8) | 0x80]);
            rest >>= 7;
        }
        self.put([rest as u8]);
    }

    /// Replaces the byte at `at`, which was put as a place for it, by a length in LEB128. The bytes behind it
    /// move only if the length takes more than a byte.
    pub fn set_length(&mut self, at: usize, length: usize) {
        if length >= 0x80 {
            let more = length.ilog2() as usize / 7;
            let end = self.used;
            self.put_zeros(more);
            if at < end {
                self.space.copy_within(at + 1..end, at + 1 + more);
            }
        }
        let mut rest = length;
        for byte in self.space.iter_mut().take(self.used).skip(at) {
            *byte = (rest as u8) | 0x80;
            rest >>= 7;
            if rest == 0 {
                *byte &= 0x7f;
                break;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn put_growing(&mut self, bytes: &[u8]) {
        self.grow(bytes.len());
        if let Some(destination) = self.space.get_mut(self.used..self.used + bytes.len()) {
            destination.copy_from_slice(bytes);
            self.used += bytes.len();
        }
    }

    /// Adds zeroed space for `more` bytes, and at least doubles the space.
    #[cold]
    fn grow(&mut self, more: usize) {
        self.space.truncate(self.used);
        self.space.resize(self.used * 2 + more + 64, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Write {
        Fixed([u8; 4]),
        Integer(u64, u8),
        Slice(Vec<u8>),
        Zeros(usize),
        Text(Vec<u8>),
        Window(Vec<u8>, usize, usize),
        Short([u8; SHORT], usize),
        Range(Vec<u8>, usize, usize),
        Truncate(usize),
    }

    fn writes() -> impl Strategy<Value = Write> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(Write::Fixed),
            (any::<u64>(), prop_oneof![Just(1u8), Just(2), Just(4), Just(8)])
                .prop_map(|(value, width)| Write::Integer(value, width)),
            prop::collection::vec(any::<u8>(), 0..70).prop_map(Write::Slice),
            (0usize..40).prop_map(Write::Zeros),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Write::Text),
            (prop::collection::vec(any::<u8>(), 150..250), 0usize..60, 0usize..90)
                .prop_map(|(source, start, length)| Write::Window(source, start, length)),
            (any::<[u8; SHORT]>(), 0..=SHORT).prop_map(|(block, length)| Write::Short(block, length)),
            (prop::collection::vec(any::<u8>(), 0..90), 0usize..60, 0usize..60)
                .prop_map(|(other, start, length)| Write::Range(other, start, length)),
            (0usize..200).prop_map(Write::Truncate),
        ]
    }

    fn leb128(out: &mut Vec<u8>, length: usize) {
        clickhouse_rowbinary::io::write_uvarint(length as u64, out).unwrap();
    }

    proptest! {
        /// The naive twin appends to a plain vector.
        #[test]
        fn it_writes_what_a_plain_vector_would_hold(
            space in 0usize..100,
            writes in prop::collection::vec(writes(), 0..40),
        ) {
            let mut buffer = RowBuffer::with_space(space);
            let mut twin = Vec::new();
            for write in writes {
                match write {
                    Write::Fixed(cell) => { buffer.put(cell); twin.extend_from_slice(&cell); }
                    Write::Integer(value, width) => {
                        buffer.put_integer(value, width);
                        twin.extend_from_slice(&value.to_le_bytes()[..usize::from(width)]);
                    }
                    Write::Slice(bytes) => { buffer.put_slice(&bytes); twin.extend_from_slice(&bytes); }
                    Write::Zeros(count) => { buffer.put_zeros(count); twin.resize(twin.len() + count, 0); }
                    Write::Text(text) => {
                        buffer.put_string(&text);
                        leb128(&mut twin, text.len());
                        twin.extend_from_slice(&text);
                    }
                    Write::Window(source, start, length) => {
                        buffer.put_string_of(&source, start, length);
                        leb128(&mut twin, length);
                        twin.extend_from_slice(&source[start..start + length]);
                    }
                    Write::Short(block, length) => {
                        buffer.put_short_string(&block, length);
                        leb128(&mut twin, length);
                        twin.extend_from_slice(&block[..length]);
                    }
                    Write::Range(bytes, start, length) => {
                        let mut other = RowBuffer::default();
                        other.put_slice(&bytes);
                        let range = start..start + length;
                        buffer.put_range_of(&other, range.clone());
                        twin.extend_from_slice(bytes.get(range).unwrap_or_default());
                    }
                    Write::Truncate(length) => { buffer.truncate(length); twin.truncate(length); }
                }
                prop_assert_eq!(buffer.written(), &twin[..]);
                prop_assert_eq!(buffer.len(), twin.len());
            }
        }
    }

    #[test]
    fn a_length_is_put_where_a_place_was_kept_for_it() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
            for space in [0, 4, 4096] {
                let mut buffer = RowBuffer::with_space(space);
                buffer.put(*b"ab");
                buffer.put([0]);
                buffer.put_slice(b"what follows");
                buffer.set_length(2, length);
                let mut twin = b"ab".to_vec();
                leb128(&mut twin, length);
                twin.extend_from_slice(b"what follows");
                assert_eq!(buffer.written(), twin, "{length}");
            }
        }
    }

    #[test]
    fn reset_keeps_at_most_the_given_space() {
        let mut buffer = RowBuffer::with_space(16);
        buffer.put_slice(&[7; 5000]);
        buffer.reset(100);
        assert!(buffer.is_empty() && buffer.space.capacity() < 5000);
        buffer.put_string(b"again");
        assert_eq!(buffer.written(), b"\x05again");
    }
}
