//! Clients that write down what they were promised, and the look into ClickHouse whether it was
//! kept.
//!
//! Each event carries its request's number and its own place in it; so does each bad line. A
//! request is *promised* when its reply is 200, 202, or 422 for lines that are all bad. Then all of
//! it must be in ClickHouse, once. Of a request that got 503 or no reply everything may be there,
//! or nothing: never a part, and never twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::load::{self, Clients, Connections, Next, Reply};
use super::{ClickHouse, PATIENCE, Random, Server, wait_for};

/// Beyond what a worker hands over at once.
const EVENTS_OF_A_BIG_REQUEST: u64 = 3000;

/// Of requests that are wrong.
const WRONG_SHOWN: usize = 100;

/// Requests that were sent, what was promised of each, and what was done meanwhile.
pub struct Load {
    address: SocketAddr,
    seed: u64,
    table: &'static str,
    pause_max_ms: u64,
    stopping: AtomicBool,
    next: AtomicU64,
    sent: Mutex<HashMap<u64, Request>>,
    counts: Mutex<Counts>,
    begun: Instant,
    /// What was done to the server and to ClickHouse meanwhile, and when.
    notes: Mutex<Vec<(Duration, String)>>,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Never sends a request again.
    WithoutKey,
    /// Gives each request an idempotency key, and sends it again until it has a reply.
    WithKey,
    /// Gives each event an identity in its field `session`, and sends it again until there is a reply.
    /// It sends no bad lines: those have none.
    WithIdentities,
    /// Asks for a reply that ClickHouse stands behind. Never sends a request again.
    Inserted,
}

#[derive(Clone, Copy)]
struct Request {
    number: u64,
    client: Client,
    events: u64,
    bad: u64,
    promised: bool,
    /// When it was sent first, and when there was the last reply or none.
    sent: Duration,
    ended: Option<Duration>,
}

/// The clients of a load, for the thread that they run on.
struct Senders<'a> {
    load: &'a Load,
    senders: Vec<Sender>,
}

/// One client, and how far it is.
struct Sender {
    client: Client,
    random: Random,
    stage: Stage,
}

enum Stage {
    /// Its last request has ended.
    Idle,
    /// It has rested, and makes the next request when it is connected.
    Rested,
    /// The request was sent, since this time.
    Sent(Request, Instant),
}

/// What happened, in all.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    /// Events and bad lines of promised requests.
    pub events: u64,
    pub bad_lines: u64,
    pub requests: u64,
    /// Requests that ended without a reply…
    pub unanswered: u64,
    /// …or with a 503.
    pub shed: u64,
    pub resends: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bad_lines += other.bad_lines;
        self.requests += other.requests;
        self.unanswered += other.unanswered;
        self.shed += other.shed;
        self.resends += other.resends;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, bad_lines, requests, unanswered, shed, resends } = self;
        write!(
            f,
            "{events} events and {bad_lines} bad lines acknowledged in {requests} requests, {unanswered} requests \
             without a reply, {shed} answered with 503, {resends} resends"
        )
    }
}

impl Load {
    pub fn new(address: SocketAddr, seed: u64) -> Self {
        Self {
            address,
            seed,
            table: "events",
            pause_max_ms: 5,
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            sent: Mutex::default(),
            counts: Mutex::default(),
            begun: Instant::now(),
            notes: Mutex::default(),
        }
    }

    /// Clients that rest so long at most between two requests.
    pub fn with_pauses(self, pause_max_ms: u64) -> Self {
        Self { pause_max_ms, ..self }
    }

    /// Clients that send for another table than `events`, which has the same columns.
    pub fn for_table(self, table: &'static str) -> Self {
        Self { table, ..self }
    }

    /// Writes down what is being done to the server or to ClickHouse, for the case of a failure.
    pub fn note(&self, what: String) {
        self.notes.lock().unwrap().push((self.begun.elapsed(), what));
    }

    /// All of that, a line each.
    pub fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap();
        notes.iter().map(|(when, what)| format!("{:.3} s: {what}\n", when.as_secs_f64())).collect()
    }

    /// The notes from the last one before `from` to the third behind `to`.
    fn notes_around(&self, from: Duration, to: Duration) -> String {
        let notes = self.notes.lock().unwrap();
        let first = notes.partition_point(|(when, _)| *when < from).saturating_sub(1);
        let behind = notes.partition_point(|(when, _)| *when <= to).saturating_add(3).min(notes.len());
        let around = notes[first..behind].iter().map(|(when, what)| format!("{:.3} s {what}", when.as_secs_f64()));
        around.collect::<Vec<_>>().join(", ")
    }

    /// Waits until so many more requests were promised, or refused with 503.
    pub fn wait_for_more(&self, server: &Server, requests: u64, shed: u64) {
        let before = self.counts();
        wait_for(
            || format!("{}, before it {before}:\n{}", self.counts(), server.log()),
            || {
                let now = self.counts();
                (now.requests >= before.requests + requests && now.shed >= before.shed + shed).then_some(())
            },
        );
    }

    /// Clients send, each over its connection, while `body` runs.
    pub fn during(&self, clients: &[Client], body: impl FnOnce()) {
        /// A failed assertion of `body` ends them too.
        struct Stop<'a>(&'a AtomicBool);

        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }

        let sender = |(stream, client): (u64, &Client)| Sender {
            client: *client,
            random: Random::new(self.seed, stream),
            stage: Stage::Idle,
        };
        let mut senders = Senders { load: self, senders: (1..).zip(clients).map(sender).collect() };
        let mut connections = Connections::open(self.address, clients.len()).unwrap();
        thread::scope(|scope| {
            let _stop = Stop(&self.stopping);
            scope.spawn(move || connections.run(&mut senders).unwrap());
            body();
        });
    }

    pub fn counts(&self) -> Counts {
        *self.lock_counts()
    }

    /// Panics unless everything that was promised is in ClickHouse once, and of the rest nothing
    /// in part or twice. Call it when the spool is empty.
    pub fn check(&self, clickhouse: &ClickHouse, database: &str) {
        let events = Stored::find(clickhouse, database, self.table, "param_int", "sequence");
        let bad = Stored::find(
            clickhouse,
            database,
            &format!("{}_quarantine", self.table),
            "toInt64(splitByChar(' ', line)[2])",
            "toInt64(splitByChar(' ', line)[3])",
        );
        let sent = self.lock_sent();
        let strangers = events.keys().chain(bad.keys()).filter(|number| !sent.contains_key(number)).count();
        assert_eq!(strangers, 0, "ClickHouse has requests that nobody sent");
        let in_order: BTreeMap<_, _> = sent.iter().collect();
        let wrong: Vec<String> = in_order
            .values()
            .filter_map(|request| {
                let stored = |of: &HashMap<u64, Stored>| of.get(&request.number).copied().unwrap_or_default();
                let wrong = request.what_is_wrong(stored(&events), stored(&bad))?;
                let around = self.notes_around(request.sent, request.ended.unwrap_or(self.begun.elapsed()));
                Some(format!("{wrong}; around it: {around}"))
            })
            .collect();
        let shown = wrong.iter().take(WRONG_SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            wrong.is_empty(),
            "in {database}.{} {} of {} requests are wrong:\n{shown}",
            self.table,
            wrong.len(),
            sent.len()
        );
    }

    fn lock_sent(&self) -> MutexGuard<'_, HashMap<u64, Request>> {
        self.sent.lock().unwrap()
    }

    fn lock_counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap()
    }
}

impl Clients for Senders<'_> {
    fn next(&mut self, client: usize, is_connected: bool, request: &mut Vec<u8>) -> Next {
        let Self { load, senders } = self;
        let Sender { client, random, stage } = &mut senders[client];
        let is_over = load.stopping.load(Relaxed);
        match stage {
            Stage::Idle if is_over => Next::Leave,
            Stage::Idle => {
                *stage = Stage::Rested;
                Next::Rest(random.milliseconds(0, load.pause_max_ms))
            }
            Stage::Rested if !is_connected => {
                if is_over {
                    Next::Leave
                } else {
                    Next::Connect
                }
            }
            Stage::Rested => {
                let number = load.next.fetch_add(1, Relaxed);
                let new = Request { sent: load.begun.elapsed(), ..Request::random(number, *client, random) };
                *request = new.to_bytes(load.seed, load.table);
                // Written down before anything is sent.
                load.lock_sent().insert(number, new);
                *stage = Stage::Sent(new, Instant::now());
                Next::Send
            }
            Stage::Sent(of, since) => {
                assert!(since.elapsed() < PATIENCE, "request {} gets no reply", of.number);
                if !is_connected {
                    return Next::Connect;
                }
                load.lock_counts().resends += 1;
                Next::Send
            }
        }
    }

    fn ended(&mut self, client: usize, reply: Option<(Reply<'_>, Duration)>) -> io::Result<bool> {
        let Self { load, senders } = self;
        let Sender { client, random, stage } = &mut senders[client];
        let Stage::Sent(request, _) = stage else { panic!("a reply to nothing") };
        let is_shed = reply.is_some_and(|(reply, _)| reply.status == 503);
        let promised = !is_shed && reply.is_some();
        match reply {
            Some(_) if is_shed => load.lock_counts().shed += 1,
            Some((reply, _)) => request.is_promised_by(&reply),
            None => load.lock_counts().unanswered += 1,
        }
        let sends_again = match client {
            // Sometimes once more than needed.
            Client::WithKey | Client::WithIdentities => !promised || random.one_in(8),
            Client::WithoutKey | Client::Inserted => false,
        };
        if !sends_again {
            let request = Request { promised, ended: Some(load.begun.elapsed()), ..*request };
            load.lock_sent().insert(request.number, request);
            if promised {
                let mut counts = load.lock_counts();
                counts.events += request.events;
                counts.bad_lines += request.bad;
                counts.requests += 1;
            }
            *stage = Stage::Idle;
        }
        Ok(promised)
    }
}

impl Request {
    fn random(number: u64, client: Client, random: &mut Random) -> Self {
        let (events, bad) = match random.below(64) {
            0 => (EVENTS_OF_A_BIG_REQUEST, 0),
            1..=5 => (0, 1 + random.below(3)),
            6..=15 => (1 + random.below(20), 1 + random.below(3)),
            _ => (1 + random.below(20), 0),
        };
        match client {
            Client::WithIdentities => Self::new(number, client, events.max(1), 0),
            _ => Self::new(number, client, events, bad),
        }
    }

    fn new(number: u64, client: Client, events: u64, bad: u64) -> Self {
        Self { number, client, events, bad, promised: false, sent: Duration::ZERO, ended: None }
    }

    fn to_bytes(self, seed: u64, table: &str) -> Vec<u8> {
        let Self { number, client, events, bad, .. } = self;
        let mut body = String::new();
        for place in 0..bad {
            body.push_str(&format!("bad {number} {place}\n"));
        }
        for place in 0..events {
            let session = match client {
                Client::WithIdentities => format!("{seed:x}-{number}-{place}"),
                _ => String::new(),
            };
            body.push_str(&format!(
                "{{\"event\":\"load\",\"param_int\":{number},\"sequence\":{place},\"session\":\"{session}\"}}\n"
            ));
        }
        let ack = if client == Client::Inserted { "?ack=inserted" } else { "" };
        let key = match client {
            Client::WithKey => format!("Idempotency-Key: {seed:x}-{number}\r\n"),
            _ => String::new(),
        };
        load::request(&format!("/api/{table}{ack}"), &key, body.as_bytes())
    }

    /// A reply other than 503 has to promise the whole request.
    fn is_promised_by(&self, reply: &Reply<'_>) {
        let text = String::from_utf8_lossy(reply.body);
        let expected: &[u16] = if self.events == 0 { &[422] } else { &[200, 202] };
        assert!(expected.contains(&reply.status), "{} instead of {expected:?}: {text}", reply.status);
        let counts = format!("{{\"accepted\":{},\"rejected\":{}", self.events, self.bad);
        assert!(text.starts_with(&counts), "{text} instead of {counts}");
    }

    fn what_is_wrong(&self, events: Stored, bad: Stored) -> Option<String> {
        let Self { number, client, promised, sent, ended, .. } = self;
        let whole = events.is_each_of(self.events) && bad.is_each_of(self.bad);
        let nothing = events.count == 0 && bad.count == 0;
        let right = whole || (nothing && !promised);
        let promise = if *promised { "was acknowledged" } else { "was not acknowledged" };
        let seconds = |when: Duration| format!("{:.3} s", when.as_secs_f64());
        let (sent, ended) = (seconds(*sent), ended.map_or("the end".to_owned(), seconds));
        (!right).then(|| {
            format!(
                "request {number} ({client:?}), sent at {sent}, {promise} at {ended}: {} events of {} are stored as {} rows, {} bad lines of {} as {} rows",
                events.different, self.events, events.count, bad.different, self.bad, bad.count
            )
        })
    }
}

/// What ClickHouse has of one request.
#[derive(Default, Clone, Copy)]
struct Stored {
    count: u64,
    different: u64,
    last: u64,
}

impl Stored {
    /// By request. `number` and `place` are expressions over a row.
    fn find(clickhouse: &ClickHouse, database: &str, table: &str, number: &str, place: &str) -> HashMap<u64, Self> {
        let text = clickhouse.query(&format!(
            "SELECT {number} AS number, count(), uniqExact({place}), max({place}) FROM {database}.{table} \
             GROUP BY number FORMAT TSV"
        ));
        let rows = text.lines().map(|line| {
            let fields: Vec<u64> = line.split('\t').map(|field| field.parse().unwrap()).collect();
            (fields[0], Self { count: fields[1], different: fields[2], last: fields[3] })
        });
        rows.collect()
    }

    fn is_each_of(self, sent: u64) -> bool {
        self.count == sent && self.different == sent && (sent == 0 || self.last == sent - 1)
    }
}
