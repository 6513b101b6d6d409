//! Chance that can be repeated: the same seed, the same choices.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// `stream` tells apart those who draw from one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What the environment says under `name`, or a fresh one; printed, so that a run can be repeated.
pub fn seed(name: &str) -> u64 {
    let given = std::env::var(name).ok().map(|text| text.parse().expect("a seed is a number"));
    let seed = given.unwrap_or_else(fresh);
    println!("{name}={seed}");
    seed
}

/// Different each time.
pub fn fresh() -> u64 {
    RandomState::new().build_hasher().finish()
}
