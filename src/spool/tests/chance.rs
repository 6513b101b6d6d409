//! Pseudo-random numbers: the same seed gives the same run.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(in crate::spool) struct Chance(u64);

impl Chance {
    pub(in crate::spool) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::spool) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub(in crate::spool) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(in crate::spool) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(in crate::spool) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
