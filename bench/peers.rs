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
//! one that keeps its rows), `BENCH_RECORD` (a folder for the raw figures). `--quick` runs two short
//! rounds, to see that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/build.rs"]
mod build;
#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;
#[path = "support/stored.rs"]
mod stored;
#[path = "support/turn.rs"]
mod turn;

use std::error::Error;
use std::net::SocketAddr;

use build::Peer;
use load::{Connections, Until};
use process::{Child, ClickHouse, free_address, on_core, serve_into, size};
use record::Record;
use stored::{Engine, Stored, Table};
use turn::Turn;

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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        return Ok(bare::serve(address.parse()?)?);
    }
    let requests = size("BENCH_REQUESTS", 20_000, 2_000);
    let rounds = size("BENCH_ROUNDS", 5, 2);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;
    let engine = match std::env::var("BENCH_TABLE").as_deref() {
        Err(_) | Ok("null") => Engine::Null,
        Ok("mergetree") => Engine::MergeTree,
        Ok(other) => return Err(format!("BENCH_TABLE is null or mergetree, not {other}").into()),
    };

    let peers = build::peers()?;
    let name = if engine == Engine::Null { "peers" } else { "peers-mergetree" };
    let mut record = Record::begin_as(name, "peers");
    let clickhouse = ClickHouse::start()?;
    let tables = tables(&clickhouse, &peers, engine)?;
    let servers = on_core(SERVER_CORE, || start(&clickhouse, &peers, &tables))??;
    // The one that is itself under test is a server like the others; its own table says the time.
    let pinned = on_core(SERVER_CORE, ClickHouse::start)??;
    let columns = format!("{} DEFAULT now()", columns::definitions());
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
        "{:<24} {:>24} {:>18} {:>22} {:>20} {:>20} {:>20} {:>14}  rows",
        "", "µs CPU a request", "× bare loop", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "events/core-s"
    );
    let baseline: Vec<f64> = contenders[0].turns.iter().map(|turn| turn.cost).collect();
    for contender in &contenders {
        contender.print(&baseline, &mut record);
    }
    record.save()
}

/// A table for each server that inserts, in their order.
fn tables<'a>(clickhouse: &'a ClickHouse, peers: &[Peer], engine: Engine) -> Result<Vec<Table<'a>>, Box<dyn Error>> {
    let peers = peers.iter().map(|peer| (peer.name, NO_WINDOW));
    let names = [("written", WINDOW), ("sync", WINDOW)].into_iter().chain(peers);
    names.map(|(name, window)| Table::create(clickhouse, name, &columns::definitions(), engine, window)).collect()
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
        let mut connections = Connections::open(self.address, connections)?;
        let Self { server, request, requests, table, expected, stored, .. } = self;
        Turn::take(server, &mut connections, request, Until::Requests(*requests), |answered| {
            if let Some(table) = table {
                let of_this_turn = body.times(answered);
                *stored = stored.plus(table.take(of_this_turn.rows)?);
                *expected = expected.plus(of_this_turn);
            }
            Ok(())
        })
    }

    fn print(&self, baseline: &[f64], record: &mut Record) {
        let ([cost, rate], [p50, p99, p999, _]) = turn::note(record, self.name, &self.turns);
        let ratios = self.turns.iter().zip(baseline).map(|(turn, bare)| turn.cost / bare);
        let ratio = record.note(self.name, "CPU time a request, bare loop = 1", "×", ratios).summary();
        let per_core = self.turns.iter().map(|turn| EVENTS_A_REQUEST as f64 * 1e6 / turn.cost);
        let per_core = record.note(self.name, "events a core-second", "1/s", per_core).median();
        let rows =
            if self.table.is_some() { self.stored.against(self.expected) } else { "none, on purpose".to_owned() };
        println!(
            "{:<24} {cost:>24} {ratio:>18} {rate:>22} {p50:>20} {p99:>20} {p999:>20} {per_core:>14.0}  {rows}",
            self.name
        );
    }
}
