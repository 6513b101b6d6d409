//! A raw HTTP client: sends the bytes that it is given.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::load::{Reply, request};

/// A reply.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub(super) fn of(reply: &Reply<'_>) -> Self {
        let headers = reply.fields().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status: reply.status, headers, body: reply.body.to_vec() }
    }

    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that is used by hand.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// How reading from it ended, if it did.
    end: Option<std::io::Result<usize>>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|| panic!("nobody listens at {address}"))
    }

    pub fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { stream, received: Vec::new(), end: None })
    }

    /// Opens one to a Unix socket. What is called on it is the same for both families.
    pub fn open_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::over(TcpStream::from(OwnedFd::from(stream)))
    }

    /// Opens one from an address of this machine, such as 127.0.0.7.
    pub fn open_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, received: Vec::new(), end: None }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Ends our side of it.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next reply, by its Content-Length.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.try_read_response().unwrap_or_else(|| {
            let (ours, peers) = (self.stream.local_addr(), self.stream.peer_addr());
            panic!("the connection {ours:?} to {peers:?} ended before a reply: {:?}", self.end)
        })
    }

    pub fn try_read_response(&mut self) -> Option<Response> {
        let (response, len) = loop {
            match Reply::parse(&self.received) {
                Some(reply) => break (Response::of(&reply), reply.len()),
                None => self.receive()?,
            }
        };
        self.received.drain(..len);
        Some(response)
    }

    /// True when the server ends the connection without another byte.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while Instant::now() < deadline {
            match self.stream.read(&mut [0; 64]) {
                Ok(len) => return len == 0,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn receive(&mut self) -> Option<()> {
        let mut space = [0; 16 << 10];
        match self.stream.read(&mut space) {
            Ok(len) if len > 0 => {
                self.received.extend_from_slice(&space[..len]);
                Some(())
            }
            end => {
                self.end = Some(end);
                None
            }
        }
    }
}

/// One POST on a connection of its own.
#[track_caller]
pub fn post(address: SocketAddr, target: &str, body: &[u8]) -> Response {
    post_with(address, target, "", body)
}

/// The same with further header lines, each with its end.
#[track_caller]
pub fn post_with(address: SocketAddr, target: &str, headers: &str, body: &[u8]) -> Response {
    let mut connection = Connection::open(address);
    connection.send(&request(target, headers, body));
    connection.read_response()
}

/// One GET on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    let mut connection = Connection::open(address);
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    connection.read_response()
}
