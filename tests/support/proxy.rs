//! A proxy between inserter and ClickHouse that does to an INSERT what networks, load balancers
//! and failing servers do. Everything else passes through it untouched.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::{ClickHouse, PATIENCE, Random, free_address};

/// What happens to one INSERT.
#[derive(Debug, Clone)]
pub struct Fault {
    pub name: &'static str,
    pub reaches: Reaches,
    pub then: Then,
    /// What the server has to make of the attempt: the label of `sluicegate_inserts_total`.
    pub outcome: &'static str,
}

/// What ClickHouse gets of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaches {
    Nothing,
    /// The head and half of the body; then the connection ends.
    Half,
    /// All of it, and its reply is waited for: the rows are stored.
    Whole,
}

/// What the sender gets.
#[derive(Debug, Clone)]
pub enum Then {
    /// Its connection is reset, where it may still be sending its body.
    ResetBeforeBody,
    /// Its connection is reset once the body is read.
    Reset,
    /// Its connection is reset as soon as ClickHouse has the body, which works on.
    ResetAtOnce,
    /// The connection ends without a byte.
    Close,
    /// Nothing until it gives up.
    Silence,
    /// These bytes, and the end.
    Say(String),
    /// ClickHouse's own reply, later.
    Late,
    /// ClickHouse's own reply, byte by byte.
    Drip,
}

/// A reply with a status, further header lines, and a body.
pub fn said(status: &str, headers: &str, body: &str) -> Then {
    Then::Say(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// An error of ClickHouse.
pub fn refused(code: u32, text: &str) -> Then {
    let header = format!("X-ClickHouse-Exception-Code: {code}\r\n");
    said("500 Internal Server Error", &header, &format!("Code: {code}. DB::Exception: {text}\n"))
}

/// Every fault that there is.
pub fn faults() -> Vec<Fault> {
    use Reaches::{Half, Nothing, Whole};
    let fault = |name, reaches, then, outcome| Fault { name, reaches, then, outcome };
    let raw = |bytes: &str| Then::Say(bytes.to_owned());
    vec![
        fault("a late reply", Whole, Then::Late, "done"),
        fault("a reply byte by byte", Whole, Then::Drip, "done"),
        fault("a reset before the body", Nothing, Then::ResetBeforeBody, "retry"),
        fault("a reset within the body", Half, Then::Reset, "retry"),
        fault("a reset behind the body", Whole, Then::ResetAtOnce, "retry"),
        fault("a reset instead of the reply", Whole, Then::Reset, "retry"),
        fault("an end instead of the reply", Whole, Then::Close, "retry"),
        fault("an end, and nothing stored", Nothing, Then::Close, "retry"),
        fault("silence", Whole, Then::Silence, "retry"),
        fault("silence, and nothing stored", Nothing, Then::Silence, "retry"),
        fault("half a head", Whole, raw("HTTP/1.1 200 OK\r\nX-ClickHouse-Su"), "retry"),
        fault("half a head, and nothing stored", Nothing, raw("HTTP/1.1 200 OK\r\nX-ClickHouse-Su"), "retry"),
        fault("half a body", Nothing, raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), "retry"),
        fault("no last chunk", Nothing, raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), "retry"),
        fault("no HTTP", Nothing, raw("220 ready\r\n\r\n"), "retry"),
        fault("500 for what is stored", Whole, said("500 Internal Server Error", "", ""), "retry"),
        fault("502 of a load balancer", Nothing, said("502 Bad Gateway", "", "<html>Bad Gateway</html>"), "retry"),
        fault("503 of a load balancer for what is stored", Whole, said("503 Service Unavailable", "", ""), "retry"),
        fault("404 of somebody else", Nothing, said("404 Not Found", "", "no such page"), "retry"),
        fault("a redirect", Nothing, said("307 Temporary Redirect", "Location: /?query=SELECT+1\r\n", ""), "retry"),
        fault("204", Nothing, raw("HTTP/1.1 204 No Content\r\n\r\n"), "retry"),
        fault("200 with a body", Nothing, said("200 OK", "", "Ok.\n"), "retry"),
        fault("200 with an exception", Nothing, said("200 OK", "X-ClickHouse-Exception-Code: 241\r\n", ""), "retry"),
        fault(
            "200 with an exception, stored",
            Whole,
            said("200 OK", "X-ClickHouse-Exception-Code: 241\r\n", ""),
            "retry",
        ),
        fault("no memory", Nothing, refused(241, "Query memory limit exceeded (MEMORY_LIMIT_EXCEEDED)"), "retry"),
        fault("no memory for what is stored", Whole, refused(241, "(total) memory limit exceeded"), "retry"),
        fault("too many queries", Nothing, refused(202, "Too many simultaneous queries. Maximum: 100"), "retry"),
        fault("a time-out of ClickHouse", Whole, refused(159, "Timeout exceeded: elapsed 30 seconds"), "retry"),
        fault("a time-out between its nodes", Whole, refused(209, "Timeout exceeded while writing to socket"), "retry"),
        fault("a quorum of unknown fate", Whole, refused(319, "Unknown status, client must retry"), "retry"),
        fault("a read-only replica", Nothing, refused(242, "Table is in readonly mode"), "retry"),
        fault("a cut body", Nothing, refused(33, "Cannot read all data. Bytes read: 10. Bytes expected: 20."), "retry"),
        fault("too many parts", Nothing, refused(252, "Too many parts (300). Merges are processing slower"), "retry"),
        fault("too many partitions", Nothing, refused(252, "Too many partitions for single INSERT block"), "split"),
        fault("an empty 200 of a balancer", Nothing, said("200 OK", "", ""), "retry"),
        fault("an empty 200 of a balancer for what is stored", Whole, said("200 OK", "", ""), "retry"),
        fault("the reply to another query", Nothing, said("200 OK", "X-ClickHouse-Query-Id: other\r\n", ""), "retry"),
        fault("a login page", Nothing, said("200 OK", "Content-Type: text/html\r\n", "<html>Log in</html>"), "retry"),
        fault("413 of a front", Nothing, said("413 Content Too Large", "", "<html>too large</html>"), "retry"),
        fault("429 of a front", Nothing, said("429 Too Many Requests", "", ""), "retry"),
        fault("a code that nobody knows", Whole, refused(4242, "Something new"), "retry"),
    ]
}

/// Serves until the test's process ends.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    clickhouse: SocketAddr,
    plan: Mutex<Plan>,
    /// What an INSERT has in its head to meet a fault.
    only: Mutex<String>,
    /// What every request gets in place of ClickHouse's reply.
    illness: Mutex<Option<Then>>,
    ill_about: Mutex<String>,
    inflicted: AtomicU64,
    /// Of every INSERT.
    heads: Mutex<Vec<String>>,
}

enum Plan {
    /// These, one an INSERT, then none.
    Next(VecDeque<Fault>),
    /// One of these for every second INSERT.
    Mixed(Vec<Fault>, Random),
}

impl Proxy {
    /// Passes everything, until a fault is asked for.
    pub fn start(clickhouse: &ClickHouse) -> Self {
        Self::before(clickhouse.url().strip_prefix("http://").unwrap().parse().unwrap())
    }

    /// The same before any other server; its INSERTs are what has `query=INSERT` in its head.
    pub fn before(clickhouse: SocketAddr) -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Mutex::new(Plan::Next(VecDeque::new()));
        let (inflicted, heads, illness) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared {
            clickhouse,
            plan,
            only: Mutex::default(),
            illness,
            ill_about: Mutex::default(),
            inflicted,
            heads,
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for sender in listener.incoming() {
                let shared = serving.clone();
                // A connection that breaks is what this is for.
                thread::spawn(move || shared.serve(sender.ok()?));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every request, also those that are no INSERT, gets [`Then::Say`] or [`Then::Silence`],
    /// and nothing of it reaches ClickHouse.
    pub fn fall_ill(&self, illness: Then) {
        *self.shared.illness.lock().unwrap() = Some(illness);
    }

    /// The same for the requests that are about this alone: it is in their heads or bodies.
    pub fn fall_ill_about(&self, text: &str, illness: Then) {
        text.clone_into(&mut self.shared.ill_about.lock().unwrap());
        self.fall_ill(illness);
    }

    /// Ends what [`Proxy::fall_ill`] began.
    pub fn recover(&self) {
        *self.shared.illness.lock().unwrap() = None;
    }

    /// Faults of the next INSERTs, one each.
    pub fn inflict(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.shared.plan.lock().unwrap() = Plan::Next(faults.into_iter().collect());
    }

    /// From now on only INSERTs with this in their heads meet faults.
    pub fn only(&self, text: &str) {
        text.clone_into(&mut self.shared.only.lock().unwrap());
    }

    /// From now on every second INSERT, at random, meets one of `faults`.
    pub fn inflict_mixed(&self, faults: Vec<Fault>, random: Random) {
        *self.shared.plan.lock().unwrap() = Plan::Mixed(faults, random);
    }

    /// The heads of the INSERTs so far.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// How many INSERTs met a fault.
    pub fn inflicted(&self) -> u64 {
        self.shared.inflicted.load(Relaxed)
    }
}

impl Shared {
    /// One request of one connection. `None` when it breaks, which nobody looks at.
    fn serve(&self, mut sender: TcpStream) -> Option<()> {
        sender.set_read_timeout(Some(PATIENCE)).ok()?;
        sender.set_nodelay(true).ok()?;
        let (head, mut body) = read_head(&mut sender)?;
        let illness = self.illness.lock().unwrap().clone();
        if let Some(illness) = illness {
            read_body(&mut sender, &head, &mut body)?;
            let about = self.ill_about.lock().unwrap().clone();
            if !head.contains(&about) && memchr::memmem::find(&body, about.as_bytes()).is_none() {
                return sender.write_all(&self.ask(&head, &body)?).ok();
            }
            return match illness {
                Then::Say(bytes) => sender.write_all(bytes.as_bytes()).ok(),
                Then::Silence => sender.read(&mut [0]).ok().map(|_| ()),
                other => panic!("{other:?} is the fate of an INSERT"),
            };
        }
        let is_insert = head.contains("query=INSERT");
        if is_insert {
            self.heads.lock().unwrap().push(head.clone());
        }
        let is_meant = is_insert && head.contains(&*self.only.lock().unwrap());
        let fault = if is_meant { self.next_fault() } else { None };
        if let Some(fault) = &fault {
            self.inflicted.fetch_add(1, Relaxed);
            if matches!(fault.then, Then::ResetBeforeBody) {
                return reset(&sender);
            }
        }
        read_body(&mut sender, &head, &mut body)?;
        let Some(Fault { reaches, then, .. }) = fault else {
            return sender.write_all(&self.ask(&head, &body)?).ok();
        };
        if matches!(then, Then::ResetAtOnce) {
            let mut clickhouse = self.forward(&head, &body)?;
            reset(&sender)?;
            drop(sender);
            return clickhouse.read_to_end(&mut Vec::new()).ok().map(|_| ());
        }
        let reply = match reaches {
            Reaches::Nothing => Vec::new(),
            Reaches::Half => {
                self.forward(&head, &body[..body.len() / 2])?.shutdown(Shutdown::Both).ok()?;
                Vec::new()
            }
            Reaches::Whole => {
                let reply = self.ask(&head, &body)?;
                assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
                reply
            }
        };
        match then {
            Then::ResetBeforeBody | Then::ResetAtOnce | Then::Reset => reset(&sender),
            Then::Close => Some(()),
            Then::Silence => sender.read(&mut [0]).ok().map(|_| ()),
            Then::Say(bytes) => sender.write_all(bytes.as_bytes()).ok(),
            Then::Late => {
                thread::sleep(Duration::from_millis(300));
                sender.write_all(&reply).ok()
            }
            Then::Drip => reply.iter().try_for_each(|byte| sender.write_all(&[*byte]).ok()),
        }
    }

    fn next_fault(&self) -> Option<Fault> {
        match &mut *self.plan.lock().unwrap() {
            Plan::Next(faults) => faults.pop_front(),
            Plan::Mixed(faults, random) => {
                let fault = faults[random.below(faults.len() as u64) as usize].clone();
                random.one_in(2).then_some(fault)
            }
        }
    }

    /// ClickHouse's reply, whole.
    fn ask(&self, head: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        self.forward(head, body)?.read_to_end(&mut reply).ok()?;
        Some(reply)
    }

    /// A connection of its own, which ClickHouse ends with its reply.
    fn forward(&self, head: &str, body: &[u8]) -> Option<TcpStream> {
        let mut clickhouse = TcpStream::connect(self.clickhouse).ok()?;
        clickhouse.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        clickhouse.write_all(head.as_bytes()).ok()?;
        clickhouse.write_all(body).ok()?;
        Some(clickhouse)
    }
}

/// The head, and what came of the body with it.
fn read_head(sender: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        let mut space = [0; 4096];
        let len = sender.read(&mut space).ok().filter(|len| *len > 0)?;
        received.extend_from_slice(&space[..len]);
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            return Some((String::from_utf8(received).unwrap(), body));
        }
    }
}

fn read_body(sender: &mut TcpStream, head: &str, body: &mut Vec<u8>) -> Option<()> {
    let lower = head.to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        return read_chunks(sender, body);
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let begun = body.len();
    body.resize(length, 0);
    sender.read_exact(&mut body[begun..]).ok()
}

/// Chunks as they come, with their framing, up to the last one.
fn read_chunks(sender: &mut TcpStream, body: &mut Vec<u8>) -> Option<()> {
    let mut next = 0;
    loop {
        let line_end = body[next..].windows(2).position(|two| two == b"\r\n").map(|at| next + at);
        let chunk = line_end.map(|end| {
            let size = usize::from_str_radix(std::str::from_utf8(&body[next..end]).unwrap(), 16).unwrap();
            (size, end + 2 + size + 2)
        });
        match chunk {
            Some((0, end)) if end <= body.len() => return Some(()),
            Some((size, end)) if size > 0 && end <= body.len() => next = end,
            _ => {
                let mut space = [0; 64 << 10];
                let len = sender.read(&mut space).ok().filter(|len| *len > 0)?;
                body.extend_from_slice(&space[..len]);
            }
        }
    }
}

/// The connection ends with a reset when it is dropped.
fn reset(stream: &TcpStream) -> Option<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok()
}
