//! `--trusted-proxy`: the peers whose word about their clients is believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// One `--trusted-proxy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Every address of a network. One of IPv4-mapped IPv6 addresses is the network of the IPv4
    /// addresses.
    Network(IpNet),
    /// Every peer of a Unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix:" {
            return Ok(Self::Unix);
        }
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| "it takes a network, an address or unix:")?,
        };
        Ok(Self::Network(canonical(network)))
    }
}

/// A network of IPv4-mapped addresses (`::ffff:0:0/96`) as the network of the IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |network: ipnet::Ipv6Net| {
        let length = network.prefix_len().checked_sub(96)?;
        Ipv4Net::new(network.addr().to_ipv4_mapped()?, length).ok()
    };
    match network {
        IpNet::V6(six) => mapped(six).map_or(network, IpNet::V4),
        IpNet::V4(_) => network,
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

/// Every `--trusted-proxy`.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    has_unix: bool,
}

impl TrustedProxies {
    /// Those of these settings.
    pub fn new(proxies: &[TrustedProxy]) -> Self {
        let mut all = Self::default();
        for proxy in proxies {
            match proxy {
                TrustedProxy::Network(network) => all.networks.push(*network),
                TrustedProxy::Unix => all.has_unix = true,
            }
        }
        all
    }

    /// True if no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.has_unix
    }

    /// True for the address of a trusted proxy, which is canonical (`IpAddr::to_canonical`).
    pub fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// True for a trusted peer; `None` is the peer of a Unix socket.
    pub fn has_peer(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.has_unix, |address| self.has(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(proxies: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&proxies.iter().map(|proxy| proxy.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_trusted_in_every_spelling_of_its_network() {
        for (proxy, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::/0", "::1", "8.8.8.8"),
        ] {
            let trusted = trusted(&[proxy]);
            assert!(trusted.has(inside.parse().unwrap()), "{proxy} {inside}");
            assert!(!trusted.has(outside.parse().unwrap()), "{proxy} {outside}");
            assert!(!trusted.has_peer(None), "{proxy}");
        }
    }

    #[test]
    fn unix_sockets_are_trusted_by_their_name_alone() {
        let unix = trusted(&["unix:"]);
        assert!(unix.has_peer(None) && !unix.has_peer(Some([127, 0, 0, 1].into())));
        let both = trusted(&["unix:", "127.0.0.0/8"]);
        assert!(both.has_peer(None) && both.has_peer(Some([127, 0, 0, 1].into())));
        assert!(!trusted(&[]).has_peer(None));
    }

    #[test]
    fn what_names_no_peer_is_an_error() {
        for text in
            ["", "unix", "unix:/run/x", "10.0.0.0/33", "10.0.0/8", "::1/129", "localhost", "10.0.0.0/", "10.0.0.1:80"]
        {
            assert!(text.parse::<TrustedProxy>().is_err(), "{text}");
        }
        for text in ["10.0.0.0/8", "unix:", "2001:db8::/32"] {
            assert_eq!(text.parse::<TrustedProxy>().unwrap().to_string(), text);
        }
    }
}
