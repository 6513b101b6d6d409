//! A proxy in front of the server that fails every second request with an `Idempotency-Key`, each time in another
//! way, and remembers what it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::{PATIENCE, free_address};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and so is its reply.
    Passed,
    /// It never reaches the server, which a status says; with `Retry-After: 1`, or without.
    Refused(&'static str, bool),
    /// The connection is reset before its body is read.
    Reset,
    /// Half of its body reaches the server, and the connection is reset.
    Cut,
    /// The server has it, and the connection is reset in place of its reply.
    ReplyLost,
    /// The server has it, and the connection ends in the middle of its reply.
    ReplyCut,
}

/// The fates that every second request has, in turn.
pub const FATES: [Fate; 8] = [
    Fate::Refused("503 Service Unavailable", true),
    Fate::ReplyLost,
    Fate::Reset,
    Fate::Refused("429 Too Many Requests", true),
    Fate::Cut,
    Fate::ReplyCut,
    Fate::Refused("502 Bad Gateway", false),
    Fate::ReplyLost,
];

/// The time that `Retry-After: 1` asks for.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request with an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub key: String,
    pub body: Vec<u8>,
    pub fate: Fate,
    pub began: Instant,
    /// When the proxy was about to send its reply.
    pub ended: Instant,
}

/// Serves until the test's process ends.
pub struct Flaky {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    attempts: Mutex<Vec<Attempt>>,
}

impl Flaky {
    /// A proxy in front of this address.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { server, attempts: Mutex::default() });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = serving.clone();
                // A connection that breaks is what this is for.
                thread::spawn(move || shared.serve(stream.ok()?));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/events", self.address)
    }

    /// The requests with a key so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.lock().unwrap().clone()
    }
}

impl Shared {
    /// One request of one connection. `None` when it breaks, which nobody looks at.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let (head, mut body) = read_head(&mut stream)?;
        let Some(key) = field(&head, "idempotency-key") else {
            read_body(&mut stream, &head, &mut body)?;
            return stream.write_all(&self.ask(&head, &body)?).ok();
        };
        let (began, number) = (Instant::now(), self.begin(key));
        let fate = self.attempts.lock().unwrap()[number].fate;
        if fate == Fate::Reset {
            return reset(&stream);
        }
        read_body(&mut stream, &head, &mut body)?;
        let reply = match fate {
            Fate::Refused(..) | Fate::Reset => None,
            Fate::Cut => {
                self.forward(&head, &body[..body.len() / 2]).as_ref().and_then(reset);
                None
            }
            Fate::Passed | Fate::ReplyLost | Fate::ReplyCut => Some(self.ask(&head, &body)?),
        };
        let mut attempts = self.attempts.lock().unwrap();
        attempts[number] = Attempt { body, began, ended: Instant::now(), ..attempts[number].clone() };
        drop(attempts);
        match (fate, reply) {
            (Fate::Passed, Some(reply)) => stream.write_all(&reply).ok(),
            (Fate::ReplyCut, Some(reply)) => stream.write_all(&reply[..reply.len() - 5]).ok(),
            (Fate::Refused(status, is_told), _) => {
                let told = if is_told { "Retry-After: 1\r\n" } else { "" };
                let cors = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\n";
                let reply = format!("HTTP/1.1 {status}\r\n{told}{cors}Content-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(reply.as_bytes()).ok()
            }
            _ => reset(&stream),
        }
    }

    /// Notes a request with a key, and decides what happens to it.
    fn begin(&self, key: String) -> usize {
        let mut attempts = self.attempts.lock().unwrap();
        let number = attempts.len();
        let fate = if number.is_multiple_of(2) { FATES[number / 2 % FATES.len()] } else { Fate::Passed };
        let now = Instant::now();
        attempts.push(Attempt { key, body: Vec::new(), fate, began: now, ended: now });
        number
    }

    /// The server's reply, whole.
    fn ask(&self, head: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        self.forward(head, body)?.read_to_end(&mut reply).ok()?;
        Some(reply)
    }

    /// A connection of its own, which the server ends with its reply.
    fn forward(&self, head: &str, body: &[u8]) -> Option<TcpStream> {
        let mut server = TcpStream::connect(self.server).ok()?;
        server.set_read_timeout(Some(PATIENCE)).ok()?;
        server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).ok()?;
        server.write_all(body).ok()?;
        Some(server)
    }
}

/// The head, and what came of the body with it.
fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        let mut space = [0; 4096];
        let len = stream.read(&mut space).ok().filter(|len| *len > 0)?;
        received.extend_from_slice(&space[..len]);
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            return Some((String::from_utf8(received).unwrap(), body));
        }
    }
}

fn read_body(stream: &mut TcpStream, head: &str, body: &mut Vec<u8>) -> Option<()> {
    let begun = body.len();
    body.resize(field(head, "content-length").map_or(0, |length| length.parse().unwrap()), 0);
    stream.read_exact(&mut body[begun..]).ok()
}

/// The value of a field of a head.
fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
}

/// The connection ends with a reset when it is dropped.
fn reset(stream: &TcpStream) -> Option<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok()
}
