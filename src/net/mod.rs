//! Listening sockets and connections. Each worker has a listening socket per address; the kernel
//! distributes connections over them (`SO_REUSEPORT`).

mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
pub use stream::{Listener, Stream};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// The error of listening on an address.
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

/// Opens one listening socket per worker on `address`. Port 0 takes a free port, the same for all
/// listeners; their local address contains it.
///
/// With `SO_REUSEPORT` a second server could share the port unnoticed, and each would get half of
/// the connections. So the port is probed without `SO_REUSEPORT` first.
///
/// # Errors
///
/// When the address is in use or does not belong to this machine.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Vec<Listener>, ListenError> {
    let wrong = |error| ListenError { address, error };
    let address = probe(address)?;
    (0..workers)
        .map(|_| {
            let socket = socket(address, true).map_err(wrong)?;
            socket.listen(limits::LISTEN_BACKLOG).map_err(wrong)?;
            Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
        })
        .collect()
}

/// Checks that `address` can be bound now, and returns it with port 0 replaced by a free port.
///
/// # Errors
///
/// When the address is in use or does not belong to this machine.
pub fn probe(address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let wrong = |error| ListenError { address, error };
    let probe = socket(address, false).map_err(wrong)?;
    Ok(probe.local_addr().map_err(wrong)?.as_socket().unwrap_or(address))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a server that has just stopped may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]:8080` and `0.0.0.0:8080` can then be listened on at the same time.
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

    fn local_addr(listener: &Listener) -> SocketAddr {
        let Listener::Tcp(listener) = listener else { panic!("{listener:?}") };
        listener.local_addr().unwrap()
    }

    #[test]
    fn each_worker_gets_a_socket_and_a_second_server_an_error() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = local_addr(&listeners[0]);
        assert!(listeners.iter().all(|listener| local_addr(listener) == address));
        let error = bind(address, 1).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn both_families_share_a_port() {
        let four = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let port = local_addr(&four[0]).port();
        bind(SocketAddr::new("::".parse().unwrap(), port), 1).unwrap();
    }
}
