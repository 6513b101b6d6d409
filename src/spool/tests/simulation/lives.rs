//! The lives, many of them, each from a seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::super::faulty::Fault;
use super::{Kind, Life, Reached};
use crate::spool::Durability;

/// Number of lives in a plain run of the tests.
const SEEDS: u64 = 2000;

/// The states that a thousand lives must reach.
const RARE_STATES: [&str; 18] = [
    "a batch waits for the next segment",
    "a sync of the committer fails",
    "a sync of the journal fails",
    "a group is refused",
    "several requests with a key share a batch",
    "one key comes twice in a batch",
    "a request with a key is a repeat",
    "a segment can't be sealed",
    "the journal goes on in its other file",
    "a start finds two segments without a seal",
    "a start on a full disk",
    "a start finds several blocks in a segment",
    "a block is moved out of its segment",
    "a block of several in a segment is damaged",
    "an attempt is open at a start",
    "a block is cut at a start",
    "a copy of the disk has something to insert",
    "the clock is wrong at a start",
];

/// Runs `life`, and prints its seed if it fails.
fn with_seed<T>(seed: u64, life: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(life)).unwrap_or_else(|panic| {
        eprintln!(
            "seed {seed} failed; again: SIM_FIRST_SEED={seed} SIM_SEEDS=1 cargo test --lib what_was_acknowledged"
        );
        resume_unwind(panic)
    })
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SIM_FIRST_SEED").unwrap_or(0);
    first..first + number("SIM_SEEDS").unwrap_or(SEEDS)
}

#[test]
fn what_was_acknowledged_is_stored_once_whatever_fails() {
    let (seeds, mut reached) = (seeds(), Reached::new());
    let lives = seeds.end - seeds.start;
    for seed in seeds {
        let durability = if seed % 4 == 2 { Durability::Written } else { Durability::Sync };
        let kind = Kind { durability, flips: seed % 4 == 3, copies: matches!(seed % 8, 1 | 2) };
        let life = || {
            let mut life = Life::new(seed, kind);
            life.live(40, None);
            life.reached
        };
        for (state, times) in with_seed(seed, life) {
            *reached.entry(state).or_default() += times;
        }
    }
    eprintln!("{lives} lives reached {reached:?}");
    let missed: Vec<_> =
        RARE_STATES.iter().filter(|state| reached.get(*state).is_none_or(|times| *times == 0)).collect();
    assert!(lives < 1000 || missed.is_empty(), "no life reached {missed:?}");
}

#[test]
fn every_call_may_fail_in_every_way() {
    let kind = Kind { durability: Durability::Sync, flips: false, copies: false };
    for seed in [1, 2, 3] {
        let mut whole = Life::new(seed, kind);
        whole.live(8, Some((u64::MAX, Fault::Fails)));
        for nth in 1..=whole.disk.calls() {
            for fault in Fault::ALL {
                let life = || Life::new(seed, kind).live(8, Some((nth, fault)));
                let outcome = catch_unwind(AssertUnwindSafe(life));
                assert!(outcome.is_ok(), "seed {seed}: {fault:?} at call {nth}");
            }
        }
    }
}
