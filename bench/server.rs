//! The server's CPU time for a request of 30 events, beside that of a bare loop that only reads
//! and answers, in one run, in turn. The whole process counts: workers, committer, inserters.
//!
//! `cargo bench --bench server` (or `make bench`); with `--features engine-may` the other engine too.
//! Environment: `BENCH_REQUESTS` (a round, 30000), `BENCH_ROUNDS` (5), `BENCH_CONNECTIONS` (64).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;

use std::error::Error;
#[cfg(feature = "engine-may")]
use std::net::SocketAddr;

use process::{Child, ClickHouse, free_address, median, serve, size};
use record::Record;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

/// The core of the server under test; the load runs on another.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const ONE_WORKER: [&str; 2] = ["--workers", "1"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        process::pin(SERVER_CORE);
        return Ok(bare::serve(address.parse()?)?);
    }
    let requests = size("BENCH_REQUESTS", 30_000, 2_000);
    let rounds = size("BENCH_ROUNDS", 5, 1);
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
    let mut costs = contenders.map(|_| Vec::new());
    for round in 0..=rounds {
        for ((_, child, address), costs) in contenders.iter().zip(&mut costs) {
            let before = child.cpu_time()?;
            let outcome = load::run(*address, &request, connections, requests)?;
            if outcome.failed > 0 {
                return Err(format!("{} of {requests} requests failed", outcome.failed).into());
            }
            // What the committer and the inserters still have to do belongs to the round.
            std::thread::sleep(std::time::Duration::from_millis(1500));
            let microseconds = (child.cpu_time()? - before).as_secs_f64() * 1e6 / requests as f64;
            // The first round warms up.
            if round > 0 {
                costs.push((microseconds, requests as f64 / outcome.elapsed.as_secs_f64()));
            }
        }
    }

    println!(
        "{requests} requests of 30 events a round, {rounds} rounds in turn, {connections} connections, one worker"
    );
    println!(
        "{:<12} {:>22} {:>18} {:>24} {:>22}",
        "", "µs CPU a request", "× bare loop", "requests/s", "events a core-second"
    );
    let baseline: Vec<f64> = costs[0].iter().map(|(cost, _)| *cost).collect();
    for ((name, _, _), costs) in contenders.iter().zip(&costs) {
        let per_core = 30.0 * 1e6 / median(costs.iter().map(|(cost, _)| *cost).collect());
        let cost = record.note(name, "CPU time a request", "µs", costs.iter().map(|(cost, _)| *cost)).summary();
        let ratios = costs.iter().zip(&baseline).map(|((cost, _), bare)| cost / bare);
        let ratio = record.note(name, "CPU time, times the bare loop's", "×", ratios).summary();
        let rate = record.note(name, "requests a second", "1/s", costs.iter().map(|(_, rate)| *rate)).summary();
        println!("{name:<12} {cost:>22} {ratio:>18} {rate:>24} {per_core:>22.0}");
    }
    record.save()
}

/// A server with the other engine, on one core: it pins its only worker to the first that it may use.
#[cfg(feature = "engine-may")]
fn serve_may(clickhouse: &ClickHouse, durability: &str) -> Result<(Child, SocketAddr), Box<dyn Error>> {
    serve(clickhouse, durability, &[&ONE_WORKER[..], &["--engine", "may"]].concat())
}
