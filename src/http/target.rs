//! The request target (RFC 9112, section 3.2) and the syntax of a host.

use std::net::Ipv6Addr;

use super::{HttpRefusal, Method};

/// A request target split into its parts.
pub(super) struct RequestTarget<'a> {
    /// Path and query, without scheme and authority.
    pub(super) whole: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

/// Splits a target in origin form, in absolute form with the scheme `http` or `https`, or in asterisk
/// form for OPTIONS. The authority form is for CONNECT, which is not supported.
#[inline]
pub(super) fn split_target(target: &str, method: Method) -> Result<RequestTarget<'_>, HttpRefusal> {
    // `httparse` accepts UTF-8; a URI is ASCII (RFC 3986, section 2). A fragment is never sent (RFC 9110,
    // section 7.1).
    if !target.is_ascii() || memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(HttpRefusal::BadTarget);
    }
    let is_asterisk = target == "*" && method == Method::Options;
    let whole = if target.starts_with('/') || is_asterisk {
        target
    } else {
        behind_authority(target).ok_or(HttpRefusal::BadTarget)?
    };
    let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
    // RFC 9110, section 4.2.3: an empty path is equivalent to "/".
    let path = if path.is_empty() { "/" } else { path };
    Ok(RequestTarget { whole, path, query })
}

/// Path and query of a target in absolute form (RFC 9112, section 3.2.2). The authority is checked and
/// dropped: it would replace the `Host` field, which has no effect on a server without virtual hosts.
fn behind_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, whole) = rest.split_at_checked(end)?;
    is_host(authority.as_bytes()).then_some(whole)
}

/// True for `uri-host [ ":" port ]` (RFC 9110, section 7.2) that is not empty (section 4.2.1) and has
/// no user information (section 4.2.4).
pub(super) fn is_host(value: &[u8]) -> bool {
    let port = if let Some(literal) = value.strip_prefix(b"[") {
        let mut halves = literal.splitn(2, |&byte| byte == b']');
        let address = halves.next().and_then(|half| str::from_utf8(half).ok());
        if address.is_none_or(|address| address.parse::<Ipv6Addr>().is_err()) {
            return false;
        }
        match halves.next() {
            Some([]) => return true,
            Some([b':', port @ ..]) => port,
            _ => return false,
        }
    } else {
        let end = value.iter().position(|&byte| !is_name_byte(byte));
        match value.split_at_checked(end.unwrap_or(value.len())) {
            Some(([], _)) | None => return false,
            Some((_, [])) => return true,
            Some((_, [b':', port @ ..])) => port,
            Some(_) => return false,
        }
    };
    port.iter().all(u8::is_ascii_digit)
}

/// A byte of `reg-name` (RFC 3986, section 3.2.2); percent escapes are not decoded.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "a",
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "a:",
            "a_b.example",
            "xn--bcher-kva.example:443",
            "[fe80::1:2]:65535",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a:80x", "a:80:81", "user@a", "[::1", "[]", "[::1]x", "[::1]]", "[v1.a]",
            "a[::1]", "a\\b", "a?b", "a#b", "::1", "a:-1", "[::1]:x",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host(b"caf\xc3\xa9"));
        assert!(!is_host(b"[\xff]"));
    }

    #[test]
    fn a_target_is_split_into_path_and_query() {
        let split =
            |target, method| split_target(target, method).map(|target| (target.whole, target.path, target.query));
        for (target, whole, path, query) in [
            ("/", "/", "/", ""),
            ("/api/events", "/api/events", "/api/events", ""),
            ("/api/events?a=1?b", "/api/events?a=1?b", "/api/events", "a=1?b"),
            ("/?", "/?", "/", ""),
            ("//x", "//x", "//x", ""),
            ("http://h", "", "/", ""),
            ("HTTP://h:80/p?q", "/p?q", "/p", "q"),
            ("https://h?q/r", "?q/r", "/", "q/r"),
            ("http://[::1]:8080/p", "/p", "/p", ""),
            ("/http://h/p", "/http://h/p", "/http://h/p", ""),
        ] {
            assert_eq!(split(target, Method::Post), Ok((whole, path, query)), "{target}");
        }
        assert_eq!(split("*", Method::Options), Ok(("*", "*", "")));
        for bad in [
            "*",
            "",
            "api",
            "h:80",
            "http:/h/p",
            "ftp://h/p",
            "http://",
            "http:///p",
            "http://u@h/p",
            "http://h h/p",
            "://h/",
            "?q",
            "/caf\u{e9}",
            "/api/events#",
            "/?a#b",
            "http://h/#x",
            "#",
        ] {
            assert_eq!(split(bad, Method::Post), Err(HttpRefusal::BadTarget), "{bad}");
        }
    }
}
