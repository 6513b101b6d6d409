//! How long a reply takes at a fixed rate, whatever the replies before it took: `oha` counts from
//! when a request is due, also where no connection is free to send it (no coordinated omission). At
//! 200 requests a second, at half of what the server can take and at nine tenths of it, or at 200 and
//! at `BENCH_RATE`; for `written`, `sync` and `ack=inserted`, and for a bare loop that answers what it
//! reads. Where oha itself is late, it counts from then: so the rate
//! that it really made is shown beside the one that it was asked for.
//!
//! What it can take is found by closed loops on as many connections: one of this process, which
//! costs next to nothing, and one of oha. The lower figure counts, since a rate that the load can't
//! make says nothing about the server; which one it was is said.
//!
//! How long commits take is read from the server's log, which tells of each with `--log-level trace`.
//!
//! The server's process is on one core, oha on another. ClickHouse runs wherever it likes with the time that
//! both leave, as it would not disturb them on a machine of its own. With
//! `ack=inserted` a reply waits for its block, which age seals after a second: so many
//! connections are needed that each of them may wait.
//!
//! `cargo bench --bench latency` (or `make bench-latency`). Environment: `BENCH_SECONDS` (a round of a
//! rate, 10), `BENCH_ROUNDS` (3), `BENCH_CONNECTIONS` (64), `BENCH_RATE` (requests a second), `BENCH_OHA` (the program, `oha`),
//! `BENCH_RECORD` (a folder for the raw figures). `--quick` runs one short round, to see that it runs
//! at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/bare.rs"]
mod bare;
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
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use load::{Connections, Until};
use process::{Child, ClickHouse, free_address, on_core, serve_logging, size};
use record::Record;
use serde_json::Value;

const BODY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/corpus/events-30.ndjson");
const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");

const CLICKHOUSE_NICENESS: u8 = 19;
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Requests a second that any server should take without a queue.
const CALM: f64 = 200.0;
/// What a reply may take beyond what it is held against, ms.
const BEYOND: f64 = 1.0;
/// Connections with `ack=inserted`, where each waits about a second.
const WAITING_CONNECTIONS: usize = 1024;

const LATENCIES: [&str; 4] = ["p50", "p99", "p99.9", "longest"];

/// A server and what its requests ask for.
struct Case {
    name: &'static str,
    path: &'static str,
    address: SocketAddr,
    /// Of the server, with its log; the bare loop has none.
    admin: Option<(SocketAddr, PathBuf)>,
    connections: usize,
    /// Requests a second, and what they are called.
    rates: Vec<(&'static str, f64)>,
    /// For each rate: a row of latencies in ms for each round.
    latencies: Vec<Vec<[f64; 4]>>,
    /// For each rate: the percentiles of the commits in each round, ms; see [`percentiles`].
    commits: Vec<Vec<[f64; 3]>>,
    /// For each rate: the one that oha made in each round.
    made: Vec<Vec<f64>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        return Ok(bare::serve(address.parse()?)?);
    }
    let length = Duration::from_secs(size("BENCH_SECONDS", 10, 2));
    let rounds = size("BENCH_ROUNDS", 3, 1);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;
    let Some(oha) = oha() else {
        println!("The latencies are skipped: there is no oha here (cargo install oha).");
        return Ok(());
    };
    let mut record = Record::begin("latency");
    let clickhouse = ClickHouse::start_as(CLICKHOUSE_NICENESS)?;
    clickhouse.create_null_table()?;
    let log_of = |durability| clickhouse.folder().join(format!("{durability}.log"));
    let start = |durability| {
        let log = File::create(log_of(durability))?;
        serve_logging(&clickhouse, "nothing", durability, &["--workers", "1", "--log-level", "trace"], log.into())
    };
    let written = on_core(SERVER_CORE, || start("written"))??;
    let sync = on_core(SERVER_CORE, || start("sync"))??;
    let bare_address = free_address()?;
    let arguments = ["bare", &bare_address.to_string()];
    let _bare = on_core(SERVER_CORE, || Child::start(std::env::current_exe()?, &arguments, bare_address))??;
    process::pin(LOAD_CORE);
    let mut cases = [
        Case::new("bare loop", "/api/events", bare_address, None, connections),
        Case::new("written", "/api/events", written.1, Some((written.2, log_of("written"))), connections),
        Case::new("sync", "/api/events", sync.1, Some((sync.2, log_of("sync"))), connections),
        Case::new(
            "ack=inserted",
            "/api/events?ack=inserted",
            sync.1,
            Some((sync.2, log_of("sync"))),
            WAITING_CONNECTIONS,
        ),
    ];
    match size("BENCH_RATE", 0, 0) {
        0 => {
            for case in &mut cases {
                case.find_rates(&oha, length, &mut record).map_err(|error| format!("{}: {error}", case.name))?;
            }
        }
        rate => cases.iter_mut().for_each(|case| case.go_at(vec![("calm", CALM), ("fixed", rate as f64)])),
    }
    // With a rate alone it is about the commit.
    let cases = if std::env::var_os("BENCH_RATE").is_some() { &mut cases[..3] } else { &mut cases[..] };
    for _ in 0..rounds {
        for case in cases.iter_mut() {
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
    for case in cases.iter() {
        case.print(&mut record);
    }
    judge(&cases[0], &cases[1], &cases[2], &mut record);
    record.save()
}

/// The program, from the environment, from where `make bench-latency` puts it, or as it is called.
fn oha() -> Option<PathBuf> {
    let named = std::env::var_os("BENCH_OHA").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/oha");
    let known = named.into_iter().chain([built, PathBuf::from("oha")]);
    known.into_iter().find(|program| Command::new(program).arg("--version").output().is_ok())
}

impl Case {
    fn new(
        name: &'static str,
        path: &'static str,
        address: SocketAddr,
        admin: Option<(SocketAddr, PathBuf)>,
        connections: usize,
    ) -> Self {
        let (rates, latencies, commits, made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { name, path, address, admin, connections, rates, latencies, commits, made }
    }

    /// Closed loops, each after a moment to warm up, say what half and nine tenths are.
    fn find_rates(&mut self, oha: &Path, length: Duration, record: &mut Record) -> Result<(), Box<dyn Error>> {
        let address = self.address;
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
        self.go_at(vec![("calm", CALM), ("half", saturation / 2.0), ("nine tenths", saturation * 0.9)]);
        self.until_inserted()
    }

    fn until_inserted(&self) -> Result<(), Box<dyn Error>> {
        self.admin.as_ref().map_or(Ok(()), |(admin, _)| metrics::until_inserted(*admin))
    }

    fn go_at(&mut self, rates: Vec<(&'static str, f64)>) {
        self.rates = rates;
        self.latencies = vec![Vec::new(); self.rates.len()];
        self.commits = vec![Vec::new(); self.rates.len()];
        self.made = vec![Vec::new(); self.rates.len()];
    }

    fn round(&mut self, oha: &Path, length: Duration) -> Result<(), Box<dyn Error>> {
        for index in 0..self.rates.len() {
            let rate = self.rates[index].1;
            let before = self.log_length()?;
            let report = self.oha(oha, Some(rate), (rate * length.as_secs_f64()) as u64)?;
            let commits = self.commits_since(before)?;
            let replies = &report["latencyPercentiles"];
            let seconds = [&replies["p50"], &replies["p99"], &replies["p99.9"], &report["summary"]["slowest"]];
            self.latencies[index].push(seconds.map(|seconds| seconds.as_f64().unwrap_or(f64::NAN) * 1e3));
            self.commits[index].push(percentiles(&commits));
            self.made[index].push(rate_of(&report)?);
            self.until_inserted()?;
        }
        Ok(())
    }

    fn log_length(&self) -> Result<u64, Box<dyn Error>> {
        self.admin.as_ref().map_or(Ok(0), |(_, log)| Ok(log.metadata()?.len()))
    }

    /// How long each commit took that the log tells of behind this place, in ms, the shortest first.
    fn commits_since(&self, start: u64) -> Result<Vec<f64>, Box<dyn Error>> {
        let Some((_, log)) = &self.admin else { return Ok(Vec::new()) };
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(start))?;
        let mut commits = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            // The last one may not be whole yet.
            let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
            if let (Some("committed"), Some(seconds)) = (said["message"].as_str(), said["seconds"].as_f64()) {
                commits.push(seconds * 1e3);
            }
        }
        commits.sort_by(f64::total_cmp);
        Ok(commits)
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
        let output = command.arg(format!("http://{}{}", self.address, self.path)).output()?;
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

    /// The medians of the 99th and 99.9th percentiles of replies, and of the percentiles of commits, at a rate.
    fn medians(&self, rate: usize) -> ([f64; 2], [f64; 3]) {
        let replies =
            [1, 2].map(|part| process::median(self.latencies[rate].iter().map(|round| round[part]).collect()));
        let commits =
            [0, 1, 2].map(|part| process::median(self.commits[rate].iter().map(|round| round[part]).collect()));
        (replies, commits)
    }
}

/// Of commits, the shortest first: the 99th and the 99.9th percentile, and the 99th by their time, which is how long
/// the commit takes that is under way at a moment. A long one meets more requests than a short one.
fn percentiles(commits: &[f64]) -> [f64; 3] {
    let quantile = |part: f64| {
        let place = (commits.len() as f64 * part) as usize;
        commits.get(place.min(commits.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let (whole, mut sum) = (commits.iter().sum::<f64>(), 0.0);
    let by_time = commits.iter().find(|commit| {
        sum += **commit;
        sum >= whole * 0.99
    });
    [quantile(0.99), quantile(0.999), by_time.copied().unwrap_or(0.0)]
}

/// A reply of `sync` should take no longer than the commit that it waits for, one of `written` no longer than one of
/// the bare loop, and a little.
fn judge(bare: &Case, written: &Case, sync: &Case, record: &mut Record) {
    let mut say = |what: String, found: f64, wanted: f64| {
        record.note(&what, "ms", "ms", [found]);
        record.note(&what, "at most", "ms", [wanted]);
        let verdict = if found <= wanted { "MET" } else { "MISSED" };
        println!("{what}: {found:.2} ms, wanted at most {wanted:.2}: {verdict}");
    };
    let rates = if bare.rates.len() == 2 { 0..2 } else { 0..1 };
    for rate in rates {
        let name = sync.rates[rate].0;
        let ((of_bare, _), (of_written, written_commits), (of_sync, sync_commits)) =
            (bare.medians(rate), written.medians(rate), sync.medians(rate));
        say(format!("sync, {name}: p99 beside that of the commits"), of_sync[0], sync_commits[0] + BEYOND);
        say(
            format!("sync, {name}: p99 beside that of the commits by their time"),
            of_sync[0],
            sync_commits[2] + BEYOND,
        );
        say(format!("written, {name}: p99 beside that of the bare loop"), of_written[0], of_bare[0] + BEYOND);
        if rate == 0 {
            for (case, of_case, commits) in [(written, of_written, written_commits), (sync, of_sync, sync_commits)] {
                let what = format!("{}, {name}: p99.9 beside those of the bare loop and the commits", case.name);
                say(what, of_case[1], of_bare[1] + commits[1] + BEYOND);
            }
        }
    }
}

/// Requests a second of a report of oha's.
fn rate_of(report: &Value) -> Result<f64, &'static str> {
    report["summary"]["requestsPerSec"].as_f64().ok_or("oha does not say how many requests a second it made")
}
