//! Clients that write down what they were promised, and the look into ClickHouse whether it was
//! kept.
//!
//! Each event carries its request's number and its own place in it; so does each bad line. A
//! request is *promised* when its reply is 200, 202, or 422 for lines that are all bad. Then all of
//! it must be in ClickHouse, once. Of a request that got 503 or no reply everything may be there,
//! or nothing: never a part, and never twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{ClickHouse, Connection, PATIENCE, Random, Response, Server, wait_for};

/// Beyond what a worker hands over at once.
const EVENTS_OF_A_BIG_REQUEST: u64 = 3000;

/// Of requests that are wrong.
const WRONG_SHOWN: usize = 100;

/// See the module.
pub struct Load {
    address: SocketAddr,
    seed: u64,
    pause_max_ms: u64,
    stopping: AtomicBool,
    next: AtomicU64,
    sent: Mutex<HashMap<u64, Request>>,
    figures: Mutex<Figures>,
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

/// What happened, in all.
#[derive(Default, Clone, Copy)]
pub struct Figures {
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

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bad_lines += other.bad_lines;
        self.requests += other.requests;
        self.unanswered += other.unanswered;
        self.shed += other.shed;
        self.resends += other.resends;
    }
}

impl fmt::Display for Figures {
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
            pause_max_ms: 5,
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            sent: Mutex::default(),
            figures: Mutex::default(),
            begun: Instant::now(),
            notes: Mutex::default(),
        }
    }

    /// Clients that rest so long at most between two requests.
    pub fn with_pauses(self, pause_max_ms: u64) -> Self {
        Self { pause_max_ms, ..self }
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
        let before = self.figures();
        wait_for(
            || format!("{}, before it {before}:\n{}", self.figures(), server.log()),
            || {
                let now = self.figures();
                (now.requests >= before.requests + requests && now.shed >= before.shed + shed).then_some(())
            },
        );
    }

    /// Clients send from several connections while `body` runs.
    pub fn during(&self, clients: &[Client], body: impl FnOnce()) {
        /// A failed assertion of `body` ends them too.
        struct Stop<'a>(&'a AtomicBool);

        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }

        thread::scope(|scope| {
            let _stop = Stop(&self.stopping);
            for (stream, client) in (1..).zip(clients.iter().copied()) {
                scope.spawn(move || self.run(client, Random::new(self.seed, stream)));
            }
            body();
        });
    }

    pub fn figures(&self) -> Figures {
        *self.lock_figures()
    }

    fn run(&self, client: Client, mut random: Random) {
        let mut connection = None;
        while !self.stopping.load(Relaxed) {
            thread::sleep(random.milliseconds(0, self.pause_max_ms));
            let Some(open) = connection.take().or_else(|| Connection::try_open(self.address)) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let number = self.next.fetch_add(1, Relaxed);
            let mut request = Request { sent: self.begun.elapsed(), ..Request::random(number, client, &mut random) };
            let bytes = request.to_bytes(client, self.seed);
            // Written down before anything is sent.
            self.lock_sent().insert(number, request);
            connection = Some(open);
            request.promised = match client {
                Client::WithKey | Client::WithIdentities => {
                    self.send_until_answered(&mut connection, &request, &bytes, &mut random)
                }
                Client::WithoutKey | Client::Inserted => self.send(&mut connection, &request, &bytes),
            };
            request.ended = Some(self.begun.elapsed());
            self.lock_sent().insert(number, request);
            if request.promised {
                let mut figures = self.lock_figures();
                figures.events += request.events;
                figures.bad_lines += request.bad;
                figures.requests += 1;
            }
        }
    }

    /// Sends a request once. True when it was promised.
    fn send(&self, connection: &mut Option<Connection>, request: &Request, bytes: &[u8]) -> bool {
        let reply = connection.as_mut().and_then(|open| {
            // A server that ends may have taken a part of it and answered.
            open.try_send(bytes);
            open.try_read_response()
        });
        match reply {
            Some(reply) if reply.status == 503 => {
                self.lock_figures().shed += 1;
                *connection = None;
                false
            }
            Some(reply) => {
                request.is_promised_by(&reply);
                true
            }
            None => {
                self.lock_figures().unanswered += 1;
                *connection = None;
                false
            }
        }
    }

    /// Sends the same again until there is a reply, and sometimes once more.
    fn send_until_answered(
        &self,
        connection: &mut Option<Connection>,
        request: &Request,
        bytes: &[u8],
        random: &mut Random,
    ) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut sent = false;
        loop {
            assert!(Instant::now() < deadline, "request {} gets no reply", request.number);
            if connection.is_none() {
                *connection = Connection::try_open(self.address);
            }
            if connection.is_none() {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.lock_figures().resends += u64::from(sent);
            sent = true;
            if self.send(connection, request, bytes) && !random.one_in(8) {
                return true;
            }
        }
    }

    /// Panics unless everything that was promised is in ClickHouse once, and of the rest nothing
    /// in part or twice. Call it when the spool is empty.
    pub fn check(&self, clickhouse: &ClickHouse, database: &str) {
        let events = Stored::find(clickhouse, database, "events", "param_int", "sequence");
        let bad = Stored::find(
            clickhouse,
            database,
            "events_quarantine",
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
        assert!(wrong.is_empty(), "in {database} {} of {} requests are wrong:\n{shown}", wrong.len(), sent.len());
    }

    fn lock_sent(&self) -> MutexGuard<'_, HashMap<u64, Request>> {
        self.sent.lock().unwrap()
    }

    fn lock_figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap()
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

    fn to_bytes(self, client: Client, seed: u64) -> Vec<u8> {
        let Self { number, events, bad, .. } = self;
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
        let target = if client == Client::Inserted { "/api/events?ack=inserted" } else { "/api/events" };
        let key = match client {
            Client::WithKey => format!("Idempotency-Key: {seed:x}-{number}\r\n"),
            _ => String::new(),
        };
        let length = body.len();
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    /// A reply other than 503 has to promise the whole request.
    fn is_promised_by(&self, reply: &Response) {
        let expected: &[u16] = if self.events == 0 { &[422] } else { &[200, 202] };
        assert!(expected.contains(&reply.status), "{} instead of {expected:?}: {}", reply.status, reply.text());
        let figures = format!("{{\"accepted\":{},\"rejected\":{}", self.events, self.bad);
        assert!(reply.text().starts_with(&figures), "{} instead of {figures}", reply.text());
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
