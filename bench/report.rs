//! What the benchmarks of a folder have measured: one table of all of it, or a drawing of each.
//!
//! `cargo bench --bench report -- table FOLDER` (`make bench` ends with it) and
//! `cargo bench --bench report -- draw FOLDER` (or `make bench-plot`), which writes an SVG beside each
//! record. `cargo bench --bench report -- gate FILE` (`make bench-gate`) holds the instructions of the encoder
//! against those of the structs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/corpora.rs"]
#[allow(dead_code)]
mod corpora;
#[path = "support/drawing.rs"]
mod drawing;
#[path = "support/gate.rs"]
mod gate;
#[path = "../tests/support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/record.rs"]
mod record;

use std::error::Error;
use std::path::Path;

use record::{At, Record, number};

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds one of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["table", folder] => table(&record::read(Path::new(folder))?),
        ["draw", folder] => {
            for record in record::read(Path::new(folder))? {
                let path = Path::new(folder).join(format!("{}.svg", record.run.bench));
                drawing::draw(&path, &record)?;
                println!("{}", path.display());
            }
        }
        ["gate", file] => gate::check(Path::new(file))?,
        // As `cargo bench` calls it without more: there is nothing to measure.
        [] => println!("report table FOLDER | report draw FOLDER | report gate FILE"),
        _ => return Err("report table FOLDER | report draw FOLDER | report gate FILE".into()),
    }
    Ok(())
}

fn table(records: &[Record]) {
    println!("{:<60} {:<36} {:>12} {:<8} {:>24}", "", "", "median", "", "least–most");
    for Record { run, figures } in records {
        println!("{}: {}, {}, {}, load {}", run.bench, run.date, run.commit, run.machine(), run.load);
        for figure in figures {
            let (least, most) = figure.spread();
            let name = match &figure.at {
                Some(At { along, x }) => format!("{}, {along}: {x}", figure.series),
                None => figure.series.clone(),
            };
            let spread =
                if figure.rounds.len() > 1 { format!("{}–{}", number(least), number(most)) } else { String::new() };
            println!(
                "  {name:<58} {:<36} {:>12} {:<8} {spread:>24}",
                figure.figure,
                number(figure.median()),
                figure.unit
            );
        }
    }
}
