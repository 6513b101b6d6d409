//! What several tables cost the server: the CPU time of a request of 30 events, with the same load over 1, 5, 20
//! and 100 tables, in one run, in turn. The whole process counts: workers, committer, keeper, inserters.
//!
//! `cargo bench --bench tables` (or `make bench-tables`). Environment: `BENCH_REQUESTS` (a round, 30000),
//! `BENCH_ROUNDS` (5), `BENCH_CONNECTIONS` (64), `BENCH_DURABILITY` (`written`), `BENCH_RECORD` (a folder for the
//! raw figures). `--quick` runs two short rounds, to see that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;
#[path = "support/turn.rs"]
mod turn;

use std::error::Error;
use std::time::Duration;

use load::{Connections, Until};
use process::{ClickHouse, on_core, serve, size};
use record::Record;
use turn::Turn;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");
const COUNTS: [usize; 5] = [1, 1, 5, 20, 100];

/// The core of the server under test; the load runs on another.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// What the committer and the inserters still have to do belongs to the round.
const LAST_SEGMENT: Duration = Duration::from_millis(2500);

fn main() -> Result<(), Box<dyn Error>> {
    let requests = size("BENCH_REQUESTS", 30_000, 3_000);
    let rounds = size("BENCH_ROUNDS", 5, 2);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;
    let durability = std::env::var("BENCH_DURABILITY").unwrap_or_else(|_| "written".to_owned());
    let mut record = Record::begin("tables");
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let most = COUNTS.into_iter().max().unwrap_or(1);
    for table in 0..most {
        clickhouse.query(&format!("CREATE TABLE bench.t{table} ({}) ENGINE = Null", columns::definitions()))?;
    }
    let mut contenders = Vec::new();
    for tables in COUNTS {
        let file = clickhouse.folder().join(format!("{tables}.toml"));
        std::fs::write(&file, (0..tables).map(|table| format!("[table.t{table}]\n")).collect::<String>())?;
        let file = file.to_string_lossy();
        let flags = ["--workers", "1", "--config", &file];
        contenders.push((tables, on_core(SERVER_CORE, || serve(&clickhouse, &durability, &flags))??));
    }
    process::pin(LOAD_CORE);
    let requests_of: Vec<Vec<u8>> = (0..most).map(|table| load::request(&format!("/api/t{table}"), EVENTS)).collect();
    let mut turns = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for ((tables, (child, address)), turns) in contenders.iter().zip(&mut turns) {
            let mut connections = Connections::open(*address, connections)?;
            let in_turn = requests_of[..*tables].iter().map(Vec::as_slice).collect();
            let turn = Turn::take_in_turn(child, &mut connections, in_turn, Until::Requests(requests), |_| {
                std::thread::sleep(LAST_SEGMENT);
                Ok(())
            })?;
            // The first round warms up.
            if round > 0 {
                turns.push(turn.cost);
            }
        }
    }
    println!(
        "{requests} requests of 30 events a round, {rounds} rounds in turn, {connections} connections, one worker, {durability}"
    );
    println!("{:<12} {:>24} {:>20}", "tables", "µs CPU a request", "× one table");
    let one = turns[0].clone();
    for ((tables, _), costs) in contenders.iter().zip(turns) {
        let name = format!("{tables} tables");
        let ratios: Vec<f64> = costs.iter().zip(&one).map(|(cost, one)| cost / one).collect();
        let cost = record.note(&name, "CPU time a request", "µs", costs).summary();
        let ratio = record.note(&name, "CPU time a request, one table = 1", "×", ratios).summary();
        println!("{tables:<12} {cost:>24} {ratio:>20}");
    }
    record.save()
}
