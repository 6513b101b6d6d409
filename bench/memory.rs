//! The server's memory: for an idle connection, under 500 busy ones, and over time.
//!
//! `cargo bench --bench memory` (or `make bench`). Environment: `BENCH_IDLE` (connections, 10000),
//! `BENCH_BUSY` (500), `BENCH_MINUTES` (of load to see whether it stays flat, 0), `BENCH_RECORD` (a
//! folder for the raw figures). `--quick` opens few of them, to see that it runs at all.

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

use std::error::Error;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use process::{ClickHouse, is_quick, serve, setting, size};
use record::Record;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

fn main() -> Result<(), Box<dyn Error>> {
    let idle_count = usize::try_from(size("BENCH_IDLE", 10_000, 500))?;
    let busy_count = usize::try_from(size("BENCH_BUSY", 500, 50))?;
    let (warm_up, requests) = if is_quick() { (1_000, 5_000) } else { (20_000, 100_000) };
    let minutes = setting("BENCH_MINUTES", 0);
    let mut record = Record::begin("memory");
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

    load(64, warm_up)?;
    let before = server.memory("RssAnon")?;
    let idle: Vec<TcpStream> = (0..idle_count).map(|_| TcpStream::connect(address)).collect::<std::io::Result<_>>()?;
    // The last of them are accepted and registered.
    std::thread::sleep(Duration::from_secs(2));
    let each = server.memory("RssAnon")?.saturating_sub(before) / idle_count as u64;
    println!("{idle_count} idle connections: {each} bytes each in user space");
    record.note(&format!("{idle_count} connections"), "memory of an idle connection", "bytes", [each as f64]);
    drop(idle);

    load(busy_count, requests)?;
    let resident = server.memory("VmRSS")? as f64 / f64::from(1 << 20);
    println!("{busy_count} busy connections, {requests} requests of 30 events: {resident:.1} MiB resident");
    record.note(&format!("{busy_count} connections"), "resident memory of busy connections", "MiB", [resident]);

    let begun = Instant::now();
    let mut minute = 0;
    while minute < minutes {
        let rate = load(busy_count, 20_000)?;
        if begun.elapsed() >= Duration::from_secs((minute + 1) * 60) {
            minute += 1;
            let resident = server.memory("VmRSS")? as f64 / f64::from(1 << 20);
            println!("after {minute} minutes: {resident:.1} MiB resident, {rate:.0} requests/s");
            record.point(("minutes", minute as f64), "under load", "resident memory", "MiB", [resident]);
        }
    }
    record.save()
}
