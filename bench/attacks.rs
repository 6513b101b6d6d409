//! Normal traffic beside each attack: 200 requests a second of 30 events, each due at its time
//! whatever the others take, while an attacker does what it can at a stated rate, with the lowest
//! priority. The same against the bare loop in the same run: what the attacker takes of the machine is
//! in both.
//!
//! The server's process is on one core, attacker and normal traffic on another. Resident memory is the
//! most that the server had, which docs/promises.md states as `--in-flight-bytes-max` and some tens of MiB.
//!
//! `cargo bench --bench attacks` (or `make bench-attacks`). Environment: `BENCH_SECONDS` (of each
//! attack, 12), `BENCH_RECORD` (a folder for the raw figures). `--quick` attacks for three seconds
//! each, to see that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/attack.rs"]
mod attack;
#[path = "support/bare.rs"]
mod bare;
#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use attack::{ATTACKS, Attack};
use process::{Child, ClickHouse, free_address, on_core, serve, size};
use record::Record;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Normal traffic, requests a second.
const RATE: u32 = 200;
const CONNECTIONS: u32 = 16;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Some of the attack has to be under way before normal traffic is measured.
const LEAD: Duration = Duration::from_secs(2);
const IN_FLIGHT: u64 = 64 << 20;
/// What the server may have resident beside `--in-flight-bytes-max`.
const BESIDE: u64 = 64 << 20;

/// What normal traffic met.
struct Met {
    /// Sorted latencies of the requests that were answered 200.
    latencies: Vec<Duration>,
    /// Requests with another answer, or none.
    failed: usize,
}

impl Met {
    fn part(&self, thousandths: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * thousandths / 1000).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "bare", address] => return Ok(bare::serve(address.parse()?)?),
        [_, "attack", name, address, seconds] => {
            let attack = ATTACKS.iter().find(|attack| attack.name == *name).ok_or("no such attack")?;
            return Ok(attack::run(*attack, address.parse()?, Duration::from_secs(seconds.parse()?))?);
        }
        _ => {}
    }
    let length = Duration::from_secs(size("BENCH_SECONDS", 12, 3));
    let mut record = Record::begin("attacks");
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    println!(
        "{RATE} requests a second of 30 events on {CONNECTIONS} connections, {} s beside each attack",
        length.as_secs()
    );
    println!(
        "{:<26} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>13}",
        "", "bare p50", "bare p99", "p50 ms", "p99 ms", "× p99", "failed", "resident MiB"
    );
    for attack in std::iter::once(None).chain(ATTACKS.iter().map(Some)) {
        let name = attack.map_or("no attack", |attack| attack.name);
        let address = free_address()?;
        let arguments = ["bare", &address.to_string()];
        let bare = on_core(SERVER_CORE, || Child::start(std::env::current_exe()?, &arguments, address))??;
        let beside_bare = measure(attack, address, length)?;
        drop(bare);
        let flags = ["--in-flight-bytes-max", &IN_FLIGHT.to_string(), "--workers", "1"];
        let (server, address) = on_core(SERVER_CORE, || serve(&clickhouse, "written", &flags))??;
        let beside = measure(attack, address, length)?;
        let resident = server.memory("VmHWM")?;
        let ratio = beside.part(990) / beside_bare.part(990);
        println!(
            "{name:<26} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {ratio:>8.2} {:>8} {:>13.1}",
            beside_bare.part(500),
            beside_bare.part(990),
            beside.part(500),
            beside.part(990),
            beside.failed,
            resident as f64 / f64::from(1 << 20)
        );
        for (figure, value) in [("p50", 500), ("p99", 990)] {
            record.note(name, &format!("{figure} beside it"), "ms", [beside.part(value)]);
            record.note(name, &format!("{figure} of the bare loop beside it"), "ms", [beside_bare.part(value)]);
        }
        record.note(name, "requests that failed", "requests", [beside.failed as f64]);
        record.note(name, "most memory that was resident", "MiB", [resident as f64 / f64::from(1 << 20)]);
        if resident > IN_FLIGHT + BESIDE {
            println!("  more than --in-flight-bytes-max and {} MiB", BESIDE >> 20);
        }
    }
    record.save()
}

/// Normal traffic for so long, beside the attack.
fn measure(attack: Option<&Attack>, address: SocketAddr, length: Duration) -> Result<Met, Box<dyn Error>> {
    let streams = (0..CONNECTIONS).map(|_| open(address)).collect::<Result<Vec<_>, _>>()?;
    let seconds = (length + LEAD).as_secs().to_string();
    let attacker = attack
        .map(|attack| {
            on_core(LOAD_CORE, || {
                let program = std::env::current_exe()?;
                let mut command = Command::new("nice");
                command.args(["-n", "19"]).arg(program);
                command.args(["attack", attack.name, &address.to_string(), &seconds]).spawn()
            })
        })
        .transpose()?
        .transpose()?;
    std::thread::sleep(LEAD);
    let begun = Instant::now();
    // The calling thread does not stay there: what it starts next would be on that core, too.
    let mets: Vec<Met> = on_core(LOAD_CORE, || {
        std::thread::scope(|scope| {
            let each = |(index, stream)| scope.spawn(move || send(address, stream, index, begun, length));
            let threads: Vec<_> = (0..).zip(streams).map(each).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
        })
    })?;
    if let Some(mut attacker) = attacker {
        let status = attacker.wait()?;
        if !status.success() {
            return Err(format!("the attacker ended with {status}").into());
        }
    }
    let failed = mets.iter().map(|met| met.failed).sum();
    let mut latencies: Vec<Duration> = mets.into_iter().flat_map(|met| met.latencies).collect();
    latencies.sort_unstable();
    Ok(Met { latencies, failed })
}

fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The requests of one connection; a latency counts from when the request was due.
fn send(address: SocketAddr, first: TcpStream, index: u32, begun: Instant, length: Duration) -> Met {
    let head = format!("POST /api/events HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", EVENTS.len());
    let request = [head.as_bytes(), EVENTS].concat();
    let mut met = Met { latencies: Vec::new(), failed: 0 };
    let mut stream = Some(first);
    for number in 0.. {
        let due = Duration::from_secs(1) * (number * CONNECTIONS + index) / RATE;
        if due >= length {
            break;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if stream.is_none() {
            stream = open(address).ok();
        }
        match stream.as_mut().map(|stream| exchange(stream, &request)) {
            Some(Ok(true)) => met.latencies.push(begun.elapsed().saturating_sub(due)),
            _ => {
                met.failed += 1;
                stream = None;
            }
        }
    }
    met
}

/// Sends a request and reads its reply, which comes in one piece. True for 200.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<bool> {
    stream.write_all(request)?;
    let mut reply = [0; 1024];
    let len = stream.read(&mut reply)?;
    Ok(reply[..len].starts_with(b"HTTP/1.1 200"))
}
