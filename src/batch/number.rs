//! Newtypes of the counters and identifiers, so that one kind of number can't be passed for another.

macro_rules! number {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number that was read from a file or made up by a test.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number, for files, names and messages.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// The number plus `more`, at most `u64::MAX`.
            #[must_use]
            pub const fn plus(self, more: u64) -> Self {
                Self(self.0.saturating_add(more))
            }

            /// The distance from `earlier` to this number; 0 if this number is not larger.
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number! {
    /// The number of a batch of one worker: counted from 1, without gaps.
    Sequence
}

number! {
    /// The number of a segment of the spool; the next segment has the next number.
    SegmentNumber
}

number! {
    /// The number of a frame within one epoch of the spool: counted from 1, without gaps.
    Position
}

number! {
    /// The random number of one start of the server on a spool. Every file header and every
    /// deduplication token of that start contains it.
    Epoch
}

/// A table, by its place among those that the server was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TableIndex(u16);

impl TableIndex {
    /// One that the server was not started for: an earlier one left something of it.
    pub const OTHER: Self = Self(u16::MAX);

    /// The table at a place of the list of tables.
    pub const fn new(place: u16) -> Self {
        Self(place)
    }

    /// The place in the list of tables.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Names a block of the spool: its segment, and its place among the blocks of that segment. `12` is the
/// first block of segment 12 as text, and `12.3` the fourth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockNumber {
    /// The segment that holds the block.
    pub segment: SegmentNumber,
    /// The place among the segment's blocks, from 0.
    pub index: u16,
}

impl BlockNumber {
    /// Segments have numbers below this one, so that a block's number fits into 64 bits.
    pub const SEGMENTS: u64 = 1 << 48;

    /// The first block of a segment, which is the only one where the segment has one table.
    pub const fn first(segment: SegmentNumber) -> Self {
        Self { segment, index: 0 }
    }

    /// The number in 64 bits; that of a first block is its segment's number.
    pub const fn packed(self) -> u64 {
        ((self.index as u64) << 48) | (self.segment.get() % Self::SEGMENTS)
    }

    /// The block whose number was [`BlockNumber::packed`].
    pub const fn unpacked(number: u64) -> Self {
        Self { segment: SegmentNumber::new(number % Self::SEGMENTS), index: (number >> 48) as u16 }
    }
}

impl std::fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            0 => self.segment.fmt(f),
            index => write!(f, "{}.{index}", self.segment),
        }
    }
}

impl std::str::FromStr for BlockNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            None => Ok(Self::first(text.parse()?)),
            Some((segment, index)) => Ok(Self { segment: segment.parse()?, index: index.parse()? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_block_is_the_same_as_text_and_in_64_bits() {
        for (segment, index, text) in
            [(12, 0, "12"), (12, 3, "12.3"), ((1 << 48) - 1, u16::MAX, "281474976710655.65535")]
        {
            let number = BlockNumber { segment: SegmentNumber::new(segment), index };
            assert_eq!((number.to_string().as_str(), text.parse()), (text, Ok(number)));
            assert_eq!(BlockNumber::unpacked(number.packed()), number);
        }
        assert_eq!(BlockNumber::first(SegmentNumber::new(7)).packed(), 7);
        for wrong in ["", "x", "1.", ".1", "1.65536", "1.2.3", "-1"] {
            assert!(wrong.parse::<BlockNumber>().is_err(), "{wrong}");
        }
    }
}
