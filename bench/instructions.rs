//! Instructions of the row encoder and of the structs that it is compared with, for the bodies of the benchmark
//! `encoder`, as callgrind counts them by Gungraun. What else the machine does changes nothing in them.
//!
//! `make bench-gate` runs it, and holds the two against each other with `bench/gate.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// What the macros of Gungraun make is public.
#![allow(missing_docs)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/corpora.rs"]
mod corpora;
#[path = "../tests/support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/sides.rs"]
mod sides;
#[path = "support/structs.rs"]
mod structs;

use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

use sides::Sides;

/// Times that a body is encoded: the encoder learns orders of keys now and then.
const TIMES: usize = 20;

/// Both sides of a body, when the encoder has learned from it.
fn learned(body: usize) -> Sides {
    Sides::of(&corpora::all()[body]).unwrap()
}

#[library_benchmark]
#[benches::body(iter = 0..corpora::all().len(), setup = learned)]
fn by_encoder(mut sides: Sides) -> Sides {
    (0..TIMES).try_for_each(|_| sides.encode()).unwrap();
    sides
}

#[library_benchmark]
#[benches::body(iter = 0..corpora::all().len(), setup = learned)]
fn by_structs(mut sides: Sides) -> Sides {
    (0..TIMES).try_for_each(|_| sides.encode_by_structs()).unwrap();
    sides
}

library_benchmark_group!(name = encoding, benchmarks = [by_encoder, by_structs]);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = encoding
);
