//! A closed loop: each connection sends the same request again as soon as its reply is there.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

#[path = "../../tests/support/load/mod.rs"]
mod clients;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clients::{Clients, Next, Reply};

/// When a run is over.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many requests are answered.
    Requests(u64),
    /// So long no request is begun any more; those that are under way are answered.
    Elapsed(Duration),
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Replies with another status than 200.
    pub failed: u64,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// From each request's first byte to its reply's last, in the order of the replies.
    pub latencies: Vec<Duration>,
}

/// Open connections, for one run after another.
pub struct Connections(clients::Connections);

/// The clients of one run.
struct Repeating<'a> {
    /// Sent in turn.
    requests: Vec<&'a [u8]>,
    until: Until,
    begun: Instant,
    begun_requests: u64,
    outcome: Outcome,
}

/// A POST of `body`.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    clients::request(path, "User-Agent: bench\r\nAccept: */*\r\nContent-Type: application/x-ndjson\r\n", body)
}

/// Sends `requests` over `connections` and waits for every reply.
pub fn run(address: SocketAddr, request: &[u8], connections: usize, requests: u64) -> io::Result<Outcome> {
    Connections::open(address, connections)?.run(request, Until::Requests(requests))
}

impl Connections {
    /// Opens so many.
    pub fn open(address: SocketAddr, count: usize) -> io::Result<Self> {
        Ok(Self(clients::Connections::open(address, count)?))
    }

    /// Sends the request over all of them, and again over each as soon as its reply is there.
    pub fn run(&mut self, request: &[u8], until: Until) -> io::Result<Outcome> {
        self.run_in_turn(vec![request], until)
    }

    /// The same with several requests in turn.
    pub fn run_in_turn(&mut self, requests: Vec<&[u8]>, until: Until) -> io::Result<Outcome> {
        let expected = if let Until::Requests(requests) = until { requests } else { 0 };
        let latencies = Vec::with_capacity(usize::try_from(expected).unwrap_or(0).min(1 << 20));
        let outcome = Outcome { failed: 0, elapsed: Duration::ZERO, latencies };
        let mut clients = Repeating { requests, until, begun: Instant::now(), begun_requests: 0, outcome };
        self.0.run(&mut clients)?;
        Ok(Outcome { elapsed: clients.begun.elapsed(), ..clients.outcome })
    }
}

impl Clients for Repeating<'_> {
    fn next(&mut self, _: usize, _: bool, request: &mut Vec<u8>) -> Next {
        let is_over = match self.until {
            Until::Requests(requests) => self.begun_requests == requests,
            Until::Elapsed(time) => self.begun.elapsed() >= time,
        };
        if is_over {
            return Next::Leave;
        }
        let turn = usize::try_from(self.begun_requests).unwrap_or(0) % self.requests.len();
        self.begun_requests += 1;
        // The same bytes as those of the last time stay where they are.
        if request != self.requests[turn] {
            self.requests[turn].clone_into(request);
        }
        Next::Send
    }

    fn ended(&mut self, _: usize, reply: Option<(Reply<'_>, Duration)>) -> io::Result<bool> {
        let (reply, latency) = reply.ok_or_else(|| io::Error::other("the server closed a connection"))?;
        self.outcome.latencies.push(latency);
        self.outcome.failed += u64::from(reply.status != 200);
        Ok(true)
    }
}
