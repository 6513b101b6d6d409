//! Events a core-second of the row encoder, against `sonic_rs::from_slice` into a borrowed struct
//! with the same RowBinary written from it, on bodies from the usual to the awkward.
//!
//! Both run in one process, in alternating rounds, so that a machine that becomes slower becomes
//! so for both; the figure is the median of the rounds' ratios. `--quick` runs a few rounds only,
//! to see that it runs at all; any other argument is a part of the name of a body that shall be run.
//!
//! `--instructions` counts the instructions of both sides instead, with callgrind of Debian's package valgrind: what
//! else the machine does changes nothing in them. With `--gate` it fails if the encoder needs more, compared with the
//! structs, than [`LEAST`] says.

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
#[path = "support/structs.rs"]
mod structs;

use std::error::Error;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use corpora::{Corpus, Table};
use record::Record;
use rows::ORIGIN;
use sluicegate::batch::Batch;
use sluicegate::ndjson::{Report, RowEncoder};
use sluicegate::rowbinary::RowBuffer;
use structs::{
    ARRAY_COLUMNS, Event, HUNDRED_COLUMNS, Hundred, MAP_COLUMNS, Sparse, TUPLE_COLUMNS, WithArray, WithMap, WithObject,
};

/// What [`ORIGIN`] is in a row.
const IP: &[u8] = b"8.8.8.8";
const SECONDS: u32 = 1_606_864_194;

/// Bytes that each side encodes in a round.
const ROUND_BYTES: usize = 3 << 20;
/// Many short rounds: another tenant of the machine then spoils some of them, and not the median.
const ROUNDS: usize = 151;

/// Bodies whose instructions are counted, after one from which the encoder learns.
const BODIES_COUNTED: usize = 5;

/// How many times fewer instructions than the structs the encoder needs at least: a twentieth less than at commit 6a70340.
const LEAST: [(&str, f64); 20] = [
    ("15 % escapes or non-ASCII, 5 % another order", 2.94),
    ("as recorded", 2.93),
    ("random key order", 1.12),
    ("long strings", 1.61),
    ("many unknown fields", 1.28),
    ("deep unknown values", 1.28),
    ("nothing but escapes", 1.53),
    ("100 columns", 5.10),
    ("4 shapes, line by line", 2.18),
    ("8 shapes, line by line", 2.09),
    ("16 shapes, line by line", 2.14),
    ("4 shapes, 30 lines each", 2.09),
    ("8 shapes, 30 lines each", 2.15),
    ("16 shapes, 30 lines each", 2.16),
    ("each field present half the time", 1.92),
    ("random key order, keys never seen before", 1.13),
    ("white space as Python writes it", 3.26),
    ("an array of 10 integers", 2.45),
    ("a map of 10 entries", 1.97),
    ("a nested object", 2.10),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let once = arguments.iter().any(|argument| argument == "--once");
    let named = |corpus: &Corpus| {
        let mut names = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
        names.peek().is_none()
            || names.any(|name| if once { corpus.name == name } else { corpus.name.contains(name.as_str()) })
    };
    if arguments.iter().any(|argument| argument == "--instructions") {
        println!("{:<46} {:>20} {:>20} {:>18}", "instructions an event", "encoder", "from_slice", "ratio");
        let mut below = Vec::new();
        for corpus in corpora::all().into_iter().filter(named) {
            let [encoder, from_slice] = [instructions("encoder_side", &corpus)?, instructions("struct_side", &corpus)?];
            let ratio = from_slice / encoder;
            println!("{:<46} {encoder:>20.0} {from_slice:>20.0} {ratio:>18.2}", corpus.name);
            let least = LEAST.iter().find(|(name, _)| *name == corpus.name).ok_or("a body without a least ratio")?.1;
            if ratio < least {
                below.push(format!("{}: {ratio:.2} is less than {least:.2}", corpus.name));
            }
        }
        if arguments.iter().any(|argument| argument == "--gate") && !below.is_empty() {
            return Err(below.join("; ").into());
        }
        return Ok(());
    }
    let mut record = Record::begin("encoder");
    println!("{:<46} {:>20} {:>20} {:>18}", "million events a core-second", "encoder", "from_slice", "ratio");
    for corpus in corpora::all().into_iter().filter(named) {
        let (rounds, bodies) = if once {
            (1, BODIES_COUNTED)
        } else if quick {
            (3, 5)
        } else {
            (ROUNDS, (ROUND_BYTES / corpus.body.len()).max(1))
        };
        let [encoder, from_slice, ratio] = compare(&corpus, rounds, bodies)?;
        let unit = "million/s";
        let encoder = record.note("encoder", corpus.name, unit, encoder).summary();
        let from_slice = record.note("from_slice", corpus.name, unit, from_slice).summary();
        let ratio = record.note("times from_slice", corpus.name, "×", ratio).summary();
        println!("{:<46} {encoder:>20} {from_slice:>20} {ratio:>18}", corpus.name);
    }
    record.save()
}

/// The other side: reads every line of a body into the struct of a table.
type WithStructs<'a> = fn(&'a [u8], &[u8], u32, &mut RowBuffer, &mut Batch) -> Result<(), String>;

/// Rates of both in million events a core-second, and the ratio of the first to the second, round by
/// round.
fn compare(corpus: &Corpus, rounds: usize, bodies: usize) -> Result<[Vec<f64>; 3], String> {
    let (columns, with_structs): (&[(&str, &str)], WithStructs<'_>) = match corpus.table {
        Table::Events => (&columns::OF_CLIENTS, structs::encode::<Event<'_>>),
        Table::Sparse => (&columns::OF_CLIENTS, structs::encode::<Sparse<'_>>),
        Table::Hundred => (&HUNDRED_COLUMNS, structs::encode::<Hundred<'_>>),
        Table::Array => (&ARRAY_COLUMNS, structs::encode::<WithArray<'_>>),
        Table::Map => (&MAP_COLUMNS, structs::encode::<WithMap<'_>>),
        Table::Tuple => (&TUPLE_COLUMNS, structs::encode::<WithObject<'_>>),
    };
    let mut encoder = rows::encoder(columns)?;
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let mut space = RowBuffer::with_space(16 << 10);

    // The same rows, or there is nothing to compare.
    encoder.encode(&corpus.body, &ORIGIN, &mut batch, &mut report).map_err(|refusal| format!("{refusal:?}"))?;
    let (encoded, events) = (batch.rows.bytes.clone(), batch.rows.count);
    batch.clear();
    with_structs(&corpus.body, IP, SECONDS, &mut space, &mut batch)?;
    if batch.rows.bytes != encoded || batch.rows.count != events {
        return Err(format!("{}: the two do not write the same rows", corpus.name));
    }

    let events = f64::from(events) * bodies as f64 / 1e6;
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..bodies {
            batch.clear();
            report.clear();
            encoder_side(&mut encoder, black_box(&corpus.body), &mut batch, &mut report)?;
            black_box(&batch.rows.bytes);
        }
        let encoder_rate = events / start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..bodies {
            batch.clear();
            struct_side(with_structs, black_box(&corpus.body), &mut space, &mut batch)?;
            black_box(&batch.rows.bytes);
        }
        let struct_rate = events / start.elapsed().as_secs_f64();
        for (rates, rate) in rates.iter_mut().zip([encoder_rate, struct_rate, encoder_rate / struct_rate]) {
            rates.push(rate);
        }
    }
    Ok(rates)
}

/// A body on the side of the encoder, in a function whose instructions can be counted.
#[inline(never)]
fn encoder_side(encoder: &mut RowEncoder, body: &[u8], batch: &mut Batch, report: &mut Report) -> Result<(), String> {
    encoder.encode(body, &ORIGIN, batch, report).map_err(|refusal| format!("{refusal:?}"))
}

/// The same of the structs.
#[inline(never)]
fn struct_side<'a>(
    encode: WithStructs<'a>,
    body: &'a [u8],
    space: &mut RowBuffer,
    batch: &mut Batch,
) -> Result<(), String> {
    encode(body, IP, SECONDS, space, batch)
}

/// Instructions an event of a side, as callgrind counts them.
fn instructions(side: &str, corpus: &Corpus) -> Result<f64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", &format!("--toggle-collect=*{side}*")])
        .arg(std::env::current_exe()?)
        .args(["--once", corpus.name])
        .env_remove("BENCH_RECORD")
        .output()
        .map_err(|error| format!("valgrind is needed: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).ok_or("callgrind counted nothing")?;
    let events = memchr::memchr_iter(b'\n', &corpus.body).count() * BODIES_COUNTED;
    Ok(collected.1.trim().parse::<f64>()? / events as f64)
}
