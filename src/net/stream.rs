//! Listening sockets and connections of either family, as a worker uses them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, recv};

use super::unix::SocketFile;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Of an address and port.
    Tcp(TcpListener),
    /// Of a path, whose file is removed with the last listener. The file is dropped before the socket is
    /// closed: a socket that takes no connections is never found there.
    Unix {
        /// The file, which all listeners of the path share; none where it is another's.
        _file: Option<Arc<SocketFile>>,
        /// The socket.
        socket: UnixListener,
    },
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// From an address and port.
    Tcp(TcpStream),
    /// From a process of this machine.
    Unix(UnixStream),
}

impl Listener {
    /// Accepts a connection, with the address of its peer; an IPv4-mapped IPv6 address becomes the IPv4
    /// address. The peer of a Unix socket has none.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`; `WouldBlock` when no connection waits.
    pub fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer.ip().to_canonical())))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = socket.accept()?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

impl Stream {
    /// Sends small writes at once. A Unix socket does so anyway.
    pub fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            // A connection without it works, and its replies may be late.
            let _ = stream.set_nodelay(true);
        }
    }

    /// Copies the first bytes of the input into `space` and leaves them in the socket. The result is 0 at
    /// the end of the input.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`; `WouldBlock` when there is no input.
    pub fn peek(&self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(space),
            Self::Unix(stream) => Ok(recv(stream, space, RecvFlags::PEEK).map(|(len, _)| len)?),
        }
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(space),
            Self::Unix(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, interest),
            Self::Unix { socket, .. } => socket.register(registry, token, interest),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.reregister(registry, token, interest),
            Self::Unix { socket, .. } => socket.reregister(registry, token, interest),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.deregister(registry),
            Self::Unix { socket, .. } => socket.deregister(registry),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interest),
            Self::Unix(stream) => stream.reregister(registry, token, interest),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Client;

    use super::*;
    use crate::net::{ListenAddress, bind};

    #[test]
    fn what_was_peeked_at_a_unix_socket_is_read_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let [listener] = &bind(&ListenAddress::Unix(path.clone()), 1).unwrap()[..] else { panic!() };
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut client = Client::connect(&path).unwrap();
        let (mut stream, peer) = listener.accept().unwrap();
        assert_eq!(peer, None);
        let mut space = [0; 8];
        assert_eq!(stream.peek(&mut space).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"one").unwrap();
        client.write_all(b"two").unwrap();
        assert_eq!(stream.peek(&mut space).unwrap(), 6);
        assert_eq!((stream.read(&mut space).unwrap(), &space[..6]), (6, &b"onetwo"[..]));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.peek(&mut space).unwrap(), 0);
    }
}
