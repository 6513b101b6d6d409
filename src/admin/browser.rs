//! Protection against cross-site requests. State may be changed by programs, and by pages of the
//! admin address itself.
//!
//! A browser sends requests for any page, even to an address that only its own machine can reach. The
//! browser declares the page in `Sec-Fetch-Site` and `Origin`, which a page can't set.

use std::net::IpAddr;

use crate::http::Head;

/// True if a browser sends the request for a page of another origin. Programs other than browsers
/// send neither field.
pub(super) fn is_cross_site(head: &Head<'_>) -> bool {
    // `none` means an action of the user, such as a typed address.
    let is_fetched = head.header_lines("sec-fetch-site").any(|site| !matches!(site, b"same-origin" | b"none"));
    let host = head.header("host").unwrap_or_default();
    is_fetched || head.header_lines("origin").any(|origin| !is_own(origin, host))
}

/// True if `origin` is the origin of this address, which the client calls `host`. A host that is not
/// fixed never is.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    let of_origin = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    is_fixed(host) && of_origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// True if `host` is an IP address or `localhost`, with or without a port. The owner of any other name
/// may have pointed the name here (DNS rebinding).
pub(super) fn is_fixed(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_own_if_it_is_the_host_and_the_host_is_an_address_or_localhost() {
        for (origin, host, expected) in [
            ("http://127.0.0.1:9080", "127.0.0.1:9080", true),
            ("http://localhost:9080", "LOCALHOST:9080", true),
            ("http://[::1]:9080", "[::1]:9080", true),
            ("http://[::1]", "[::1]", true),
            ("https://10.0.0.7", "10.0.0.7", true),
            ("http://127.0.0.1:8080", "127.0.0.1:9080", false),
            ("http://rebound.example:9080", "rebound.example:9080", false),
            ("http://elsewhere.example", "127.0.0.1:9080", false),
            ("null", "127.0.0.1:9080", false),
            ("null", "null", false),
            ("", "", false),
        ] {
            assert_eq!(is_own(origin.as_bytes(), host.as_bytes()), expected, "{origin} {host}");
        }
    }
}
