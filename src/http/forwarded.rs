//! The client's address behind proxies: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its peer, so both fields are read from the right: the first address
//! that is no trusted proxy's is the client's, and nothing to its left is looked at, because a client can
//! send any text there. An entry without an address (`unknown`, an obfuscated name, anything else) ends
//! the walk as well: the address is then the last one that is known, that of the proxy which wrote the
//! entry.
//!
//! `X-Forwarded-For` wins where both are there. nginx and HAProxy set that field as a rule and pass a
//! `Forwarded` of the client on; a proxy that sets `Forwarded` alone has to remove an `X-Forwarded-For`.
//!
//! `Forwarded` is scanned from the right, too, quoted strings included: a quotation mark that a client
//! left open can't swallow what the proxies behind it have written.

use std::net::{IpAddr, Ipv6Addr};

use super::Head;

/// The longest text of an address with brackets, zone and port that is looked at.
const NODE_BYTES_MAX: usize = 128;

/// The address of the client, by the fields that trusted proxies have written. `peer` is the address of
/// the last proxy, which is trusted; none at a Unix socket.
pub fn client_address(head: &Head<'_>, peer: Option<IpAddr>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut entries = x_forwarded_for(head).peekable();
    if entries.peek().is_some() {
        return walk(entries.map(node), peer, is_trusted);
    }
    walk(forwarded(head).map(forwarded_for), peer, is_trusted)
}

fn walk(
    entries: impl Iterator<Item = Option<IpAddr>>,
    peer: Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut known = peer;
    for entry in entries {
        let Some(address) = entry else { return known };
        known = Some(address);
        if !is_trusted(address) {
            return known;
        }
    }
    known
}

/// The entries of all `X-Forwarded-For` lines, the last one first. An empty entry is none (RFC 9110,
/// section 5.6.1.2).
fn x_forwarded_for<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a [u8]> {
    let lines = head.header_lines("x-forwarded-for").rev();
    let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
    entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// The elements of all `Forwarded` lines, the last one first.
fn forwarded<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a [u8]> {
    let lines = head.header_lines("forwarded").rev();
    let elements = lines.flat_map(|line| split_from_right(line, b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The address of the `for` parameter of an element (RFC 7239, section 4). None when it has no such
/// parameter, or more than one.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_from_right(element, b';').map(<[u8]>::trim_ascii) {
        let Some((name, value)) = memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"for") && found.replace(value.get(1..).unwrap_or_default()).is_some() {
            return None;
        }
    }
    node(found?)
}

/// The parts of `text` between separators that stand in no quoted string, the last one first.
fn split_from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in text.iter().enumerate().rev() {
            if *byte == b'"' && !(is_quoted && is_escaped(text.get(..at).unwrap_or_default())) {
                is_quoted = !is_quoted;
            } else if *byte == separator && !is_quoted {
                let (before, behind) = text.split_at_checked(at)?;
                rest = Some(before);
                return behind.get(1..);
            }
        }
        Some(text)
    })
}

/// True when what follows `before` is escaped: an odd number of backslashes stands in front of it (RFC
/// 9110, section 5.6.4).
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The address of a node (RFC 7239, section 6), with or without quotation marks, brackets, zone and
/// port. None for `unknown`, an obfuscated name, and what is no node.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = match text {
        [b'"', inner @ .., b'"'] => inner,
        text => text,
    };
    if text.len() > NODE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']')?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| ipv6(address))?;
    }
    match text.split_once(':') {
        None => text.parse().ok().filter(IpAddr::is_ipv4),
        Some((_, rest)) if rest.contains(':') => ipv6(text),
        Some((address, port)) => is_port(port).then(|| address.parse().ok().filter(IpAddr::is_ipv4))?,
    }
}

/// An IPv6 address, whose zone is dropped (RFC 4007, section 11); an IPv4-mapped one is the IPv4
/// address.
fn ipv6(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _)) => address,
        None => text,
    };
    address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
}

/// A port number, or an obfuscated one (RFC 7239, section 6).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => {
            (1..=5).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_digit())
                && text.parse::<u16>().is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::{HeadLimits, NO_HEADERS, Parsed, parse_head};

    const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1 << 16, headers_max: 100 };
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// Whoever is in 10/8 or fd00/8 is trusted.
    fn is_trusted(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        }
    }

    fn client_of(fields: &[u8]) -> String {
        let head = [b"POST / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n"].concat();
        let mut slots = NO_HEADERS;
        let Parsed::Done(head) = parse_head(&head, &LIMITS, &mut slots) else {
            panic!("{:?} is no head", String::from_utf8_lossy(&head))
        };
        client_address(&head, Some(PEER), is_trusted).unwrap().to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_proxy() {
        for (value, client) in [
            ("", "10.0.0.1"),
            (" , ,", "10.0.0.1"),
            ("8.8.8.8", "8.8.8.8"),
            ("8.8.8.8,", "8.8.8.8"),
            ("1.1.1.1, 8.8.8.8", "8.8.8.8"),
            ("1.1.1.1,8.8.8.8\t, 10.0.0.2", "8.8.8.8"),
            ("8.8.8.8, 10.0.0.3, fd00::1, 10.0.0.2", "8.8.8.8"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:8.8.8.8", "8.8.8.8"),
            ("8.8.4.4, ::ffff:10.0.0.2", "8.8.4.4"),
            ("8.8.8.8:65535", "8.8.8.8"),
            ("8.8.8.8:_a.b", "8.8.8.8"),
            // What says nothing ends the walk at what is known.
            ("unknown", "10.0.0.1"),
            ("8.8.8.8, unknown", "10.0.0.1"),
            ("8.8.8.8, unknown, 10.0.0.2", "10.0.0.2"),
            ("8.8.8.8, _hidden", "10.0.0.1"),
            ("8.8.8.8, garbage", "10.0.0.1"),
        ] {
            assert_eq!(client_of(format!("X-Forwarded-For: {value}\r\n").as_bytes()), client, "{value}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "a",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:65536",
            "1.2.3.4:+1",
            "1.2.3.4:000080",
            "1.2.3.4:_",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:",
            "[::1]:x",
            "[]",
            "[]:80",
            "fe80::1%",
            ":::",
            "1.2.3.4 5.6.7.8",
            "\"1.2.3.4",
            "1.2.3.4\"",
            "\"\"",
            "0x7f000001",
            "127.1",
        ] {
            assert_eq!(node(text.as_bytes()), None, "{text}");
        }
        assert_eq!(node(&[b'1'; NODE_BYTES_MAX + 1]), None);
        assert_eq!(node(b"1.2.3.\xff"), None);
    }

    #[test]
    fn a_forwarded_field_is_read_as_rfc_7239_says() {
        for (value, client) in [
            ("for=8.8.8.8", "8.8.8.8"),
            ("For=\"8.8.8.8:80\";proto=https;by=10.0.0.9", "8.8.8.8"),
            ("proto=https; FOR=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=1.1.1.1, for=8.8.8.8;host=\"a,b;for=9.9.9.9\", for=10.0.0.2", "8.8.8.8"),
            ("for=8.8.8.8;host=\"a\\\"b, for=9.9.9.9\"", "8.8.8.8"),
            (";;for=8.8.8.8;", "8.8.8.8"),
            ("for=8.8.8.8,", "8.8.8.8"),
            ("for=unknown", "10.0.0.1"),
            ("for=8.8.8.8, for=\"_mystery\"", "10.0.0.1"),
            ("for=8.8.8.8, proto=http", "10.0.0.1"),
            ("for=8.8.8.8;for=9.9.9.9", "10.0.0.1"),
            ("for", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("8.8.8.8", "10.0.0.1"),
        ] {
            assert_eq!(client_of(format!("Forwarded: {value}\r\n").as_bytes()), client, "{value}");
        }
    }

    #[test]
    fn several_lines_are_one_list_and_the_usual_field_wins() {
        for (fields, client) in [
            ("X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 8.8.8.8\r\n", "8.8.8.8"),
            ("X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "8.8.8.8"),
            ("Forwarded: for=1.1.1.1\r\nForwarded: for=8.8.8.8\r\nForwarded: for=10.0.0.2\r\n", "8.8.8.8"),
            ("Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 8.8.8.8\r\n", "8.8.8.8"),
            ("X-Forwarded-For: unknown\r\nForwarded: for=1.1.1.1\r\n", "10.0.0.1"),
            ("X-Forwarded-For: \r\nForwarded: for=8.8.8.8\r\n", "8.8.8.8"),
        ] {
            assert_eq!(client_of(fields.as_bytes()), client, "{fields}");
        }
    }

    /// What a client may send in a field's value, much of it with a meaning there.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => proptest::sample::select(&b"\",;=\\[]:% \tfor.0189"[..]),
            1 => proptest::num::u8::ANY.prop_filter("a byte of a field", |byte| matches!(byte, b' '..=b'~' | 0x80..)),
        ];
        proptest::collection::vec(byte, 0..60)
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_changes_what_its_proxy_has_written(text in hostile(), v6: bool, lines: bool) {
            let separator: &[u8] = if lines { b"\r\nNAME: " } else { b", " };
            let written = if v6 { "[2001:db8::7]:80" } else { "8.8.8.8" };
            let expected = if v6 { "2001:db8::7" } else { "8.8.8.8" };
            for (name, proxy) in [
                ("X-Forwarded-For", format!("{written}, 10.0.0.2")),
                ("Forwarded", format!("for=\"{written}\";host=\"a\\\"\", for=10.0.0.2")),
            ] {
                let separator = String::from_utf8_lossy(separator).replace("NAME", name);
                let field = [name.as_bytes(), b": ", &text, separator.as_bytes(), proxy.as_bytes(), b"\r\n"].concat();
                prop_assert_eq!(client_of(&field), expected);
            }
        }

        #[test]
        fn whatever_stands_there_the_result_is_an_address(text in hostile()) {
            for name in ["X-Forwarded-For", "Forwarded"] {
                client_of(&[name.as_bytes(), b": ", &text, b"\r\n"].concat());
            }
        }

        #[test]
        fn every_address_is_read_in_every_form(bits: u128, port: u16) {
            let v6 = Ipv6Addr::from_bits(bits);
            let v4 = std::net::Ipv4Addr::from_bits(bits as u32);
            for text in [format!("{v6}"), format!("[{v6}]"), format!("\"[{v6}]:{port}\""), format!("[{v6}%eth0]:{port}")] {
                prop_assert_eq!(node(text.as_bytes()), Some(IpAddr::V6(v6).to_canonical()));
            }
            for text in [format!("{v4}"), format!("{v4}:{port}"), format!("\"{v4}\""), format!("::ffff:{v4}")] {
                prop_assert_eq!(node(text.as_bytes()), Some(IpAddr::V4(v4)));
            }
        }
    }
}
