//! How long a reply takes at a fixed rate, whatever the replies before it took: `oha` counts from
//! when a request is due, also where no connection is free to send it (no coordinated omission). At
//! 200 requests a second, at half of what the server can take and at nine tenths of it; for
//! `written`, `sync` and `ack=inserted`. Where oha itself is late, it counts from then: so the rate
//! that it really made is shown beside the one that it was asked for.
//!
//! What it can take is found by closed loops on as many connections: one of this process, which
//! costs next to nothing, and one of oha. The lower figure counts, since a rate that the load can't
//! make says nothing about the server; which one it was is said.
//!
//! The server's process is on one core, oha on another, ClickHouse wherever it likes. With
//! `ack=inserted` a reply waits for its block, which age seals after a second: so many
//! connections are needed that each of them may wait.
//!
//! `cargo bench --bench latency` (or `make bench-latency`). Environment: `BENCH_SECONDS` (a round of a
//! rate, 10), `BENCH_ROUNDS` (3), `BENCH_CONNECTIONS` (64), `BENCH_OHA` (the program, `oha`),
//! `BENCH_RECORD` (a folder for the raw figures). `--quick` runs one short round, to see that it runs
//! at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/load.rs"]
mod load;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use load::{Connections, Until};
use metrics::Metrics;
use process::{Child, ClickHouse, on_core, serve_with_admin, size};
use record::{Figure, Record};
use serde_json::Value;

const BODY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/corpus/events-30.ndjson");
const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Requests a second that any server should take without a queue.
const CALM: f64 = 200.0;
/// What a reply of `sync` may take beyond the commit, ms.
const BEYOND_COMMIT: f64 = 1.0;
/// Connections with `ack=inserted`, where each waits about a second.
const WAITING_CONNECTIONS: usize = 1024;

const LATENCIES: [&str; 4] = ["p50", "p99", "p99.9", "longest"];

/// A server and what its requests ask for.
struct Case<'a> {
    name: &'static str,
    path: &'static str,
    server: &'a (Child, SocketAddr, SocketAddr),
    connections: usize,
    /// Requests a second, and what they are called.
    rates: Vec<(&'static str, f64)>,
    /// For each rate: a row of latencies in ms for each round.
    latencies: Vec<Vec<[f64; 4]>>,
    /// For each rate: the 99th percentile of the commits in each round, ms.
    commits: Vec<Vec<f64>>,
    /// For each rate: the one that oha made in each round.
    made: Vec<Vec<f64>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let length = Duration::from_secs(size("BENCH_SECONDS", 10, 2));
    let rounds = size("BENCH_ROUNDS", 3, 1);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;
    let Some(oha) = oha() else {
        println!("The latencies are skipped: there is no oha here (cargo install oha).");
        return Ok(());
    };
    let mut record = Record::begin("latency");
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let start = |durability| serve_with_admin(&clickhouse, "nothing", durability, &["--workers", "1"]);
    let written = on_core(SERVER_CORE, || start("written"))??;
    let sync = on_core(SERVER_CORE, || start("sync"))??;
    process::pin(LOAD_CORE);
    let mut cases = [
        Case::new("written", "/api/events", &written, connections),
        Case::new("sync", "/api/events", &sync, connections),
        Case::new("ack=inserted", "/api/events?ack=inserted", &sync, WAITING_CONNECTIONS),
    ];
    for case in &mut cases {
        case.find_rates(&oha, length, &mut record).map_err(|error| format!("{}: {error}", case.name))?;
    }
    for _ in 0..rounds {
        for case in &mut cases {
            case.round(&oha, length).map_err(|error| format!("{}: {error}", case.name))?;
        }
    }

    println!(
        "{rounds} rounds of {} s, 30 events a request, one worker; ms, median (least–most) of the rounds",
        length.as_secs()
    );
    println!(
        "{:<14} {:<16} {:>10} {:>22} {:>22} {:>22} {:>22}",
        "", "", "requests/s", "p50", "p99", "p99.9", "longest"
    );
    for case in &cases {
        case.print(&mut record);
    }
    cases[1].judge(&mut record);
    record.save()
}

/// The program, from the environment, from where `make bench-latency` puts it, or as it is called.
fn oha() -> Option<PathBuf> {
    let named = std::env::var_os("BENCH_OHA").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/oha");
    let known = named.into_iter().chain([built, PathBuf::from("oha")]);
    known.into_iter().find(|program| Command::new(program).arg("--version").output().is_ok())
}

impl<'a> Case<'a> {
    fn new(
        name: &'static str,
        path: &'static str,
        server: &'a (Child, SocketAddr, SocketAddr),
        connections: usize,
    ) -> Self {
        let (rates, latencies, commits, made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { name, path, server, connections, rates, latencies, commits, made }
    }

    /// Closed loops, each after a moment to warm up, say what half and nine tenths are.
    fn find_rates(&mut self, oha: &Path, length: Duration, record: &mut Record) -> Result<(), Box<dyn Error>> {
        let address = self.server.1;
        let request = load::request(self.path, EVENTS);
        let mut open = Connections::open(address, self.connections)?;
        open.run(&request, Until::Elapsed(length / 2))?;
        let outcome = open.run(&request, Until::Elapsed(length))?;
        if outcome.failed > 0 {
            return Err(format!("{} requests failed", outcome.failed).into());
        }
        let own = outcome.latencies.len() as f64 / outcome.elapsed.as_secs_f64();
        drop(open);
        let of_oha = self.oha(oha, None, outcome.latencies.len() as u64 / 2)?;
        let of_oha = rate_of(&of_oha)?;
        record.note(self.name, "requests a second, closed loop", "1/s", [own]);
        record.note(self.name, "requests a second, closed loop of oha", "1/s", [of_oha]);
        let bound = if own < of_oha { "the server" } else { "oha" };
        println!(
            "{}: {} connections in a closed loop, {own:.0} requests/s, with oha {of_oha:.0}; {bound} sets the limit",
            self.name, self.connections
        );
        let saturation = own.min(of_oha);
        self.rates = vec![("calm", CALM), ("half", saturation / 2.0), ("nine tenths", saturation * 0.9)];
        self.latencies = vec![Vec::new(); self.rates.len()];
        self.commits = vec![Vec::new(); self.rates.len()];
        self.made = vec![Vec::new(); self.rates.len()];
        metrics::until_inserted(self.server.2)
    }

    fn round(&mut self, oha: &Path, length: Duration) -> Result<(), Box<dyn Error>> {
        for index in 0..self.rates.len() {
            let rate = self.rates[index].1;
            let before = Metrics::of(self.server.2)?;
            let report = self.oha(oha, Some(rate), (rate * length.as_secs_f64()) as u64)?;
            let commit = Metrics::of(self.server.2)?.quantile(&before, "sluicegate_commit_seconds", 0.99) * 1e3;
            let percentiles = &report["latencyPercentiles"];
            let seconds =
                [&percentiles["p50"], &percentiles["p99"], &percentiles["p99.9"], &report["summary"]["slowest"]];
            self.latencies[index].push(seconds.map(|seconds| seconds.as_f64().unwrap_or(f64::NAN) * 1e3));
            self.commits[index].push(commit);
            self.made[index].push(rate_of(&report)?);
            metrics::until_inserted(self.server.2)?;
        }
        Ok(())
    }

    /// Runs oha, and returns its report; every reply was a 200.
    fn oha(&self, oha: &Path, rate: Option<f64>, requests: u64) -> Result<Value, Box<dyn Error>> {
        let mut command = Command::new(oha);
        command.args(["--no-tui", "--output-format", "json", "--worker-threads", "1", "-m", "POST"]);
        command.args(["-T", "application/x-ndjson", "-D", BODY]);
        command.args(["-c", &self.connections.to_string(), "-n", &requests.max(1).to_string()]);
        if let Some(rate) = rate {
            command.args(["-q", &format!("{rate:.0}"), "--latency-correction"]);
        }
        // It inherits the core of this process.
        let output = command.arg(format!("http://{}{}", self.server.1, self.path)).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let (statuses, errors) = (&report["statusCodeDistribution"], &report["errorDistribution"]);
        if statuses["200"].as_u64() != Some(requests.max(1)) {
            return Err(format!("of {requests} requests: {statuses} {errors}").into());
        }
        Ok(report)
    }

    fn print(&self, record: &mut Record) {
        for (at, ((name, rate), rounds)) in self.rates.iter().zip(&self.latencies).enumerate() {
            let series = format!("{}, {name}", self.name);
            record.note(&series, "requests a second, asked for", "1/s", [*rate]);
            let made = self.made[at].iter().copied();
            let made = record.note(&series, "requests a second, made", "1/s", made).median();
            let mut columns = Vec::new();
            for (index, latency) in LATENCIES.iter().enumerate() {
                let rounds = rounds.iter().map(|round| round[index]);
                columns.push(record.note(&series, &format!("latency {latency}"), "ms", rounds).summary());
            }
            let [p50, p99, p999, longest] = columns.as_slice() else { continue };
            println!(
                "{:<14} {name:<16} {rate:>10.0} {made:>10.0} {p50:>22} {p99:>22} {p999:>22} {longest:>22}",
                self.name
            );
        }
    }

    /// A reply should take no longer than the commit that it waits for, and a little.
    fn judge(&self, record: &mut Record) {
        let series = format!("{}, {}", self.name, self.rates[0].0);
        let commit = record.note(&series, "commit p99", "ms", self.commits[0].iter().copied());
        let (commit_text, commit) = (commit.summary(), Figure::median(commit));
        let beyond: Vec<f64> =
            self.latencies[0].iter().zip(&self.commits[0]).map(|(latency, commit)| latency[1] - commit).collect();
        let beyond = record.note(&series, "latency p99 beyond commit p99", "ms", beyond);
        let verdict = if beyond.median() <= BEYOND_COMMIT { "MET" } else { "MISSED" };
        println!(
            "{} at {CALM} requests/s: p99 of the commits {commit_text} ms, so at most {:.2} for a reply; \
             beyond the commits {} ms: {verdict}",
            self.name,
            commit + BEYOND_COMMIT,
            beyond.summary()
        );
    }
}

/// Requests a second of a report of oha's.
fn rate_of(report: &Value) -> Result<f64, &'static str> {
    report["summary"]["requestsPerSec"].as_f64().ok_or("oha does not say how many requests a second it made")
}
