//! The client behind a descriptor. `may_minihttp` keeps the socket to itself and tells a service
//! its number; what the adapter has to do with the socket is done here.

#![allow(unsafe_code, reason = "a borrowed descriptor can't be made of a number in another way")]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::{SendFlags, Shutdown};

/// See the module. Lives no longer than the socket, see [`Peer::descriptor`].
#[derive(Debug)]
pub(super) struct Peer(RawFd);

impl Peer {
    /// The client of the connection with this descriptor, as `may_minihttp` calls it.
    pub(super) fn new(id: usize) -> Option<Self> {
        let peer = Self(RawFd::try_from(id).ok()?);
        // Replies are written whole; waiting for more to send would only delay them.
        let _ = rustix::net::sockopt::set_tcp_nodelay(peer.descriptor(), true);
        Some(peer)
    }

    /// Its address; an IPv4 client of an IPv6 socket is an IPv4 client. `None` when it has gone.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        let address = rustix::net::getpeername(self.descriptor()).ok()??;
        Some(SocketAddr::try_from(address).ok()?.ip().to_canonical())
    }

    /// Sends a last reply behind which nothing is sent any more. What does not fit into the
    /// socket's buffer is not sent: a few hundred bytes fit where nothing else is in it.
    pub(super) fn send_last(&self, reply: &[u8]) {
        let _ = rustix::net::send(self.descriptor(), reply, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        let _ = rustix::net::shutdown(self.descriptor(), Shutdown::Write);
    }

    /// Nothing more is read: the connection ends when what was read is answered.
    pub(super) fn stop_reading(&self) {
        let _ = rustix::net::shutdown(self.descriptor(), Shutdown::Read);
    }

    /// Has `may` look at the socket once more. While it waits for the rest of a body it forgets what
    /// it was told of the socket, and the kernel tells each thing once: what came with that rest, a
    /// request or the client's end, would not be seen. To set the option, here to what it is, tells
    /// it that the socket can be written to.
    pub(super) fn look_again(&self) {
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&self.descriptor()).set_tcp_notsent_lowat(0);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: `may_minihttp` calls `new_service` with the descriptor of a socket that it owns,
        // moves that socket and the service into one coroutine, and drops the service first. A
        // `Peer` stays inside the service, so the descriptor is open; it is not -1, see `new`.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}
