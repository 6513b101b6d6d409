//! Curves: what a request, an event and a byte cost with more connections, more events a request and
//! larger events, with one worker and with two; and how much the one committer can take, fed alone.
//!
//! The server's worker k is on core k, the load on the second core, which it shares with the second
//! worker where there are no more. So the CPU time is what to look at; requests a second with two
//! workers say something only on a machine with more cores. The committer is fed from memory, on
//! the file system of the target folder: it on one core, its feeders on another. Where it is busy for
//! less than all of its core, the disk or the feeders set the limit.
//!
//! `cargo bench --bench scale` (or `make bench-scale`). Environment: `BENCH_SECONDS` (a point, 3),
//! `BENCH_ROUNDS` (2: six minutes in all), `BENCH_RECORD` (a folder for the raw figures). `--quick`
//! takes the ends of the curves only, for a moment each, to see that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/feed.rs"]
mod feed;
#[path = "support/load.rs"]
mod load;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/turn.rs"]
mod turn;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use feed::{Fed, Feed};
use load::{Connections, Until};
use process::{Child, ClickHouse, is_quick, serve_with_admin, size};
use record::Record;
use rustix::process::{Resource, getrlimit, setrlimit};
use sluicegate::spool::Durability;
use turn::Turn;

const EVENTS_30: &str = include_str!("corpus/events-30.ndjson");
const ONE_EVENT: &[u8] = include_bytes!("corpus/one.ndjson");

const COMMITTER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

const CONNECTIONS: [usize; 6] = [1, 8, 64, 512, 2_000, 10_000];
const EVENTS_A_REQUEST: [usize; 5] = [1, 10, 100, 1_000, 3_000];
const EVENT_BYTES: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
const ROWS_A_BATCH: [usize; 4] = [1, 30, 300, 1_500];

/// Where the curve runs over something else.
const USUAL_CONNECTIONS: usize = 64;
/// A body of small events holds as many as this takes.
const BODY_BYTES: usize = 64 << 10;
/// Blocks of the default length.
const BATCH_BYTES: u64 = 32 << 20;

const SERVERS: [(&str, &str); 2] = [("1 worker", "1"), ("2 workers", "2")];
const FEEDERS: [(&str, usize); 2] = [("1 worker", 1), ("8 workers", 8)];

/// A place on a curve.
struct Point {
    along: &'static str,
    x: usize,
    /// How many of [`SERVERS`] are measured there.
    servers: usize,
    connections: usize,
    request: Vec<u8>,
    events: usize,
    body_bytes: usize,
    turns: [Vec<Turn>; SERVERS.len()],
}

fn main() -> Result<(), Box<dyn Error>> {
    let length = Duration::from_secs(size("BENCH_SECONDS", 3, 1));
    let rounds = size("BENCH_ROUNDS", 2, 1);
    let mut record = Record::begin("scale");
    allow_files()?;
    curves(&mut record, length, rounds)?;
    ceiling(&mut record, length, rounds)?;
    record.save()
}

/// As many open files as this process may have.
fn allow_files() -> Result<(), Box<dyn Error>> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let most = CONNECTIONS[CONNECTIONS.len() - 1] as u64;
    if limit.maximum.is_some_and(|files| files < most + 100) {
        return Err(format!("{most} connections need as many open files: raise the limit (ulimit -Hn)").into());
    }
    Ok(())
}

fn curves(record: &mut Record, length: Duration, rounds: u64) -> Result<(), Box<dyn Error>> {
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let servers = SERVERS
        .iter()
        .map(|(_, workers)| {
            let table = format!("workers_{workers}");
            clickhouse.query(&format!("CREATE TABLE bench.{table} AS bench.nothing"))?;
            // The last connection of the load before may not be gone yet.
            serve_with_admin(&clickhouse, &table, "sync", &["--workers", workers, "--connections-max", "11000"])
        })
        .collect::<Result<Vec<(Child, SocketAddr, SocketAddr)>, _>>()?;
    process::pin(LOAD_CORE);
    let mut points = points();
    for _ in 0..rounds {
        for point in &mut points {
            for ((server, address, admin), turns) in servers.iter().zip(&mut point.turns).take(point.servers) {
                let turn = Connections::open(*address, point.connections).map_err(Into::into).and_then(|mut open| {
                    let settle = |_| metrics::until_inserted(*admin);
                    Turn::take(server, &mut open, &point.request, Until::Elapsed(length), settle)
                });
                turns.push(turn.map_err(|error| format!("{}: {}: {error}", point.along, point.x))?);
            }
        }
    }
    println!("sync, {rounds} rounds of {} s in turn; median (least–most)", length.as_secs());
    println!(
        "{:<30} {:<10} {:>20} {:>20} {:>22} {:>22} {:>20} {:>18}",
        "", "", "µs CPU a request", "µs CPU an event", "requests/s", "events/s", "MB/s", "p99 ms"
    );
    for point in &points {
        for ((name, _), turns) in SERVERS.iter().zip(&point.turns).take(point.servers) {
            let columns = point.note(record, name, turns);
            let [request, event, requests, events, bytes, p99] = columns;
            println!(
                "{:<30} {name:<10} {request:>20} {event:>20} {requests:>22} {events:>22} {bytes:>20} {p99:>18}",
                format!("{}: {}", point.along, point.x)
            );
        }
    }
    Ok(())
}

/// Those of a curve, or only its ends.
fn places(curve: &[usize]) -> Vec<usize> {
    match curve {
        [first, .., last] if is_quick() => vec![*first, *last],
        curve => curve.to_vec(),
    }
}

fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for x in places(&CONNECTIONS) {
        points.push(Point::new("connections", x, SERVERS.len(), x, EVENTS_30.to_owned()));
    }
    for x in places(&EVENTS_A_REQUEST) {
        let body: Vec<&str> = EVENTS_30.lines().cycle().take(x).collect();
        points.push(Point::new("events a request", x, SERVERS.len(), USUAL_CONNECTIONS, body.join("\n")));
    }
    for x in places(&EVENT_BYTES) {
        let body = event_of(x).repeat((BODY_BYTES / x).max(1));
        points.push(Point::new("bytes an event", x, 1, USUAL_CONNECTIONS, body));
    }
    points
}

/// A line of so many bytes, its end included.
fn event_of(len: usize) -> String {
    let (start, end) = ("{\"event\":\"app_start\",\"sequence\":1,\"param_str\":\"", "\"}\n");
    let text: String = "all work, no play ".chars().cycle().take(len.saturating_sub(start.len() + end.len())).collect();
    format!("{start}{text}{end}")
}

impl Point {
    fn new(along: &'static str, x: usize, servers: usize, connections: usize, body: String) -> Self {
        let (events, body_bytes) = (body.lines().count(), body.len());
        let request = load::request("/api/events", body.as_bytes());
        Self { along, x, servers, connections, request, events, body_bytes, turns: [Vec::new(), Vec::new()] }
    }

    /// Takes down the rounds of a server here, and returns them as text.
    fn note(&self, record: &mut Record, series: &str, turns: &[Turn]) -> [String; 6] {
        let at = (self.along, self.x as f64);
        let (events, megabytes) = (self.events as f64, self.body_bytes as f64 / 1e6);
        let mut note = |figure: &str, unit: &str, value: &dyn Fn(&Turn) -> f64| {
            record.point(at, series, figure, unit, turns.iter().map(value)).summary()
        };
        [
            note("CPU time a request", "µs", &|turn| turn.cost),
            note("CPU time an event", "µs", &|turn| turn.cost / events),
            note("requests a second", "1/s", &|turn| turn.rate),
            note("events a second", "1/s", &|turn| turn.rate * events),
            note("bytes a second", "MB/s", &|turn| turn.rate * megabytes),
            note("latency p99", "ms", &|turn| turn.latencies[1]),
        ]
    }
}

/// The committer alone.
fn ceiling(record: &mut Record, length: Duration, rounds: u64) -> Result<(), Box<dyn Error>> {
    println!("\nthe committer alone, {rounds} rounds of {} s in turn; median (least–most)", length.as_secs());
    println!("{:<22} {:<20} {:>20} {:>20} {:>24} {:>22}", "", "", "µs CPU a batch", "batches/s", "events/s", "MB/s");
    let mut cases = Vec::new();
    for (durability, durability_name) in [(Durability::Written, "written"), (Durability::Sync, "sync")] {
        for (feeders_name, feeders) in FEEDERS {
            for rows in places(&ROWS_A_BATCH) {
                cases.push((durability, feeders, format!("{durability_name}, {feeders_name}"), rows, Vec::new()));
            }
        }
    }
    for _ in 0..rounds {
        for (durability, feeders, _, rows, fed) in &mut cases {
            fed.push(feed(*durability, *feeders, *rows, length)?);
        }
    }
    for (_, _, series, rows, fed) in &cases {
        let batch_bytes = rows::batch(ONE_EVENT, *rows)?.frame_payload() as f64;
        let (rows, at) = (*rows as f64, ("rows a batch", *rows as f64));
        let rate = |fed: &Fed| fed.batches as f64 / fed.elapsed.as_secs_f64();
        let mut note = |figure: &str, unit: &str, value: &dyn Fn(&Fed) -> f64| {
            record.point(at, series, figure, unit, fed.iter().map(value)).summary()
        };
        let cost = note("committer's CPU time a batch", "µs", &|fed| fed.cpu.as_secs_f64() * 1e6 / fed.batches as f64);
        let busy =
            note("committer's part of its core", "%", &|fed| 100.0 * fed.cpu.as_secs_f64() / fed.elapsed.as_secs_f64());
        let batches = note("committed batches a second", "1/s", &rate);
        let events = note("committed events a second", "1/s", &|fed| rate(fed) * rows);
        let bytes = note("committed bytes a second", "MB/s", &|fed| rate(fed) * batch_bytes / 1e6);
        println!(
            "{:<22} {series:<20} {cost:>20} {busy:>18} {batches:>20} {events:>24} {bytes:>22}",
            format!("rows a batch: {rows}")
        );
    }
    Ok(())
}

fn feed(durability: Durability, workers: usize, rows: usize, length: Duration) -> Result<Fed, Box<dyn Error>> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let cores = Some((COMMITTER_CORE, LOAD_CORE));
    let feed = Feed { folder: folder.path(), durability, batch_bytes: BATCH_BYTES, workers, cores };
    feed.run(
        || rows::batch(ONE_EVENT, rows),
        |_, elapsed| elapsed < length,
        // As if it were inserted: its file is overwritten.
        |block, pool| pool.retire(&block),
    )
}
