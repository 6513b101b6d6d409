//! Who is in front of a connection: a client, or a proxy that says who its clients are.

use std::net::IpAddr;

use crate::http::{Head, client_address};
use crate::net::TrustedProxies;

/// The last one on the way of a connection's requests: the peer of the connection, or whom the peer
/// names in a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// None at a Unix socket.
    address: Option<IpAddr>,
    is_trusted: bool,
}

impl Hop {
    /// The peer at this address; `None` is one of a Unix socket.
    pub fn new(address: Option<IpAddr>, trusted: &TrustedProxies) -> Self {
        Self { address, is_trusted: trusted.has_peer(address) }
    }

    /// A peer that is no proxy.
    #[cfg(feature = "engine-may")]
    pub fn client(address: Option<IpAddr>) -> Self {
        Self { address, is_trusted: false }
    }

    /// Its address; none at a Unix socket.
    pub fn address(self) -> Option<IpAddr> {
        self.address
    }

    /// True for a trusted proxy: what it writes into a request's head is believed.
    pub fn is_trusted(self) -> bool {
        self.is_trusted
    }

    /// Whose share of a limit by address the connection takes from. That of nobody behind a trusted
    /// proxy, whose address says nothing about the client.
    pub fn share(self) -> Option<IpAddr> {
        self.address.filter(|_| !self.is_trusted)
    }

    /// The client's address for a request with this head.
    #[inline]
    pub fn client_address(self, head: &Head<'_>, trusted: &TrustedProxies) -> Option<IpAddr> {
        if !self.is_trusted {
            return self.address;
        }
        client_address(head, self.address, |address| trusted.has(address))
    }
}
