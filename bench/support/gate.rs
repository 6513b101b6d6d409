//! The gate of the encoder's speed: its instructions, compared with those of the structs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::corpora::{self, Corpus};

/// How many times fewer instructions than the structs the encoder needs at least, by body: a twentieth less than
/// at commit 6a70340.
const LEAST: [(&str, f64); 20] = [
    ("15 % escapes or non-ASCII, 5 % another order", 2.94),
    ("as recorded", 2.93),
    ("random key order", 1.25),
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
    ("random key order, keys never seen before", 1.15),
    ("white space as Python writes it", 3.26),
    ("an array of 10 integers", 2.45),
    ("a map of 10 entries", 1.97),
    ("a nested object", 2.10),
];

/// Times that a body is encoded on each side, as in `bench/instructions.rs`.
const TIMES: usize = 20;

/// What Gungraun says of a function and a body (its summary of version 7).
#[derive(Deserialize)]
struct Counted {
    function_name: String,
    /// `body_` and the number of the body.
    id: String,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Metrics {
    #[serde(rename = "Ir")]
    instructions: Metric,
}

#[derive(Deserialize)]
struct Metric {
    values: Values,
}

#[derive(Deserialize)]
struct Values {
    new: u64,
}

/// Prints the instructions an event of both sides. `file` is what `bench/instructions.rs` wrote, a line for each.
///
/// # Errors
///
/// If something is missing, or a body's ratio is less than it has to be.
pub fn check(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut counted = BTreeMap::new();
    for line in fs::read_to_string(file)?.lines() {
        let Counted { function_name, id, profiles } = serde_json::from_str(line)?;
        let [Profile { data }] = profiles.as_slice() else { return Err("not one profile".into()) };
        counted.insert((function_name, id), data.total.metrics.instructions.values.new as f64);
    }
    println!("{:<46} {:>20} {:>20} {:>18}", "instructions an event", "encoder", "from_slice", "ratio");
    let mut below = Vec::new();
    for (index, Corpus { name, body, .. }) in corpora::all().iter().enumerate() {
        let of = |side: &str| counted.get(&(side.to_owned(), format!("body_{index}"))).ok_or("a body is missing");
        let (encoder, structs) = (of("by_encoder")?, of("by_structs")?);
        let events = (memchr::memchr_iter(b'\n', body).count() * TIMES) as f64;
        let ratio = structs / encoder;
        println!("{name:<46} {:>20.0} {:>20.0} {ratio:>18.2}", encoder / events, structs / events);
        let least = LEAST.iter().find(|(body, _)| body == name).ok_or("a body without a least ratio")?.1;
        if ratio < least {
            below.push(format!("{name}: {ratio:.2} is less than {least:.2}"));
        }
    }
    if below.is_empty() { Ok(()) } else { Err(below.join("; ").into()) }
}
