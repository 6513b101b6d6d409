//! The server's memory: for an idle connection, under 500 busy ones, and over time.
//!
//! `cargo bench --bench memory` (or `make bench`). Environment: `BENCH_IDLE` (connections, 10000),
//! `BENCH_BUSY` (500), `BENCH_MINUTES` (of load to see whether it stays flat, 0).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;

use std::error::Error;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use process::{ClickHouse, serve, setting};

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

fn main() -> Result<(), Box<dyn Error>> {
    let idle_count = usize::try_from(setting("BENCH_IDLE", 10_000))?;
    let busy_count = usize::try_from(setting("BENCH_BUSY", 500))?;
    let minutes = setting("BENCH_MINUTES", 0);
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let (server, address) = serve(&clickhouse, "sync", &[])?;
    let request = load::request("/api/events", EVENTS);
    let load = |connections: usize, requests: u64| -> Result<f64, Box<dyn Error>> {
        let outcome = load::run(address, &request, connections, requests)?;
        if outcome.failed > 0 {
            return Err(format!("{} requests failed", outcome.failed).into());
        }
        Ok(requests as f64 / outcome.elapsed.as_secs_f64())
    };

    load(64, 20_000)?;
    let before = server.memory("RssAnon")?;
    let idle: Vec<TcpStream> = (0..idle_count).map(|_| TcpStream::connect(address)).collect::<std::io::Result<_>>()?;
    // The last of them are accepted and registered.
    std::thread::sleep(Duration::from_secs(2));
    let each = server.memory("RssAnon")?.saturating_sub(before) / idle_count as u64;
    println!("{idle_count} idle connections: {each} bytes each in user space");
    drop(idle);

    load(busy_count, 100_000)?;
    let resident = server.memory("VmRSS")? as f64 / f64::from(1 << 20);
    println!("{busy_count} busy connections, 100000 requests of 30 events: {resident:.1} MiB resident");

    let begun = Instant::now();
    let mut minute = 0;
    while minute < minutes {
        let rate = load(busy_count, 20_000)?;
        if begun.elapsed() >= Duration::from_secs((minute + 1) * 60) {
            minute += 1;
            let resident = server.memory("VmRSS")? as f64 / f64::from(1 << 20);
            println!("after {minute} minutes: {resident:.1} MiB resident, {rate:.0} requests/s");
        }
    }
    Ok(())
}
