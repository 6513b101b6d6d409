//! Listening sockets and connections, and what a proxy says about a connection before its first byte.
//!
//! Each worker has a listening socket per address; the kernel distributes connections over them
//! (`SO_REUSEPORT`). Of a Unix socket the workers have duplicates.
//!
//! | file | |
//! |---|---|
//! | `address` | `--listen`: an address and port, or a path |
//! | `stream` | a listening socket and a connection, of either family |
//! | `unix` | listening on a path |
//! | `passed` | listening sockets that systemd passes |
//! | `trusted` | `--trusted-proxy` |
//! | `proxy_protocol` | the header of the PROXY protocol, without I/O |

mod address;
#[cfg(not(feature = "tls"))]
pub mod no_tls;
mod passed;
mod proxy_protocol;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
mod trusted;
mod unix;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

pub use address::ListenAddress;
#[cfg(not(feature = "tls"))]
pub use no_tls as tls;
pub use passed::PassedSockets;
pub use proxy_protocol::{ParsedProxyHeader, ProxyHeader, parse_proxy_header};
pub use stream::{Listener, Stream};
pub use transport::{ReadOutcome, Scratch, Transport, read_some};
pub use trusted::{TrustedProxies, TrustedProxy};

use crate::limits;

/// The error of listening on an address.
#[derive(Debug)]
pub struct ListenError {
    address: ListenAddress,
    reason: ListenReason,
}

/// Why an address can't be listened on.
#[derive(Debug)]
enum ListenReason {
    InUse,
    /// What is at the path of a Unix socket is none.
    NoSocket,
    /// The kernel takes 107 bytes of a path.
    PathTooLong,
    Other(io::Error),
}

impl From<io::Error> for ListenReason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.reason {
            ListenReason::InUse => write!(f, "{address} is in use: another server listens there"),
            ListenReason::NoSocket => write!(f, "{address} is no socket: remove it, or listen at another path"),
            ListenReason::PathTooLong => write!(f, "{address} is too long: the path of a socket has at most 107 bytes"),
            ListenReason::Other(error) => write!(f, "{address} can't be listened on: {error}"),
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
/// When the address is in use or does not belong to this machine, or there is no such folder.
pub fn bind(address: &ListenAddress, workers: usize) -> Result<Vec<Listener>, ListenError> {
    let address = match address {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(path) => return unix::bind(path, workers),
    };
    let wrong = |error: io::Error| ListenError { address: address.into(), reason: error.into() };
    let address = probe_tcp(address)?;
    (0..workers)
        .map(|_| {
            let socket = socket(address, true).map_err(wrong)?;
            socket.listen(limits::LISTEN_BACKLOG).map_err(wrong)?;
            Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
        })
        .collect()
}

/// Checks that `address` can be listened on now; nothing stays open.
///
/// # Errors
///
/// As [`bind`].
pub fn probe(address: &ListenAddress) -> Result<(), ListenError> {
    match address {
        ListenAddress::Tcp(address) => probe_tcp(*address).map(|_| ()),
        ListenAddress::Unix(path) => unix::probe(path),
    }
}

/// Checks that `address` can be bound now, and returns it with port 0 replaced by a free port.
fn probe_tcp(address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let wrong = |error: io::Error| ListenError { address: address.into(), reason: error.into() };
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
        let listeners = bind(&"127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = local_addr(&listeners[0]);
        assert!(listeners.iter().all(|listener| local_addr(listener) == address));
        let error = bind(&address.into(), 1).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn both_families_share_a_port() {
        let four = bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let port = local_addr(&four[0]).port();
        bind(&SocketAddr::new("::".parse().unwrap(), port).into(), 1).unwrap();
    }
}
