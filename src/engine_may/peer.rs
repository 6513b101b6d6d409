//! Socket operations of a connection. `may_minihttp` owns the socket and gives a service only the number
//! of its file descriptor.

#![allow(unsafe_code, reason = "a borrowed descriptor can't be made of a number in another way")]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::{SendFlags, Shutdown};

/// The peer of a connection, by the file descriptor of the connection's socket. A `Peer` does not outlive
/// the socket, see [`Peer::descriptor`].
#[derive(Debug)]
pub(super) struct Peer(RawFd);

impl Peer {
    /// The peer of the connection that `may_minihttp` calls `id`, which is its file descriptor.
    pub(super) fn new(id: usize) -> Option<Self> {
        let peer = Self(RawFd::try_from(id).ok()?);
        // Replies are written whole, so Nagle's algorithm would only delay them.
        let _ = rustix::net::sockopt::set_tcp_nodelay(peer.descriptor(), true);
        Some(peer)
    }

    /// The address of the peer; an IPv4-mapped IPv6 address becomes the IPv4 address. `None` when the
    /// peer has disconnected.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        let address = rustix::net::getpeername(self.descriptor()).ok()??;
        Some(SocketAddr::try_from(address).ok()?.ip().to_canonical())
    }

    /// Sends a last reply and shuts down the server's side. Bytes that don't fit into the send buffer are
    /// dropped; the few hundred bytes of a reply fit into an empty one.
    pub(super) fn send_last(&self, reply: &[u8]) {
        let _ = rustix::net::send(self.descriptor(), reply, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        let _ = rustix::net::shutdown(self.descriptor(), Shutdown::Write);
    }

    /// Shuts down reading: the connection ends when the requests that were read are answered.
    pub(super) fn stop_reading(&self) {
        let _ = rustix::net::shutdown(self.descriptor(), Shutdown::Read);
    }

    /// Makes `may` read the socket again. While `may` waits for the rest of a body it drops the readiness
    /// of the socket, and epoll, edge-triggered, reports each event once: a request or an end of input
    /// that arrived with that rest would not be noticed. Setting this option, to the value it has, makes
    /// the kernel report the socket as writable.
    pub(super) fn report_again(&self) {
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&self.descriptor()).set_tcp_notsent_lowat(0);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: `may_minihttp` calls `new_service` with the file descriptor of a socket that it owns,
        // moves that socket and the service into one coroutine, and drops the service before the
        // socket. A `Peer` stays inside the service, so the descriptor is open. It is not -1, because
        // `new` converts it from a `usize`.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}
