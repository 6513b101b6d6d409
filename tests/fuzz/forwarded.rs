//! The client's address behind proxies: whatever a client sends in the fields' names and values, the
//! address that the proxy behind it has written is the one that is found.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use sluicegate::http::{HeadLimits, NO_HEADERS, Parsed, client_address, parse_head};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1 << 17, headers_max: 64 };
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8));

fn is_trusted(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// The address that is found in these fields; `None` when they are none.
fn found(fields: &[u8]) -> Option<IpAddr> {
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n\r\n"].concat();
    let mut slots = NO_HEADERS;
    let Parsed::Done(parsed) = parse_head(&head, &LIMITS, &mut slots) else { return None };
    if parsed.len < head.len() {
        return None;
    }
    Some(client_address(&parsed, Some(PROXY), is_trusted).expect("the proxy has an address"))
}

fuzz_target!(|input: &[u8]| {
    // As a whole: an address, or the end of the head is somewhere else.
    found(input);
    // A proxy appends to what is the value of one field.
    if input.contains(&b'\r') || found(&[b"X: ", input].concat()).is_none() {
        return;
    }
    for [name, written] in [
        ["X-Forwarded-For", "8.8.8.8"],
        ["X-Forwarded-For", "[::ffff:8.8.8.8]:80, 10.0.0.9"],
        ["Forwarded", "for=8.8.8.8"],
        ["Forwarded", "host=\"a,\\\"b;for=9.9.9.9\";for=\"8.8.8.8:80\", for=10.0.0.9"],
    ] {
        let name = name.as_bytes();
        for separator in [&b", "[..], &[b"\r\n", name, b":"].concat()] {
            let fields = [name, b": ", input, separator, written.as_bytes()].concat();
            assert_eq!(found(&fields), Some(CLIENT), "{:?}", String::from_utf8_lossy(&fields));
        }
    }
});
