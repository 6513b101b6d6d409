//! The end of a connection of the admin address. Closing a socket with unread input would make the
//! kernel send a reset, which can overtake the reply (RFC 9112, section 9.6). Therefore the server's
//! side is shut first, and what still arrives is thrown away for a while.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::limits;

const PAUSE_MAX: Duration = Duration::from_secs(limits::LINGER_SECONDS);
const TIME_MAX: Duration = Duration::from_secs(limits::LINGER_SECONDS_MAX);

/// A connection whose reply is sent.
struct Lingering {
    token: Token,
    stream: TcpStream,
    since: Instant,
    /// When its last input came.
    heard: Instant,
    bytes: u64,
}

/// The connections that linger, the oldest first.
#[derive(Default)]
pub(super) struct Lingerers(VecDeque<Lingering>);

impl Lingerers {
    /// Shuts the server's side of a connection, and keeps it until its client is done. `token` belongs to
    /// no other connection.
    pub(super) fn take(&mut self, mut stream: TcpStream, token: Token, registry: &Registry) {
        let watched =
            stream.shutdown(Shutdown::Write).and_then(|()| registry.register(&mut stream, token, Interest::READABLE));
        if watched.is_err() {
            return;
        }
        let now = Instant::now();
        self.0.push_back(Lingering { token, stream, since: now, heard: now, bytes: 0 });
        self.discard(token);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Closes the oldest one; false if there is none.
    pub(super) fn close_oldest(&mut self) -> bool {
        self.0.pop_front().is_some()
    }

    /// Throws away what a connection has received. Does nothing for a token of another connection.
    pub(super) fn discard(&mut self, token: Token) {
        if let Some(place) = self.0.iter().position(|lingering| lingering.token == token)
            && self.0.get_mut(place).is_some_and(Lingering::discard)
        {
            self.0.remove(place);
        }
    }

    /// Closes the connections whose time is over.
    pub(super) fn close_late(&mut self, now: Instant) {
        self.0.retain(|lingering| {
            now.duration_since(lingering.heard) < PAUSE_MAX && now.duration_since(lingering.since) < TIME_MAX
        });
    }
}

impl Lingering {
    /// Reads what there is; true at the end of the connection.
    fn discard(&mut self) -> bool {
        let mut space = [0; 16 << 10];
        while self.bytes < limits::LINGER_BYTES_MAX {
            match self.stream.read(&mut space) {
                Ok(0) => return true,
                Ok(len) => {
                    self.bytes += len as u64;
                    self.heard = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}
