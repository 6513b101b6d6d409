//! Kinds of numbers, each a type of its own, so that none can be passed for another.

macro_rules! number {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number that was read, or that a test makes up.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself, for files, names and texts.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after it.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// The one so many after it; the highest number has none after it.
            #[must_use]
            pub const fn plus(self, more: u64) -> Self {
                Self(self.0.saturating_add(more))
            }

            /// How many further than `earlier` this one is; 0 when it is not.
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
    /// Counts the batches of one worker, from 1 without a gap.
    Sequence
}

number! {
    /// Names a segment of the spool; the next segment has the next number.
    SegmentNumber
}

number! {
    /// Counts the frames of one epoch of the spool, from 1 without a gap.
    Position
}

number! {
    /// Names one start of a process on a spool: chosen at random, in every header and token of it.
    Epoch
}
