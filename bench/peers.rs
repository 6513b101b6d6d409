//! Sluicegate beside servers that do the same job, in one run, in turn: each with all its threads
//! on one core, the load on another, ClickHouse wherever it likes. Each takes the same requests of 30 events and inserts
//! them, with address and time, into a table of its own in the same ClickHouse; afterwards the
//! rows are counted and held against what was sent. What a server costs is the CPU time of its
//! whole process, until the rows are in the table.
//!
//! Only sluicegate has a disk. The bare loop reads and answers, and inserts nothing. ClickHouse's
//! own CPU time counts only where it is the server itself. Latencies are those of a closed loop:
//! how long a reply takes while all connections are busy.
//!
//! `cargo bench --bench peers` (or `make bench-peers`). Environment: `BENCH_REQUESTS` (a round,
//! 20000), `BENCH_ROUNDS` (5), `BENCH_CONNECTIONS` (64), `BENCH_TABLE` (`null`, or `mergetree` for
//! one that keeps its rows).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/build.rs"]
mod build;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/stored.rs"]
mod stored;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use build::Peer;
use process::{COLUMNS, Child, ClickHouse, free_address, median, on_core, serve_into, setting};
use stored::{Engine, Stored, Table};

const EVENTS: &str = include_str!("corpus/events-30.ndjson");
const EVENTS_A_REQUEST: u64 = 30;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// ClickHouse takes single requests so slowly that it gets this many times fewer of them.
const CLICKHOUSE_SHARE: u64 = 20;
/// Into its own buffer: the reply comes, as the other peers' does, before the rows are in the table.
const CLICKHOUSE_PATH: &str = "/?async_insert=1&wait_for_async_insert=0&input_format_skip_unknown_fields=1\
                               &query=INSERT%20INTO%20bench.clickhouse%20FORMAT%20JSONEachRow";

/// The deduplication window of sluicegate's own default table.
const WINDOW: u32 = 10_000;
/// The same events in the same second are no repeat: where nobody sends tokens, ClickHouse would
/// drop such rows as one.
const NO_WINDOW: u32 = 0;

/// A server under test.
struct Contender<'a> {
    name: &'static str,
    server: &'a Child,
    address: SocketAddr,
    request: Vec<u8>,
    requests: u64,
    /// None for the bare loop.
    table: Option<&'a Table<'a>>,
    turns: Vec<Turn>,
    expected: Stored,
    stored: Stored,
}

/// One contender's part of a round.
struct Turn {
    /// CPU time of its process, µs a request.
    cost: f64,
    /// Requests a second.
    rate: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        return Ok(bare::serve(address.parse()?)?);
    }
    let requests = setting("BENCH_REQUESTS", 20_000);
    let rounds = setting("BENCH_ROUNDS", 5);
    let connections = usize::try_from(setting("BENCH_CONNECTIONS", 64))?;
    let engine = match std::env::var("BENCH_TABLE").as_deref() {
        Err(_) | Ok("null") => Engine::Null,
        Ok("mergetree") => Engine::MergeTree,
        Ok(other) => return Err(format!("BENCH_TABLE is null or mergetree, not {other}").into()),
    };

    let peers = build::peers()?;
    let clickhouse = ClickHouse::start()?;
    let tables = tables(&clickhouse, &peers, engine)?;
    let servers = on_core(SERVER_CORE, || start(&clickhouse, &peers, &tables))??;
    // The one that is itself under test is a server like the others; its own table says the time.
    let pinned = on_core(SERVER_CORE, ClickHouse::start)??;
    let columns = format!("{COLUMNS} DEFAULT now()");
    let pinned_table = Table::create(&pinned, "clickhouse", &columns, engine, NO_WINDOW)?;
    process::pin(LOAD_CORE);

    let body = Stored::of_body(&clickhouse, EVENTS)?;
    let with_table = std::iter::once(None).chain(tables.iter().map(Some));
    let mut contenders: Vec<Contender> = with_table
        .zip(&servers)
        .map(|(table, (name, server, address))| {
            let request = load::request("/api/events", EVENTS.as_bytes());
            Contender::new(name, server, *address, request, requests, table)
        })
        .collect();
    contenders.push(Contender::new(
        "clickhouse async_insert",
        pinned.child(),
        pinned.address(),
        load::request(CLICKHOUSE_PATH, EVENTS.as_bytes()),
        (requests / CLICKHOUSE_SHARE).max(connections as u64),
        Some(&pinned_table),
    ));
    for round in 0..=rounds {
        for contender in &mut contenders {
            let turn = contender.turn(connections, body).map_err(|error| format!("{}: {error}", contender.name))?;
            // The first round warms up.
            if round > 0 {
                contender.turns.push(turn);
            }
        }
    }

    println!(
        "{requests} requests of {EVENTS_A_REQUEST} events a round (clickhouse: a {CLICKHOUSE_SHARE}th), {rounds} rounds \
         in turn, {connections} connections, each server on one core, rows into {engine:?} tables; median (least–most)"
    );
    println!(
        "{:<24} {:>26} {:>11} {:>24} {:>9} {:>9} {:>14}  rows",
        "", "µs CPU a request", "× bare loop", "requests/s", "p50 ms", "p99 ms", "events/core-s"
    );
    let baseline = contenders[0].median_of(|turn| turn.cost);
    for contender in &contenders {
        contender.print(baseline);
    }
    Ok(())
}

/// A table for each server that inserts, in their order.
fn tables<'a>(clickhouse: &'a ClickHouse, peers: &[Peer], engine: Engine) -> Result<Vec<Table<'a>>, Box<dyn Error>> {
    let peers = peers.iter().map(|peer| (peer.name, NO_WINDOW));
    let names = [("written", WINDOW), ("sync", WINDOW)].into_iter().chain(peers);
    names.map(|(name, window)| Table::create(clickhouse, name, COLUMNS, engine, window)).collect()
}

type Started = Vec<(&'static str, Child, SocketAddr)>;

/// The bare loop, and the servers in the order of their tables.
fn start(clickhouse: &ClickHouse, peers: &[Peer], tables: &[Table]) -> Result<Started, Box<dyn Error>> {
    let address = free_address()?;
    let bare = Child::start(std::env::current_exe()?, &["bare", &address.to_string()], address)?;
    let mut servers = vec![("bare loop", bare, address)];
    for (name, durability) in [("sluicegate written", "written"), ("sluicegate sync", "sync")] {
        let (server, address) = serve_into(clickhouse, durability, durability, &["--workers", "1"])?;
        servers.push((name, server, address));
    }
    for (peer, table) in peers.iter().zip(&tables[2..]) {
        let address = free_address()?;
        let arguments = [&address.to_string(), clickhouse.url(), &table.full_name()];
        servers.push((peer.name, Child::start(&peer.program, &arguments, address)?, address));
    }
    Ok(servers)
}

impl<'a> Contender<'a> {
    fn new(
        name: &'static str,
        server: &'a Child,
        address: SocketAddr,
        request: Vec<u8>,
        requests: u64,
        table: Option<&'a Table<'a>>,
    ) -> Self {
        let (expected, stored) = (Stored::default(), Stored::default());
        Self { name, server, address, request, requests, table, turns: Vec::new(), expected, stored }
    }

    /// Sends a round's requests and waits until their rows are stored; `body` is what one of them holds.
    fn turn(&mut self, connections: usize, body: Stored) -> Result<Turn, Box<dyn Error>> {
        let before = self.server.cpu_time()?;
        let outcome = load::run(self.address, &self.request, connections, self.requests)?;
        if outcome.failed > 0 {
            return Err(format!("{} of {} requests failed", outcome.failed, self.requests).into());
        }
        if let Some(table) = self.table {
            let expected = body.times(self.requests);
            self.stored = self.stored.plus(table.take(expected.rows)?);
            self.expected = self.expected.plus(expected);
        }
        // What is done after the last row belongs to the round too.
        std::thread::sleep(Duration::from_millis(300));
        let requests = self.requests as f64;
        let cost = (self.server.cpu_time()? - before).as_secs_f64() * 1e6 / requests;
        let mut latencies = outcome.latencies;
        latencies.sort_unstable();
        let percentile = |part: usize| latencies[(latencies.len() - 1) * part / 100].as_secs_f64() * 1e3;
        Ok(Turn { cost, rate: requests / outcome.elapsed.as_secs_f64(), p50: percentile(50), p99: percentile(99) })
    }

    fn median_of(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(figure).collect())
    }

    fn spread(&self, decimals: usize, figure: impl Fn(&Turn) -> f64) -> String {
        let figures = || self.turns.iter().map(&figure);
        let (least, most) = (figures().fold(f64::INFINITY, f64::min), figures().fold(0.0, f64::max));
        format!("{:.decimals$} ({least:.decimals$}–{most:.decimals$})", self.median_of(&figure))
    }

    fn print(&self, baseline: f64) {
        let cost = self.median_of(|turn| turn.cost);
        println!(
            "{:<24} {:>26} {:>11.2} {:>24} {:>9.2} {:>9.2} {:>14.0}  {}",
            self.name,
            self.spread(2, |turn| turn.cost),
            cost / baseline,
            self.spread(0, |turn| turn.rate),
            self.median_of(|turn| turn.p50),
            self.median_of(|turn| turn.p99),
            EVENTS_A_REQUEST as f64 * 1e6 / cost,
            if self.table.is_some() { self.stored.against(self.expected) } else { "none, on purpose".to_owned() },
        );
    }
}
