//! The server's CPU time for a request of 30 events, beside that of a bare loop that only reads
//! and answers, in one run, in turn. The whole process counts: workers, committer, inserters.
//!
//! `cargo bench --bench server` (or `make bench`); with `--features engine-may` the other engine too.
//! Environment: `BENCH_REQUESTS` (a round, 30000), `BENCH_ROUNDS` (5), `BENCH_CONNECTIONS` (64),
//! `BENCH_RECORD` (a folder for the raw figures). `--quick` runs two short rounds, to see that it runs
//! at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/bare.rs"]
mod bare;
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
#[cfg(feature = "engine-may")]
use std::net::SocketAddr;
use std::time::Duration;

use load::{Connections, Until};
use process::{Child, ClickHouse, free_address, serve, size};
use record::Record;
use turn::Turn;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

/// The core of the server under test; the load runs on another.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// What the committer and the inserters still have to do belongs to the round.
const LAST_BLOCK: Duration = Duration::from_millis(1200);
const ONE_WORKER: [&str; 2] = ["--workers", "1"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        process::pin(SERVER_CORE);
        return Ok(bare::serve(address.parse()?)?);
    }
    let requests = size("BENCH_REQUESTS", 30_000, 3_000);
    let rounds = size("BENCH_ROUNDS", 5, 2);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;

    let mut record = Record::begin("server");
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;

    let bare_address = free_address()?;
    let bare = Child::start(std::env::current_exe()?, &["bare", &bare_address.to_string()], bare_address)?;
    let (sync, sync_address) = serve(&clickhouse, "sync", &ONE_WORKER)?;
    let (written, written_address) = serve(&clickhouse, "written", &ONE_WORKER)?;
    #[cfg(feature = "engine-may")]
    let ((may_sync, may_sync_address), (may_written, may_written_address)) =
        (serve_may(&clickhouse, "sync")?, serve_may(&clickhouse, "written")?);
    process::pin(LOAD_CORE);

    let request = load::request("/api/events", EVENTS);
    let contenders = [
        ("bare loop", &bare, bare_address),
        ("written", &written, written_address),
        ("sync", &sync, sync_address),
        #[cfg(feature = "engine-may")]
        ("may written", &may_written, may_written_address),
        #[cfg(feature = "engine-may")]
        ("may sync", &may_sync, may_sync_address),
    ];
    let mut turns = contenders.map(|_| Vec::new());
    for round in 0..=rounds {
        for ((_, child, address), turns) in contenders.iter().zip(&mut turns) {
            let mut connections = Connections::open(*address, connections)?;
            let turn = Turn::take(child, &mut connections, &request, Until::Requests(requests), |_| {
                // The last block is sealed by its age, and inserted.
                std::thread::sleep(LAST_BLOCK);
                Ok(())
            })?;
            // The first round warms up.
            if round > 0 {
                turns.push(turn);
            }
        }
    }

    println!(
        "{requests} requests of 30 events a round, {rounds} rounds in turn, {connections} connections, one worker"
    );
    println!(
        "{:<12} {:>20} {:>18} {:>24} {:>22} {:>22} {:>16}",
        "", "µs CPU a request", "× bare loop", "requests/s", "p50 ms", "p99 ms", "events/core-s"
    );
    let baseline: Vec<f64> = turns[0].iter().map(|turn| turn.cost).collect();
    for ((name, _, _), turns) in contenders.iter().zip(&turns) {
        let ([cost, rate], [p50, p99, ..]) = turn::note(&mut record, name, turns);
        let ratios = turns.iter().zip(&baseline).map(|(turn, bare)| turn.cost / bare);
        let ratio = record.note(name, "CPU time a request, bare loop = 1", "×", ratios).summary();
        let per_core = turns.iter().map(|turn| 30.0 * 1e6 / turn.cost);
        let per_core = record.note(name, "events a core-second", "1/s", per_core).median();
        println!("{name:<12} {cost:>20} {ratio:>18} {rate:>24} {p50:>22} {p99:>22} {per_core:>16.0}");
    }
    record.save()
}

/// A server with the other engine, on one core: it pins its only worker to the first that it may use.
#[cfg(feature = "engine-may")]
fn serve_may(clickhouse: &ClickHouse, durability: &str) -> Result<(Child, SocketAddr), Box<dyn Error>> {
    serve(clickhouse, durability, &[&ONE_WORKER[..], &["--engine", "may"]].concat())
}
