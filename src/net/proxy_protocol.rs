//! The header of the PROXY protocol, versions 1 and 2, as HAProxy's `doc/proxy-protocol.txt` describes
//! it: a proxy sends it first on each connection, before anything of the client.
//!
//! The parser looks at the first bytes of a connection, which stay in the socket until the header is
//! complete: nothing is kept for a connection whose header is on its way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What every header of version 1 begins with.
const PREFIX: &[u8; 6] = b"PROXY ";
/// The longest header of version 1, its line end included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// The fixed part of a header of version 2 (section 2.2).
const FIXED_BYTES: usize = 16;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The address of the proxy's client; an IPv4-mapped IPv6 address is the IPv4 address. None when the
    /// proxy asks on its own behalf (`LOCAL`, a health check), or does not know (`UNKNOWN`, or a client
    /// without an IP address).
    pub source: Option<IpAddr>,
    /// Bytes of the header.
    pub len: usize,
}

/// The outcome of parsing the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedProxyHeader {
    /// The header is complete.
    Done(ProxyHeader),
    /// The input is valid so far and incomplete. Never so for
    /// [`PROXY_HEADER_BYTES_MAX`](limits::PROXY_HEADER_BYTES_MAX) bytes or more.
    NeedMore,
    /// The input is no header, whatever follows, or a longer one than is accepted.
    Refused,
}

use ParsedProxyHeader::{Done, NeedMore, Refused};

/// Parses the header at the start of `input`.
pub fn parse_proxy_header(input: &[u8]) -> ParsedProxyHeader {
    if begins_like(input, SIGNATURE) {
        binary(input)
    } else if begins_like(input, PREFIX) {
        line(input)
    } else {
        Refused
    }
}

/// True when `input` begins with `expected`, or with a part of it as far as it goes.
fn begins_like(input: &[u8], expected: &[u8]) -> bool {
    input.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

/// Version 1: `PROXY TCP4 source destination port port` and CR LF.
fn line(input: &[u8]) -> ParsedProxyHeader {
    let bounded = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    let Some(end) = bounded.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if input.len() < LINE_BYTES_MAX { NeedMore } else { Refused };
    };
    match bounded.get(end..) {
        Some([b'\r']) if input.len() < LINE_BYTES_MAX => return NeedMore,
        Some([b'\r', b'\n', ..]) => {}
        _ => return Refused,
    }
    let words = bounded.get(PREFIX.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    let mut words = words.unwrap_or_default().split(' ');
    let source = match words.next() {
        // Whatever stands behind it is ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => match addresses::<Ipv4Addr>(words) {
            Some(source) => Some(source),
            None => return Refused,
        },
        Some("TCP6") => match addresses::<Ipv6Addr>(words) {
            Some(source) => Some(source.to_canonical()),
            None => return Refused,
        },
        _ => return Refused,
    };
    Done(ProxyHeader { source, len: end + 2 })
}

/// The first of two addresses and two ports.
fn addresses<A: std::str::FromStr + Into<IpAddr>>(mut words: std::str::Split<'_, char>) -> Option<IpAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _: A = words.next()?.parse().ok()?;
    for _ in 0..2 {
        let port = words.next()?;
        (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()).then_some(())?;
    }
    words.next().is_none().then(|| source.into())
}

/// Version 2: signature, version and command, family and protocol, length, addresses, and what else the
/// proxy says (TLVs), which is skipped.
fn binary(input: &[u8]) -> ParsedProxyHeader {
    let rest = input.get(SIGNATURE.len()..).unwrap_or_default();
    let is_local = match rest.first() {
        None => return NeedMore,
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Refused,
    };
    // The addresses of each family: source, destination, two ports.
    let (address_bytes, needed) = match rest.get(1) {
        None => return NeedMore,
        // A local connection may have any family, which is not looked at.
        Some(_) if is_local => (0, 0),
        Some(0x00) => (0, 0),
        Some(0x11) => (4, 12),
        Some(0x21) => (16, 36),
        // Datagrams, and Unix sockets: valid, and without the address of a client.
        Some(0x12) => (0, 12),
        Some(0x22) => (0, 36),
        Some(0x31 | 0x32) => (0, 216),
        Some(_) => return Refused,
    };
    let Some(&[high, low]) = rest.get(2..4) else { return NeedMore };
    let behind = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED_BYTES + behind;
    if behind < needed || len > limits::PROXY_HEADER_BYTES_MAX {
        return Refused;
    }
    if input.len() < len {
        return NeedMore;
    }
    let address = rest.get(4..).unwrap_or_default();
    let source = match address_bytes {
        4 => address.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => address.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
        _ => None,
    };
    Done(ProxyHeader { source, len })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary_header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    /// A header is one at its last byte, whatever follows, and needs more at each one before.
    fn assert_header(header: &[u8], source: Option<&str>) {
        let source = source.map(|source| source.parse().unwrap());
        let done = Done(ProxyHeader { source, len: header.len() });
        for cut in 0..header.len() {
            assert_eq!(parse_proxy_header(&header[..cut]), NeedMore, "{cut} of {header:?}");
        }
        for more in [&b""[..], b"P", b"\n", b"POST / HTTP/1.1\r\n", &[0; 5000]] {
            assert_eq!(parse_proxy_header(&[header, more].concat()), done, "{header:?}");
        }
    }

    #[test]
    fn a_line_says_who_the_client_is() {
        for (line, source) in [
            ("PROXY TCP4 8.8.8.8 10.0.0.1 5000 443\r\n", Some("8.8.8.8")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255")),
            ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Some("2001:db8::1")),
            ("PROXY TCP6 ::ffff:8.8.8.8 ::1 1 2\r\n", Some("8.8.8.8")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN 2001:db8::1 whatever\r\n", None),
        ] {
            assert_header(line.as_bytes(), source);
        }
        // The longest that there may be.
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        assert_header(longest.as_bytes(), None);
    }

    #[test]
    fn a_binary_header_says_who_the_client_is() {
        let v4 = [8, 8, 8, 8, 10, 0, 0, 1, 0x13, 0x88, 1, 0xbb];
        let v6 = [&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        let mapped = [&"::ffff:8.8.8.8".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        // ALPN, an unknown one, and padding.
        let tlvs = [&[0x01, 0, 2, b'h', b'2', 0xee, 0, 0, 0x04, 1, 0][..], &[0; 256]].concat();
        for (command, family, addresses, source) in [
            (0x21, 0x11, &v4[..], Some("8.8.8.8")),
            (0x21, 0x11, &[&v4[..], &tlvs].concat(), Some("8.8.8.8")),
            (0x21, 0x21, &v6, Some("2001:db8::1")),
            (0x21, 0x21, &[&v6[..], &tlvs].concat(), Some("2001:db8::1")),
            (0x21, 0x21, &mapped, Some("8.8.8.8")),
            (0x21, 0x00, &[], None),
            (0x21, 0x00, &tlvs, None),
            (0x21, 0x12, &v4, None),
            (0x21, 0x31, &[b'/'; 216], None),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &v4, None),
            (0x20, 0xff, &tlvs, None),
            (0x21, 0x11, &[8; limits::PROXY_HEADER_BYTES_MAX - FIXED_BYTES], Some("8.8.8.8")),
        ] {
            assert_header(&binary_header(command, family, addresses), source);
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_certain() {
        for line in [
            "P ",
            "PROXY\t",
            "PROXY TCP4 8.8.8.8 10.0.0.1 5000 443\n",
            "PROXY TCP4 8.8.8.8 10.0.0.1 5000 443\rX",
            "PROXY TCP4 8.8.8.8 10.0.0.1 5000\r\n",
            "PROXY TCP4 8.8.8.8 10.0.0.1 5000 443 1\r\n",
            "PROXY TCP4  8.8.8.8 10.0.0.1 5000 443\r\n",
            "PROXY TCP4 8.8.8.8 10.0.0.1 5000 65536\r\n",
            "PROXY TCP4 8.8.8.8 10.0.0.1 +1 443\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 8.8.8.8 10.0.0.1 1 2\r\n",
            "PROXY TCP4 8.8.8 10.0.0.1 1 2\r\n",
            "PROXY \r\n",
            "PROXY UDP4 8.8.8.8 10.0.0.1 1 2\r\n",
            "PROXY unknown\r\n",
            "PROXY UNKNOWNX\r\n",
            "POST /api/events HTTP/1.1\r\n",
            "\r\n\r\nPOST",
            "\x16\x03\x01",
        ] {
            assert_eq!(parse_proxy_header(line.as_bytes()), Refused, "{line:?}");
        }
        assert_eq!(parse_proxy_header(b"PROXY TCP4 \xff\xff 10.0.0.1 1 2\r\n"), Refused);
        let long = ["PROXY UNKNOWN ", &"f".repeat(200)].concat();
        for cut in 0..long.len() {
            let expected = if cut < LINE_BYTES_MAX { NeedMore } else { Refused };
            assert_eq!(parse_proxy_header(&long.as_bytes()[..cut]), expected, "{cut}");
        }
        for (command, family, addresses) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x2f, 0x11, 12),
            (0x21, 0x13, 12),
            (0x21, 0x41, 12),
            (0x21, 0x10, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x31, 215),
            (0x20, 0x00, limits::PROXY_HEADER_BYTES_MAX - FIXED_BYTES + 1),
            (0x21, 0x11, usize::from(u16::MAX)),
        ] {
            let header = binary_header(command, family, &vec![0; addresses]);
            assert_eq!(parse_proxy_header(&header[..FIXED_BYTES]), Refused, "{command:x} {family:x} {addresses}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_is_certain(
            start in prop_oneof![
                Just(Vec::new()), Just(PREFIX.to_vec()), Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
                Just(binary_header(0x21, 0x11, &[])[..14].to_vec()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let input = [start, rest].concat();
            let mut certain = None;
            for cut in 0..=input.len() {
                let now = parse_proxy_header(&input[..cut]);
                if let Some(before) = certain {
                    prop_assert_eq!(now, before);
                } else if now != NeedMore {
                    certain = Some(now);
                }
                if let Done(header) = now {
                    prop_assert!(header.len <= cut && header.len <= limits::PROXY_HEADER_BYTES_MAX);
                }
            }
        }
    }
}
