//! Events a core-second of the row encoder, against `sonic_rs::from_slice` into a borrowed struct
//! with the same RowBinary written from it, on bodies from the usual to the awkward.
//!
//! Both run in one process, in alternating rounds, so that a machine that becomes slower becomes
//! so for both; the figure is the median of the rounds' ratios. `--quick` runs a few rounds only,
//! to see that it runs at all; any other argument is a part of the name of a body that shall be run.
//!
//! `bench/instructions.rs` counts the instructions of both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/corpora.rs"]
mod corpora;
#[path = "../tests/support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/record.rs"]
mod record;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/sides.rs"]
mod sides;
#[path = "support/structs.rs"]
mod structs;

use std::error::Error;
use std::time::Instant;

use corpora::Corpus;
use record::Record;
use sides::Sides;

/// Bytes that each side encodes in a round.
const ROUND_BYTES: usize = 3 << 20;
/// Many short rounds: another tenant of the machine then spoils some of them, and not the median.
const ROUNDS: usize = 151;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named = |corpus: &Corpus| {
        let mut names = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|name| corpus.name.contains(name.as_str()))
    };
    let mut record = Record::begin("encoder");
    println!("{:<46} {:>20} {:>20} {:>18}", "million events a core-second", "encoder", "from_slice", "ratio");
    for corpus in corpora::all().into_iter().filter(named) {
        let (rounds, bodies) = if quick { (3, 5) } else { (ROUNDS, (ROUND_BYTES / corpus.body.len()).max(1)) };
        let [encoder, from_slice, ratio] = compare(&corpus, rounds, bodies)?;
        let unit = "million/s";
        let encoder = record.note("encoder", corpus.name, unit, encoder).summary();
        let from_slice = record.note("from_slice", corpus.name, unit, from_slice).summary();
        let ratio = record.note("times from_slice", corpus.name, "×", ratio).summary();
        println!("{:<46} {encoder:>20} {from_slice:>20} {ratio:>18}", corpus.name);
    }
    record.save()
}

/// Rates of both in million events a core-second, and the ratio of the first to the second, round by
/// round.
fn compare(corpus: &Corpus, rounds: usize, bodies: usize) -> Result<[Vec<f64>; 3], String> {
    let mut sides = Sides::of(corpus)?;
    let events = f64::from(sides.events) * bodies as f64 / 1e6;
    let mut rate = |encode: fn(&mut Sides) -> Result<(), String>| {
        let start = Instant::now();
        (0..bodies).try_for_each(|_| encode(&mut sides))?;
        Ok::<f64, String>(events / start.elapsed().as_secs_f64())
    };
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let (encoder, structs) = (rate(Sides::encode)?, rate(Sides::encode_by_structs)?);
        for (rates, rate) in rates.iter_mut().zip([encoder, structs, encoder / structs]) {
            rates.push(rate);
        }
    }
    Ok(rates)
}
