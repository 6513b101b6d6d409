//! Attackers: what a client that means harm does, at a stated rate, from an address of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use socket2::{Domain, Protocol, Socket, Type};

/// The last bytes of the addresses that attacks come from, so many that no port is missing; normal
/// traffic comes from 127.0.0.1.
const ATTACKERS: std::ops::Range<u8> = 66..82;
/// A turn of an attacker.
const TURN: Duration = Duration::from_millis(50);
/// Bytes of a bomb's content; about a thousandth of that goes over the wire.
const BOMB: usize = 256 << 20;
/// Bytes that a slow body announces.
const SLOW_BODY: usize = 8 << 20;

/// What the connections of an attacker do.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A byte of a head each turn of theirs.
    SlowHead,
    /// Some bytes of a body that was announced to be large.
    SlowBody,
    /// Requests by the dozen, and no reply is ever read.
    NeverRead,
    /// Connections that are closed as soon as they are open.
    Flood,
    /// Bodies of gzip that become a thousand times larger.
    Bomb,
    /// Random bytes.
    Garbage,
}

/// An attack: so many connections are kept open, at most `opened` new ones a second, and each does its
/// part once in `every`.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// The name in tables and on the command line.
    pub name: &'static str,
    /// What its connections do.
    pub kind: Kind,
    /// Connections at a time.
    pub connections: usize,
    /// New connections a second.
    pub opened: usize,
    /// How often each does its part.
    pub every: Duration,
}

const fn attack(name: &'static str, kind: Kind, connections: usize, opened: usize, every_ms: u64) -> Attack {
    Attack { name, kind, connections, opened, every: Duration::from_millis(every_ms) }
}

/// All attacks.
pub const ATTACKS: [Attack; 6] = [
    attack("slow heads", Kind::SlowHead, 10_000, 2_000, 5_000),
    attack("slow bodies", Kind::SlowBody, 1_000, 1_000, 1_000),
    attack("readers that never read", Kind::NeverRead, 1_000, 1_000, 1_000),
    attack("a flood of connections", Kind::Flood, 0, 1_000, 0),
    attack("bombs", Kind::Bomb, 0, 20, 0),
    attack("garbage", Kind::Garbage, 0, 500, 0),
];

/// Attacks `address` for so long.
pub fn run(attack: Attack, address: SocketAddr, length: Duration) -> std::io::Result<()> {
    let begun = Instant::now();
    let payload = payload(attack.kind);
    let mut open: Vec<(TcpStream, Instant)> = Vec::new();
    let mut opened = 0;
    let mut random: u64 = 88_172_645_463_325_252;
    while begun.elapsed() < length {
        let turn = Instant::now();
        let due = usize::try_from(begun.elapsed().as_millis()).unwrap_or(usize::MAX) * attack.opened / 1000;
        while opened < due && (attack.connections == 0 || open.len() < attack.connections) {
            opened += 1;
            let from = ATTACKERS.start + (opened % ATTACKERS.len()) as u8;
            let Ok(mut stream) = connect(address, from) else { continue };
            match attack.kind {
                Kind::Flood => {}
                Kind::Garbage => {
                    let bytes: Vec<u8> = std::iter::repeat_with(|| next(&mut random)).take(2_000).collect();
                    let _ = stream.write(&bytes);
                }
                Kind::Bomb => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
                    let _ = stream.write_all(&payload).and_then(|()| stream.read(&mut [0; 512]));
                }
                Kind::SlowHead | Kind::SlowBody | Kind::NeverRead => {
                    let _ = stream.write(&payload);
                    open.push((stream, Instant::now()));
                }
            }
        }
        // What could not be opened in its turn is not made up for.
        opened = opened.max(due.saturating_sub(attack.opened));
        open.retain_mut(|(stream, last)| {
            if last.elapsed() < attack.every {
                return true;
            }
            *last = Instant::now();
            let written = match attack.kind {
                Kind::NeverRead => stream.write(&payload),
                _ => stream.write(b"a"),
            };
            match written {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
    Ok(())
}

/// What a connection begins with.
fn payload(kind: Kind) -> Vec<u8> {
    let post = "POST /api/events HTTP/1.1\r\nHost: bench\r\n";
    match kind {
        Kind::SlowHead => post.as_bytes().to_vec(),
        Kind::SlowBody => format!("{post}Content-Length: {SLOW_BODY}\r\n\r\n{{").into_bytes(),
        Kind::NeverRead => b"GET /api/none HTTP/1.1\r\nHost: bench\r\n\r\n".repeat(64),
        Kind::Bomb => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            let zeros = vec![b' '; 1 << 20];
            let written = (0..BOMB / zeros.len()).try_for_each(|_| encoder.write_all(&zeros));
            let body = written.and_then(|()| encoder.finish()).unwrap_or_default();
            let head = format!("{post}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        }
        Kind::Flood | Kind::Garbage => Vec::new(),
    }
}

/// A connection that never blocks, from this address of the attacker.
fn connect(address: SocketAddr, from: u8) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into())?;
    socket.connect_timeout(&address.into(), Duration::from_millis(200))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[0]
}
