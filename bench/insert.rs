//! What an INSERT costs by format, compression and size: CPU time of ClickHouse and of the inserters
//! for a million events that go into a MergeTree, and the bytes that go over the wire.
//!
//! `cargo bench --bench insert` (or `make bench-insert`). Environment: `BENCH_EVENTS` (a run, 300000),
//! `BENCH_ROUNDS` (3). Merges are stopped: they cost the same whatever the rows came as.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/counting.rs"]
mod counting;
#[path = "support/process.rs"]
mod process;
#[path = "../tests/support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/record.rs"]
mod record;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use counting::Counting;
use process::{ClickHouse, serve_into, size};
use random::Random;
use record::Record;

const EVENTS_A_REQUEST: u64 = 30;

const COMBINATIONS: [(&str, &str); 6] = [
    ("rowbinary", "none"),
    ("rowbinary", "lz4"),
    ("rowbinary", "zstd"),
    ("native", "none"),
    ("native", "lz4"),
    ("native", "zstd"),
];

/// Rows of an INSERT.
const SIZES: [u64; 3] = [3_000, 30_000, 300_000];

/// Of a million events.
struct Cost {
    clickhouse_seconds: f64,
    inserters_seconds: f64,
    wire_megabytes: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let events = size("BENCH_EVENTS", 300_000, 3_000);
    let rounds = size("BENCH_ROUNDS", 3, 1);
    let mut record = Record::begin("insert");

    let clickhouse = ClickHouse::start()?;
    clickhouse.query("CREATE DATABASE bench")?;
    println!("{events} events a run, {rounds} rounds in turn; of a million events, median (least–most):");
    println!(
        "{:>9} {:<10} {:<6} {:>22} {:>22} {:>20}",
        "rows", "format", "coding", "ClickHouse, s of CPU", "inserters, s of CPU", "MB sent"
    );
    for size in SIZES.into_iter().filter(|size| *size <= events) {
        let mut costs = [const { Vec::new() }; COMBINATIONS.len()];
        for _ in 0..rounds {
            for ((format, coding), costs) in COMBINATIONS.iter().zip(&mut costs) {
                costs.push(run(&clickhouse, format, coding, size, events / size * size)?);
            }
        }
        for ((format, coding), costs) in COMBINATIONS.iter().zip(&costs) {
            let mut of = |figure: &str, unit: &str, value: fn(&Cost) -> f64| {
                let at = ("rows an INSERT", size as f64);
                record.point(at, &format!("{format}, {coding}"), figure, unit, costs.iter().map(value)).summary()
            };
            println!(
                "{size:>9} {format:<10} {coding:<6} {:>22} {:>22} {:>20}",
                of("ClickHouse's CPU time, a million events", "s", |cost| cost.clickhouse_seconds),
                of("the inserters' CPU time, a million events", "s", |cost| cost.inserters_seconds),
                of("sent, a million events", "MB", |cost| cost.wire_megabytes)
            );
        }
    }
    record.save()
}

/// One server with an empty table, until all of its events are stored.
fn run(clickhouse: &ClickHouse, format: &str, coding: &str, size: u64, events: u64) -> Result<Cost, Box<dyn Error>> {
    clickhouse.query(&format!(
        "CREATE OR REPLACE TABLE bench.inserted ({}) ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) \
         ORDER BY (event, server_time, device_id) \
         SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1",
        columns::definitions()
    ))?;
    clickhouse.query("SYSTEM STOP MERGES bench.inserted")?;
    let counting = Counting::start(clickhouse.address())?;
    let (url, rows) = (counting.url(), size.to_string());
    let flags = ["--workers", "1", "--batch-age", "1h", "--batch-rows", &rows, "--batch-bytes", "64MiB"];
    let more = ["--clickhouse-url", &url, "--insert-format", format, "--insert-compression", coding];
    let flags = [&flags[..], &more].concat();
    let (server, address) = serve_into(clickhouse, "inserted", "written", &flags)?;
    let (sent, clickhouse_before) = (counting.bytes(), clickhouse.child().cpu_time()?);
    let inserters_before = server.cpu_time_of("inserter")?;

    send(address, events / EVENTS_A_REQUEST)?;
    let begun = Instant::now();
    while clickhouse.query("SELECT count() FROM bench.inserted")?.trim() != events.to_string() {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("{format}, {coding}: not every event was stored").into());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let millions = events as f64 / 1e6;
    Ok(Cost {
        clickhouse_seconds: (clickhouse.child().cpu_time()? - clickhouse_before).as_secs_f64() / millions,
        inserters_seconds: (server.cpu_time_of("inserter")? - inserters_before).as_secs_f64() / millions,
        wire_megabytes: (counting.bytes() - sent) as f64 / 1e6 / millions,
    })
}

/// One request after the other, so that each block is sealed at exactly its size.
fn send(address: SocketAddr, requests: u64) -> Result<(), Box<dyn Error>> {
    let mut random = Random::new(0, 0);
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut space = [0; 4096];
    for _ in 0..requests {
        let body: String = (0..EVENTS_A_REQUEST).map(|_| event(&mut random)).collect();
        let head = format!("POST /api/inserted HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes())?;
        let len = stream.read(&mut space)?;
        let reply = String::from_utf8_lossy(&space[..len]);
        if !reply.starts_with("HTTP/1.1 200") {
            return Err(reply.into());
        }
    }
    Ok(())
}

/// One of some ten thousand devices, in one of its sessions.
fn event(random: &mut Random) -> String {
    let device = random.below(10_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let session = device ^ random.below(8);
    let name = ["app_start", "app_stop", "level_start", "level_end", "onCreate", "onRotate"][random.below(6) as usize];
    let system = ["iOS 13.5.1", "iOS 14.2", "Android 10", "Android 11"][(device % 4) as usize];
    let text = ["", "some text", "lorem ipsum dolor", "a_value_of_middling_length"][random.below(4) as usize];
    format!(
        "{{\"client_time\":\"2020-12-01 {:02}:{:02}:{:02}\",\"device_id\":\"{:08X}-4ADF-4B37-A60F-{:012X}\",\
         \"device_os\":\"{system}\",\"session\":\"{session:016x}\",\"sequence\":{},\"event\":\"{name}\",\
         \"param_int\":{},\"param_str\":\"{text}\"}}\n",
        random.below(24),
        random.below(60),
        random.below(60),
        device >> 32,
        device & 0xffff_ffff_ffff,
        random.below(1000),
        random.below(1_000_000),
    )
}
