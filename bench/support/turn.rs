//! One server's part of a round: what a share of requests costs it, and how long they take.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::error::Error;
use std::time::Duration;

use crate::load::{Connections, Until};
use crate::process::Child;
use crate::record::Record;

/// What a server still does after its last reply or row, such as giving back a segment's file.
const AFTER_THE_LAST: Duration = Duration::from_millis(300);

/// What one turn measured.
pub struct Turn {
    /// CPU time of the whole process, µs a request.
    pub cost: f64,
    /// Requests a second.
    pub rate: f64,
    /// Milliseconds: p50, p99, p99.9 and the longest, of a closed loop.
    pub latencies: [f64; 4],
}

/// What `latencies` are.
pub const LATENCIES: [&str; 4] = ["p50", "p99", "p99.9", "longest"];

impl Turn {
    /// Sends the requests; then `settle` waits until so many of them are dealt with: that is part
    /// of the cost.
    pub fn take(
        server: &Child,
        connections: &mut Connections,
        request: &[u8],
        until: Until,
        settle: impl FnOnce(u64) -> Result<(), Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        Self::take_in_turn(server, connections, vec![request], until, settle)
    }

    /// The same with several requests in turn.
    pub fn take_in_turn(
        server: &Child,
        connections: &mut Connections,
        requests: Vec<&[u8]>,
        until: Until,
        settle: impl FnOnce(u64) -> Result<(), Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        let before = server.cpu_time()?;
        let outcome = connections.run_in_turn(requests, until)?;
        let requests = outcome.latencies.len() as u64;
        if outcome.failed > 0 {
            return Err(format!("{} of {requests} requests failed", outcome.failed).into());
        }
        settle(requests)?;
        std::thread::sleep(AFTER_THE_LAST);
        let cost = (server.cpu_time()? - before).as_secs_f64() * 1e6 / requests as f64;
        let mut latencies = outcome.latencies;
        latencies.sort_unstable();
        let last = latencies.len().saturating_sub(1);
        let latencies = [500, 990, 999, 1000].map(|part| latencies[last * part / 1000].as_secs_f64() * 1e3);
        Ok(Self { cost, rate: requests as f64 / outcome.elapsed.as_secs_f64(), latencies })
    }
}

/// Takes down the rounds of a server, and returns cost, rate and latencies as text.
pub fn note(record: &mut Record, name: &str, turns: &[Turn]) -> ([String; 2], [String; 4]) {
    let cost = record.note(name, "CPU time a request", "µs", turns.iter().map(|turn| turn.cost)).summary();
    let rate = record.note(name, "requests a second", "1/s", turns.iter().map(|turn| turn.rate)).summary();
    let mut index = 0;
    let latencies = LATENCIES.map(|latency| {
        let rounds = turns.iter().map(|turn| turn.latencies[index]);
        let text = record.note(name, &format!("latency {latency}"), "ms", rounds).summary();
        index += 1;
        text
    });
    ([cost, rate], latencies)
}
