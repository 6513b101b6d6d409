//! Where the server's CPU time for a request of 30 events goes, stage by stage, beside a bare loop
//! that only reads and answers: shares of `perf`'s samples, times the CPU time of the whole process.
//!
//! `cargo bench --bench stages` (or `make bench-stages`), as a user who may run `perf record`.
//! Environment: `BENCH_REQUESTS` (100000), `BENCH_CONNECTIONS` (64), `BENCH_SLUICEGATE` (a program to
//! measure in place of the one that is built), `BENCH_RECORD` (a folder for the raw figures).

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

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use process::{Child, ClickHouse, free_address, serve, size};
use record::Record;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Samples a second: far from any period of the server's.
const FREQUENCY: &str = "3989";

/// Stages in the order of an event's way; the last is for what fits nowhere.
const STAGES: [&str; 14] = [
    "worker: wait for events (epoll)",
    "worker: accept and close",
    "worker: receive, in the kernel",
    "worker: head, body and reply",
    "worker: lines to rows",
    "worker: copies",
    "worker: checksum",
    "worker: hand-over",
    "worker: send, in the kernel",
    "committer: write",
    "committer: sync",
    "committer: wait, wake and account",
    "inserter: read, check and send",
    "other threads and interrupts",
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, address] = arguments.as_slice()
        && command == "bare"
    {
        process::pin(SERVER_CORE);
        return Ok(bare::serve(address.parse()?)?);
    }
    if Command::new("perf").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("There is no perf here (Debian's package is linux-perf), so no stages are shown.");
        return Ok(());
    }
    let requests = size("BENCH_REQUESTS", 100_000, 3_000);
    let connections = usize::try_from(size("BENCH_CONNECTIONS", 64, 64))?;
    let mut record = Record::begin("stages");

    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let bare_address = free_address()?;
    let bare = Child::start(std::env::current_exe()?, &["bare", &bare_address.to_string()], bare_address)?;
    let one_worker = ["--workers", "1"];
    let (sync, sync_address) = process::on_core(SERVER_CORE, || serve(&clickhouse, "sync", &one_worker))??;
    let (written, written_address) = process::on_core(SERVER_CORE, || serve(&clickhouse, "written", &one_worker))??;
    process::pin(LOAD_CORE);

    let contenders = [(&bare, bare_address), (&written, written_address), (&sync, sync_address)];
    let mut columns = Vec::new();
    for (child, address) in contenders {
        // Warms up.
        load::run(address, &load::request("/api/events", EVENTS), connections, requests / 10)?;
        columns.push(measure(child, address, connections, requests, clickhouse.folder())?);
    }
    println!("{requests} requests of 30 events, {connections} connections, one worker; µs of CPU a request");
    println!("{:<36} {:>10} {:>10} {:>10}", "", "bare loop", "written", "sync");
    let mut row = |name: &str, of: &dyn Fn(&BTreeMap<&str, f64>) -> f64| {
        let [bare, written, sync] = [0, 1, 2].map(|column| of(&columns[column]));
        for (series, value) in [("bare loop", bare), ("written", written), ("sync", sync)] {
            record.note(series, name, "µs", [value]);
        }
        println!("{name:<36} {bare:>10.2} {written:>10.2} {sync:>10.2}");
    };
    for stage in STAGES {
        row(stage, &|column| column.get(stage).copied().unwrap_or_default());
    }
    row("all", &|column| column.values().sum());
    record.save()
}

/// Microseconds a request by stage.
fn measure(
    child: &Child,
    address: SocketAddr,
    connections: usize,
    requests: u64,
    folder: &Path,
) -> Result<BTreeMap<&'static str, f64>, Box<dyn Error>> {
    let samples = folder.join("perf.data");
    let mut perf = Command::new("perf")
        .args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "-g", "-p", &child.id().to_string(), "-o"])
        .arg(&samples)
        .spawn()?;
    // It attaches to each thread first.
    std::thread::sleep(Duration::from_millis(500));
    let before = child.cpu_time()?;
    let outcome = load::run(address, &load::request("/api/events", EVENTS), connections, requests)?;
    if outcome.failed > 0 {
        return Err(format!("{} of {requests} requests failed", outcome.failed).into());
    }
    // What the committer and the inserters still have to do belongs to it.
    std::thread::sleep(Duration::from_millis(1500));
    let microseconds = (child.cpu_time()? - before).as_secs_f64() * 1e6 / requests as f64;
    let id = i32::try_from(perf.id())?;
    let perf_process = rustix::process::Pid::from_raw(id).ok_or("perf has no process")?;
    rustix::process::kill_process(perf_process, rustix::process::Signal::INT)?;
    perf.wait()?;

    let script = Command::new("perf").args(["script", "-F", "comm,ip,sym", "-i"]).arg(&samples).output()?;
    let text = String::from_utf8_lossy(&script.stdout);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.trim_start_matches('\n').lines();
        let Some(thread) = lines.next() else { continue };
        // From the innermost function to the outermost.
        let calls: Vec<&str> = lines.filter_map(|line| line.trim().split_once(' ')).map(|(_, symbol)| symbol).collect();
        *counts.entry(stage_of(thread.trim(), &calls)).or_default() += 1;
    }
    let all: u64 = counts.values().sum();
    Ok(counts.into_iter().map(|(stage, count)| (stage, microseconds * count as f64 / all as f64)).collect())
}

/// The stage of a sample. A call into the kernel is known by its name; the program's own functions by
/// the room that the innermost one lives in.
fn stage_of(thread: &str, calls: &[&str]) -> &'static str {
    let within = |names: &[&str]| calls.iter().any(|call| names.iter().any(|name| call.contains(name)));
    let innermost = calls.first().copied().unwrap_or_default();
    let is = |names: &[&str]| names.iter().any(|name| innermost.contains(name));
    let is_interrupt = within(&["asm_sysvec", "asm_common_interrupt"]) && !within(&["do_syscall"]);
    let stage = if is_interrupt {
        13
    } else if thread.starts_with("committer") {
        if within(&["writev", "sys_pwrite", "fallocate"]) {
            9
        } else if within(&["sync"]) {
            10
        } else {
            11
        }
    } else if thread.starts_with("inserter") {
        12
    } else if thread.starts_with("worker") || thread.starts_with("stages") {
        if within(&["epoll_wait", "epoll_pwait"]) {
            0
        } else if within(&["accept", "sys_close", "epoll_ctl", "setsockopt"]) {
            1
        } else if within(&["eventfd_write", "futex"]) {
            7
        } else if within(&["sys_recv", "sys_read"]) {
            2
        } else if within(&["sys_send", "sys_write"]) {
            8
        } else if within(&["do_syscall"]) {
            13
        } else if is(&["ndjson", "rowbinary", "simdutf8", "memchr", "sonic"]) {
            4
        } else if is(&["memmove", "memcpy", "memset"]) {
            5
        } else if is(&["crc"]) {
            6
        } else if is(&["handoff", "outbox", "crossbeam", "batch"]) {
            7
        } else {
            3
        }
    } else {
        13
    };
    STAGES[stage]
}
