//! A closed loop of keep-alive connections on one thread: each sends the same request again as
//! soon as its reply is there. As cheap as can be, so that the server's core is the busy one.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

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

struct Client {
    stream: TcpStream,
    sent: usize,
    begun: Instant,
    reply: Vec<u8>,
}

/// A POST of `body`.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Open connections, for one run after another.
pub struct Connections {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
}

/// Sends `requests` over `connections` and waits for every reply.
pub fn run(address: SocketAddr, request: &[u8], connections: usize, requests: u64) -> io::Result<Outcome> {
    Connections::open(address, connections)?.run(request, Until::Requests(requests))
}

impl Connections {
    /// Opens so many.
    pub fn open(address: SocketAddr, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(count);
        for index in 0..count {
            let mut stream = TcpStream::from_std({
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                stream
            });
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            clients.push(Client { stream, sent: 0, begun: Instant::now(), reply: Vec::with_capacity(1024) });
        }
        Ok(Self { poll, events: Events::with_capacity(count.max(64)), clients })
    }

    /// Sends the request over all of them, and again over each as soon as its reply is there.
    pub fn run(&mut self, request: &[u8], until: Until) -> io::Result<Outcome> {
        let Self { poll, events, clients } = self;
        let most = if let Until::Requests(requests) = until { requests } else { u64::MAX };
        let mut latencies = Vec::with_capacity(usize::try_from(most).unwrap_or(0).min(1 << 20));
        let begun = Instant::now();
        let is_over = || matches!(until, Until::Elapsed(time) if begun.elapsed() >= time);
        let mut under_way = 0;
        for client in clients.iter_mut().take(usize::try_from(most).unwrap_or(usize::MAX)) {
            client.begin(request)?;
            under_way += 1;
        }
        let (mut begun_requests, mut failed) = (under_way, 0);
        while under_way > 0 {
            poll.poll(events, Some(Duration::from_secs(30)))?;
            if events.is_empty() {
                return Err(io::Error::other("no reply for 30 s"));
            }
            let may_begin = !is_over();
            for event in events.iter() {
                let Some(client) = clients.get_mut(event.token().0) else { continue };
                if event.is_writable() && client.sent > 0 {
                    client.send(request)?;
                }
                if event.is_readable() {
                    while let Some(status_is_200) = client.receive()? {
                        latencies.push(client.begun.elapsed());
                        failed += u64::from(!status_is_200);
                        if begun_requests == most || !may_begin {
                            under_way -= 1;
                            break;
                        }
                        begun_requests += 1;
                        client.begin(request)?;
                    }
                }
            }
        }
        Ok(Outcome { failed, elapsed: begun.elapsed(), latencies })
    }
}

impl Client {
    fn begin(&mut self, request: &[u8]) -> io::Result<()> {
        self.begun = Instant::now();
        self.send(request)
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        Ok(())
    }

    /// Reads one reply; `Some` when it is complete, saying whether it is a 200.
    fn receive(&mut self) -> io::Result<Option<bool>> {
        let mut space = [0; 4096];
        match self.stream.read(&mut space) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(len) => self.reply.extend_from_slice(&space[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(head_len) = memchr::memmem::find(&self.reply, b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&self.reply[..head_len]).to_ascii_lowercase();
        let body = &self.reply[head_len..];
        let body_len: usize =
            head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok()).unwrap_or(0);
        let is_chunked = head.contains("transfer-encoding: chunked");
        if body.len() < body_len || is_chunked && !body.ends_with(b"0\r\n\r\n") {
            return Ok(None);
        }
        let succeeded = self.reply.starts_with(b"HTTP/1.1 200 ");
        self.reply.clear();
        Ok(Some(succeeded))
    }
}
