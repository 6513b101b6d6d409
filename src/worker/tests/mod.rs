//! Tests of a worker with real sockets; the test is the committer.

mod ends;
mod large;
mod proxies;
mod tables;
#[cfg(feature = "tls")]
mod tls;
mod turns;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;
use crate::api::ApiTable;
use crate::batch::{BlockNumber, CommitOutcome, CommitRefusal, Exchange, Returned, SegmentNumber};
#[cfg(feature = "tls")]
use crate::handoff::Published;
use crate::handoff::{Handoff, Lifecycle, Mailbox};
use crate::intake::Schemas;
use crate::intake::budget::{BudgetLimits, ByteBudget};
use crate::intake::health::Health;
use crate::ndjson::{EncodeLimits, RowEncoder};
use crate::schema::{ColumnDescription, Plan, SchemaVersion};

/// A running worker, with the queues that its committer would use.
struct Harness {
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
}

impl Harness {
    fn start(commit_timeout: Duration) -> Self {
        Self::start_with(commit_timeout, |_| {})
    }

    fn start_with(commit_timeout: Duration, change: impl FnOnce(&mut Shared)) -> Self {
        Self::run(worker(commit_timeout, change))
    }

    fn run((worker, address): (Worker, SocketAddr)) -> Self {
        let (shared, metrics) = (worker.shared.clone(), worker.metrics.clone());
        Self { shared, metrics, address, thread: thread::spawn(|| worker.run()) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// The next batch that the worker hands over.
    fn batch(&self) -> crate::batch::Batch {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(batch) = self.shared.handoff.next() {
                return batch;
            }
            assert!(Instant::now() < deadline, "the worker hands nothing over");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Publishes a schema of a table.
    fn publish(&self, table: usize, columns: &[&str], frozen: &[u8]) {
        self.shared.schemas.values()[table].publish(Some(SchemaVersion::new(plan(columns), frozen.to_vec())));
    }

    fn give_back(&self, batch: crate::batch::Batch, outcome: CommitOutcome) {
        let mailbox = self.shared.handoff.mailbox(0).unwrap();
        mailbox.give_back(Returned { batch, outcome });
        mailbox.wake();
    }

    /// Stops it, once nothing is left in the budget.
    fn stop(self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.shared.budget.bytes() > 0 {
            assert!(Instant::now() < deadline, "{} bytes stay in flight", self.shared.budget.bytes());
            thread::sleep(Duration::from_millis(5));
        }
        self.shared.handoff.lifecycle.stop(Duration::from_secs(60));
        self.shared.handoff.wake_workers();
        self.thread.join().unwrap().unwrap();
    }
}

/// A worker of the table `events` that does not run yet, and its address.
fn worker(commit_timeout: Duration, change: impl FnOnce(&mut Shared)) -> (Worker, SocketAddr) {
    worker_of(&["events"], commit_timeout, change)
}

/// A worker of these tables, each with a column `event`, that does not run yet, and its address.
fn worker_of(tables: &[&str], commit_timeout: Duration, change: impl FnOnce(&mut Shared)) -> (Worker, SocketAddr) {
    worker_beside(&[], tables, commit_timeout, change)
}

/// The same, beside workers of which there are only the mailboxes.
fn worker_beside(
    others: &[Poll],
    tables: &[&str],
    commit_timeout: Duration,
    change: impl FnOnce(&mut Shared),
) -> (Worker, SocketAddr) {
    let poll = Poll::new().unwrap();
    let lifecycle = Arc::new(Lifecycle::default());
    let batches = limits::batches_per_worker(tables.len());
    let mailboxes = std::iter::once(&poll).chain(others);
    let mailboxes = mailboxes.map(|poll| Mailbox::new(poll.registry(), WAKE).unwrap().with_batches(batches));
    let handoff = Arc::new(Handoff::new(mailboxes.collect(), lifecycle.clone()));
    lifecycle.serve();
    let schema = |_| Some(SchemaVersion::new(plan(&["event"]), b"first".to_vec()));
    let budget = ByteBudget::new(BudgetLimits { max: 1 << 20, request_max: 1 << 19 });
    let mut shared = Shared::of_tests(handoff, tables.iter().map(schema).collect(), budget);
    shared.health = Arc::new(Health::new(lifecycle, Arc::default(), commit_timeout));
    shared.timeouts.commit = commit_timeout;
    shared.timeouts.inserted = Duration::from_millis(500);
    change(&mut shared);
    let (shared, metrics) = (Arc::new(shared), Arc::new(WorkerMetrics::of_tables(tables.len())));
    let limits = EncodeLimits { line_bytes_max: 8 << 20, events_max: 1000, encoded_bytes_max: 8 << 20 };
    let table = |name: &&str| ApiTable {
        name: (*name).to_owned(),
        paths: vec![format!("/api/{name}")],
        encoder: RowEncoder::new(Arc::new(Plan::none()), limits),
    };
    let listeners = crate::net::bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = local_addr(&listeners[0]);
    let api = Api::new(tables.iter().map(table).collect());
    let worker = Worker::new(0, poll, listeners, api, shared, metrics).unwrap();
    (worker, address)
}

fn local_addr(listener: &Listener) -> SocketAddr {
    let Listener::Tcp(listener) = listener else { panic!("{listener:?}") };
    listener.local_addr().unwrap()
}

/// The plan of a table with String columns of these names.
fn plan(names: &[&str]) -> Plan {
    let column = |name: &&str| ColumnDescription {
        name: (*name).to_owned(),
        type_name: "String".into(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    Plan::compile(&names.iter().map(column).collect::<Vec<_>>(), "UTC").unwrap()
}

const COMMITTED: CommitOutcome = CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) };

fn post(stream: &mut TcpStream, event: &str) {
    post_to(stream, "/api/events", event);
}

fn post_to(stream: &mut TcpStream, target: &str, event: &str) {
    let body = format!("{{\"event\":\"{event}\"}}");
    write!(stream, "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}

/// Reads the next reply and returns its status.
fn status(stream: &mut TcpStream) -> u16 {
    reply(stream).0
}

/// The status and body of the next reply.
fn reply(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(bytes).unwrap();
            let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            return (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap());
        }
    }
}

#[test]
fn a_late_reply_never_reaches_the_next_client_of_a_slot() {
    let harness = Harness::start(Duration::from_secs(60));
    let mut first = harness.connect();
    post(&mut first, "first");
    let batch = harness.batch();
    // The client resets the connection; after an orderly close the reply would still be sent.
    socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    while harness.shared.handoff.connections() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let mut second = harness.connect();
    post(&mut second, "second");
    let later = harness.batch();
    harness.give_back(batch, COMMITTED);
    thread::sleep(Duration::from_millis(100));
    harness.give_back(later, CommitOutcome::Refused(CommitRefusal::DiskFull));
    // The reply to the first client would be a 200.
    assert_eq!(status(&mut second), 503);
    drop(second);
    harness.stop();
}

#[test]
fn a_reply_is_sent_only_after_its_batch_is_committed() {
    let harness = Harness::start(Duration::from_secs(60));
    let mut client = harness.connect();
    post(&mut client, "waits");
    let batch = harness.batch();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "a reply came before the commit");
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    harness.give_back(batch, COMMITTED);
    assert_eq!(status(&mut client), 200);
    drop(client);
    harness.stop();
}

#[test]
fn a_commit_that_takes_too_long_is_503_and_its_outcome_is_not_sent() {
    let harness = Harness::start(Duration::from_millis(300));
    let mut client = harness.connect();
    post(&mut client, "late");
    let batch = harness.batch();
    assert_eq!(status(&mut client), 503);
    post(&mut client, "next");
    let next = harness.batch();
    harness.give_back(batch, COMMITTED);
    harness.give_back(next, COMMITTED);
    assert_eq!(status(&mut client), 200);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "a second reply came for one request");
    drop(client);
    harness.stop();
}

#[test]
fn a_reply_that_waits_for_an_insert_is_sent_after_its_confirmation_or_is_202() {
    let harness = Harness::start(Duration::from_secs(60));
    let inserted = "/api/events?ack=inserted";
    let mut client = harness.connect();
    // The block is confirmed after the commit, before the batch returns, and never.
    for (block, proof) in [(5, "after"), (6, "before"), (7, "never")] {
        post_to(&mut client, inserted, proof);
        let batch = harness.batch();
        if proof == "before" {
            harness.shared.handoff.block_inserted(BlockNumber::first(SegmentNumber::new(block)));
        }
        harness.give_back(batch, CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(block)) });
        if proof == "after" {
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(client.read(&mut [0]).is_err(), "a reply came before the proof");
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            harness.shared.handoff.block_inserted(BlockNumber::first(SegmentNumber::new(block)));
        }
        assert_eq!(status(&mut client), if proof == "never" { 202 } else { 200 }, "{proof}");
    }
    // The second reply is ready first and is sent second.
    post_to(&mut client, inserted, "waits");
    let first = harness.batch();
    post(&mut client, "does not");
    let second = harness.batch();
    harness.give_back(first, CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(8)) });
    harness.give_back(second, COMMITTED);
    assert_eq!((status(&mut client), status(&mut client)), (202, 200));
    drop(client);
    harness.stop();
}

#[test]
fn with_all_batches_under_way_requests_wait_and_none_is_lost() {
    let harness = Harness::start(Duration::from_secs(60));
    let count = limits::BATCHES_PER_WORKER * 2;
    let mut clients: Vec<TcpStream> = (0..count).map(|_| harness.connect()).collect();
    let mut held = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        post(client, "held");
        if index < limits::BATCHES_PER_WORKER {
            // One request at a time, so that each gets a batch of its own.
            held.push(harness.batch());
        }
    }
    thread::sleep(Duration::from_millis(200));
    assert!(harness.shared.handoff.next().is_none(), "there are more batches than there may be");
    for batch in held {
        harness.give_back(batch, COMMITTED);
    }
    let mut rows = limits::BATCHES_PER_WORKER;
    while rows < count {
        let batch = harness.batch();
        rows += batch.rows.count as usize;
        harness.give_back(batch, COMMITTED);
    }
    assert!(clients.iter_mut().all(|client| status(client) == 200));
    drop(clients);
    harness.stop();
}

#[test]
fn more_bytes_in_flight_than_the_budget_are_refused_and_given_back() {
    let harness = Harness::start(Duration::from_secs(60));
    for _ in 0..3 {
        let mut client = harness.connect();
        client.write_all(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n").unwrap();
        // The budget is 1 MiB; the server stops reading at its end.
        let _ = client.write_all(&vec![b' '; 3 << 20]);
        assert_eq!(status(&mut client), 503);
    }
    // Two requests that each connection may have, but not both at once.
    let begin = || {
        let mut client = harness.connect();
        client.write_all(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").unwrap();
        let _ = client.write_all(&[b'\n'; 499_999]);
        client
    };
    let mut client = begin();
    while harness.shared.budget.bytes() < 499_999 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(status(&mut begin()), 503);
    client.write_all(b"\n").unwrap();
    assert_eq!(status(&mut client), 200);
    drop(client);
    harness.stop();
}

#[test]
fn a_new_schema_applies_from_the_next_turn_on_and_no_batch_has_two() {
    let harness = Harness::start(Duration::from_secs(60));
    let mut client = harness.connect();
    post(&mut client, "a");
    let before = harness.batch();
    assert_eq!((&before.frozen[..], &before.rows.bytes[..]), (&b"first"[..], &b"\x01a"[..]));
    // The schema is published while the first batch is under way. A request that is incomplete then is
    // encoded for the new schema.
    write!(client, "POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 22\r\n\r\n{{\"event\":\"b\"").unwrap();
    harness.publish(0, &["more", "event"], b"second");
    client.write_all(b",\"more\":1}").unwrap();
    let after = harness.batch();
    assert_eq!((&after.frozen[..], &after.rows.bytes[..]), (&b"second"[..], &b"\x011\x01b"[..]));
    assert_eq!(&before.frozen[..], b"first");
    harness.give_back(before, COMMITTED);
    harness.give_back(after, COMMITTED);
    assert_eq!((status(&mut client), status(&mut client)), (200, 200));
    // Reused batches carry the new schema, too.
    for _ in 0..2 * limits::BATCHES_PER_WORKER {
        post(&mut client, "c");
        let batch = harness.batch();
        assert_eq!((&batch.frozen[..], &batch.rows.bytes[..]), (&b"second"[..], &b"\x00\x01c"[..]));
        harness.give_back(batch, COMMITTED);
        assert_eq!(status(&mut client), 200);
    }
    drop(client);
    harness.stop();
}

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn any_number_of_pipelined_requests_that_need_no_commit_is_answered() {
    let bench = Harness::start(Duration::from_secs(60));
    let mut client = bench.connect();
    let count = 5 * limits::PIPELINED_REQUESTS_MAX;
    let mut input = HEALTH.repeat(count);
    let body = "{\"event\":\"behind them\"}";
    input.extend_from_slice(
        format!("POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
    );
    client.write_all(&input).unwrap();
    (0..count).for_each(|_| assert_eq!(status(&mut client), 200));
    bench.give_back(bench.batch(), COMMITTED);
    assert_eq!(status(&mut client), 200);
    drop(client);
    bench.stop();
}

#[test]
fn health_is_answered_while_the_disk_hangs() {
    let bench = Harness::start(Duration::from_secs(60));
    let mut clients: Vec<TcpStream> = (0..limits::BATCHES_PER_WORKER + 5).map(|_| bench.connect()).collect();
    let mut held = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        post(client, "held");
        if index < limits::BATCHES_PER_WORKER {
            held.push(bench.batch());
        }
    }
    for _ in 0..3 {
        let mut client = bench.connect();
        client.write_all(HEALTH).unwrap();
        assert_eq!(status(&mut client), 200);
        client.write_all(HEALTH).unwrap();
        assert_eq!(status(&mut client), 200);
    }
    let mut rows = held.len();
    held.into_iter().for_each(|batch| bench.give_back(batch, COMMITTED));
    while rows < clients.len() {
        let batch = bench.batch();
        rows += batch.rows.count as usize;
        bench.give_back(batch, COMMITTED);
    }
    assert!(clients.iter_mut().all(|client| status(client) == 200));
    drop(clients);
    bench.stop();
}

#[test]
fn a_heartbeat_is_on_the_clock_that_no_step_moves() {
    let bench = Harness::start(Duration::from_secs(60));
    while bench.metrics.heartbeat_ms.get() == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(bench.metrics.heartbeat_ms.get() <= monotonic_ms());
    bench.stop();
}

#[test]
fn replies_with_errors_that_wait_are_in_the_budget() {
    let bench = Harness::start(Duration::from_secs(60));
    let body = format!("{}{{\"event\":\"good\"}}", "bad\n".repeat(limits::LINE_ERRORS_LISTED_MAX));
    let request = format!("POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut clients: Vec<TcpStream> = (0..4).map(|_| bench.connect()).collect();
    let mut held = Vec::new();
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
        held.push(bench.batch());
    }
    let batches: usize = held.iter().map(crate::batch::Batch::memory).sum();
    let in_flight = bench.shared.budget.bytes();
    assert!(in_flight > batches as u64 + 4 * 5_000, "{in_flight} bytes with batches of {batches}");
    held.into_iter().for_each(|batch| bench.give_back(batch, COMMITTED));
    for client in &mut clients {
        assert_eq!(status(client), 200);
    }
    bench.stop();
    drop(clients);
}
