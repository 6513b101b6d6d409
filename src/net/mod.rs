//! Listening sockets: one a worker and address, shared by the kernel through SO_REUSEPORT.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// An address that can't be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => write!(f, "{} is in use: another server listens there", self.address),
            _ => write!(f, "{} can't be listened on: {}", self.address, self.error),
        }
    }
}

impl std::error::Error for ListenError {}

/// A listening socket for each of `workers` on `address`. Port 0 takes one that is free; the
/// address that it became is in each listener.
///
/// SO_REUSEPORT would let a second server share the port unnoticed, each getting half of the
/// connections; so the port is probed without it first.
///
/// # Errors
///
/// When the address is in use or not this machine's.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, ListenError> {
    let wrong = |error| ListenError { address, error };
    let address = probe(address)?;
    (0..workers)
        .map(|_| {
            let socket = socket(address, true).map_err(wrong)?;
            socket.listen(limits::LISTEN_BACKLOG).map_err(wrong)?;
            Ok(TcpListener::from_std(socket.into()))
        })
        .collect()
}

/// Could `address` be listened on now? Returns it with the port that would be taken for 0.
///
/// # Errors
///
/// When the address is in use or not this machine's.
pub fn probe(address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let wrong = |error| ListenError { address, error };
    let probe = socket(address, false).map_err(wrong)?;
    Ok(probe.local_addr().map_err(wrong)?.as_socket().unwrap_or(address))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a server that just ended may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]:8080` beside `0.0.0.0:8080` must work.
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_gets_a_socket_and_a_second_server_an_error() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        let error = bind(address, 1).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn both_families_share_a_port() {
        let four = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let port = four[0].local_addr().unwrap().port();
        bind(SocketAddr::new("::".parse().unwrap(), port), 1).unwrap();
    }
}
