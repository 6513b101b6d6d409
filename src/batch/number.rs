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
    /// The table at a place of the list of tables.
    pub const fn new(place: u16) -> Self {
        Self(place)
    }

    /// The place in the list of tables.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}
