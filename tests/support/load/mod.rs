//! A load: clients with a keep-alive connection each, all on one thread, as cheap as can be, so that
//! the server's core is the busy one.
//!
//! What they send and what they make of the replies is up to [`Clients`]: the benchmarks send one
//! request again and again, the tests write down what they were promised.

mod reply;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

pub use reply::Reply;

/// How long a server may say nothing to any of those who wait for it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a client rests when nobody listens.
const PAUSE: Duration = Duration::from_millis(5);

/// What the clients of a load do.
pub trait Clients {
    /// What `client` does next, which has no request under way. `request` holds its last one, and is
    /// what [`Next::Send`] sends.
    fn next(&mut self, client: usize, is_connected: bool, request: &mut Vec<u8>) -> Next;

    /// How the request of `client` ended: with a reply and the time from its first byte to the reply's
    /// last, or with the connection. False closes a connection that is still open.
    fn ended(&mut self, client: usize, reply: Option<(Reply<'_>, Duration)>) -> io::Result<bool>;
}

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Sends a request. It must be connected.
    Send,
    /// Connects; where nobody listens it rests a moment. Then it is asked again.
    Connect,
    /// Rests, and is asked again.
    Rest(Duration),
    /// Has done all that it wanted.
    Leave,
}

/// The connections of a load, for one run after another.
pub struct Connections {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
}

/// One client's connection.
struct Peer {
    stream: Option<TcpStream>,
    request: Vec<u8>,
    /// Bytes of it that the kernel has; `None` without a request under way.
    sent: Option<usize>,
    begun: Instant,
    received: Vec<u8>,
}

/// Those of a run that do not wait for a reply, and how many do.
#[derive(Default)]
struct Standing {
    under_way: usize,
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Connections {
    /// Connects so many clients.
    pub fn open(address: SocketAddr, clients: usize) -> io::Result<Self> {
        let (poll, mut peers) = (Poll::new()?, Vec::with_capacity(clients));
        for client in 0..clients {
            let mut peer = Peer {
                stream: None,
                request: Vec::new(),
                sent: None,
                begun: Instant::now(),
                received: Vec::with_capacity(1024),
            };
            peer.connect(poll.registry(), address, client)?;
            peers.push(peer);
        }
        Ok(Self { address, poll, events: Events::with_capacity(clients.max(64)), peers })
    }

    /// Lets all of them do what they do, until each has left.
    pub fn run(&mut self, clients: &mut impl Clients) -> io::Result<()> {
        let Self { address, poll, events, peers } = self;
        let mut standing = Standing::default();
        for (client, peer) in peers.iter_mut().enumerate() {
            peer.go_on(client, *address, poll.registry(), clients, &mut standing)?;
        }
        loop {
            let timeout = match standing.resting.peek() {
                Some(Reverse((until, _))) => until.saturating_duration_since(Instant::now()),
                None if standing.under_way == 0 => return Ok(()),
                None => SILENCE_MAX,
            };
            match poll.poll(events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() && timeout == SILENCE_MAX {
                return Err(io::Error::other(format!("no reply for {} s", SILENCE_MAX.as_secs())));
            }
            for event in events.iter() {
                let Token(client) = event.token();
                let Some(peer) = peers.get_mut(client) else { continue };
                if event.is_writable() {
                    peer.send();
                }
                if event.is_readable() || event.is_read_closed() {
                    peer.receive(client, *address, poll.registry(), clients, &mut standing)?;
                }
            }
            let now = Instant::now();
            while let Some(Reverse((until, client))) = standing.resting.peek().copied()
                && until <= now
            {
                standing.resting.pop();
                if let Some(peer) = peers.get_mut(client) {
                    peer.go_on(client, *address, poll.registry(), clients, &mut standing)?;
                }
            }
        }
    }
}

impl Peer {
    /// Does what its client does next, up to what takes time.
    fn go_on(
        &mut self,
        client: usize,
        address: SocketAddr,
        registry: &Registry,
        clients: &mut impl Clients,
        standing: &mut Standing,
    ) -> io::Result<()> {
        let rest = loop {
            match clients.next(client, self.stream.is_some(), &mut self.request) {
                Next::Send => {
                    (self.sent, self.begun) = (Some(0), Instant::now());
                    standing.under_way += 1;
                    self.send();
                    return Ok(());
                }
                Next::Connect if self.connect(registry, address, client).is_ok() => {}
                Next::Connect => break PAUSE,
                Next::Rest(time) => break time,
                Next::Leave => return Ok(()),
            }
        };
        standing.resting.push(Reverse((Instant::now() + rest, client)));
        Ok(())
    }

    fn connect(&mut self, registry: &Registry, address: SocketAddr, client: usize) -> io::Result<()> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, Token(client), Interest::READABLE | Interest::WRITABLE)?;
        self.received.clear();
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends what the kernel takes of the request. Where it breaks, a reply may be there all the same:
    /// reading says what became of it.
    fn send(&mut self) {
        let (Some(stream), Some(sent)) = (&mut self.stream, &mut self.sent) else { return };
        while let Some(rest) = self.request.get(*sent..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(len) => *sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Reads all that is there. With a reply, or with the connection's end, the client goes on.
    fn receive(
        &mut self,
        client: usize,
        address: SocketAddr,
        registry: &Registry,
        clients: &mut impl Clients,
        standing: &mut Standing,
    ) -> io::Result<()> {
        let mut space = [0; 16 << 10];
        while let Some(stream) = &mut self.stream {
            let is_open = match stream.read(&mut space) {
                Ok(0) => false,
                Ok(len) => {
                    self.received.extend_from_slice(&space[..len]);
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => false,
            };
            if !is_open {
                self.stream = None;
            }
            if self.sent.is_none() {
                continue;
            }
            let reply = Reply::parse(&self.received);
            if reply.is_none() && is_open {
                continue;
            }
            self.sent = None;
            standing.under_way -= 1;
            let len = reply.map_or(0, |reply| reply.len());
            if !clients.ended(client, reply.map(|reply| (reply, self.begun.elapsed())))? {
                self.stream = None;
            }
            self.received.drain(..len);
            self.go_on(client, address, registry, clients, standing)?;
        }
        Ok(())
    }
}

/// The bytes of a POST; `headers` are further header lines, each with its end.
pub fn request(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}
