//! `--cors-origin`: which pages of other origins may send events and read the replies (Fetch Standard,
//! section 3.2, "CORS protocol").
//!
//! Nothing here keeps anyone out: a page of any origin can send a request that needs no preflight, and
//! does not learn what became of it. Keys keep out.

use std::fmt;
use std::str::FromStr;

use crate::http::{Head, push_field};

/// Fields of a request that a page may set. `Content-Type` is among them because `application/json` is no
/// value that needs no preflight.
const ALLOW_HEADERS: &str = "Authorization, Content-Encoding, Content-Type, Idempotency-Key, X-Request-Id, X-Write-Key";

/// Fields of a reply that a page may read, beside those that every page may.
const EXPOSE_HEADERS: &str = "Retry-After, X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";

/// Seconds for which a browser asks no second time; Chromium keeps an answer no longer than this.
const MAX_AGE: &str = "7200";

/// A value of `--cors-origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: every origin.
    Any,
    /// A serialized origin (RFC 6454, section 6.2), as browsers send it.
    Exact(Box<str>),
}

impl FromStr for CorsOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LOOKS: &str = "an origin looks like https://shop.example or http://localhost:3000, in lower case, without \
                             a path and without the port that its scheme has anyway; or * for every origin";
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, authority) = text.split_once("://").ok_or(LOOKS)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
        let is_authority = !authority.is_empty()
            && authority
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte));
        let has_usual_port =
            [("http", ":80"), ("https", ":443")].iter().any(|&(of, port)| scheme == of && authority.ends_with(port));
        if is_scheme && is_authority && !has_usual_port && text.len() <= 255 {
            Ok(Self::Exact(text.into()))
        } else {
            Err(LOOKS.to_owned())
        }
    }
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
        }
    }
}

/// The origin of a request, found among those that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedOrigin(u16);

/// The allowed origins; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors(Vec<CorsOrigin>);

impl Cors {
    /// Allows these origins.
    pub fn new(origins: Vec<CorsOrigin>) -> Self {
        Self(origins)
    }

    /// The origin of a request with this value of `Origin`, if it is allowed.
    pub fn allow(&self, origin: &[u8]) -> Option<AllowedOrigin> {
        if origin.is_empty() {
            return None;
        }
        let is = |allowed: &CorsOrigin| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Exact(exact) => exact.as_bytes() == origin,
        };
        (0..).zip(&self.0).find(|(_, allowed)| is(allowed)).map(|(index, _)| AllowedOrigin(index))
    }

    /// True when an allowed origin's page asks for permission (Fetch Standard, "CORS-preflight request").
    /// The method of the request is OPTIONS.
    pub fn is_preflight(&self, head: &Head<'_>) -> bool {
        head.origin.and_then(|origin| self.allow(origin)).is_some()
            && head.header("access-control-request-method").is_some()
    }

    /// Appends the fields of a reply to this origin: the page may read the reply.
    pub fn push_fields(&self, origin: AllowedOrigin, out: &mut Vec<u8>) {
        self.push_origin(origin, out);
        push_field(out, "Access-Control-Expose-Headers", EXPOSE_HEADERS.as_bytes());
    }

    /// Appends the fields of a reply to a preflight of this origin: the page may send a request with one
    /// of these methods.
    pub fn push_preflight(&self, origin: AllowedOrigin, methods: &str, out: &mut Vec<u8>) {
        self.push_origin(origin, out);
        push_field(out, "Access-Control-Allow-Methods", methods.as_bytes());
        push_field(out, "Access-Control-Allow-Headers", ALLOW_HEADERS.as_bytes());
        push_field(out, "Access-Control-Max-Age", MAX_AGE.as_bytes());
    }

    fn push_origin(&self, AllowedOrigin(index): AllowedOrigin, out: &mut Vec<u8>) {
        match self.0.get(usize::from(index)) {
            Some(CorsOrigin::Exact(origin)) => {
                push_field(out, "Access-Control-Allow-Origin", origin.as_bytes());
                // A cache must not give it to a page of another origin.
                push_field(out, "Vary", b"Origin");
            }
            Some(CorsOrigin::Any) | None => push_field(out, "Access-Control-Allow-Origin", b"*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(origins.iter().map(|origin| origin.parse().unwrap()).collect())
    }

    fn fields(cors: &Cors, origin: &str) -> Option<String> {
        let mut out = Vec::new();
        cors.push_fields(cors.allow(origin.as_bytes())?, &mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for origin in ["*", "https://shop.example", "http://localhost:3000", "http://[::1]:80801", "app://x"] {
            assert_eq!(origin.parse::<CorsOrigin>().unwrap().to_string(), origin);
        }
        let wrong = [
            "",
            "null",
            "shop.example",
            "https://",
            "https://Shop.example",
            "HTTPS://shop.example",
            "https://a/",
            "https://a/b",
            "https://a?b",
            "https://a b",
            "https://*.a",
            "https://a:443",
            "http://a:80",
            "://a",
            "**",
            "https://a\r\nX: y",
            "https://u@a",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<CorsOrigin>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_allowed_origin_gets_its_fields_and_another_gets_none() {
        let two = cors(&["https://a.example", "http://b.example:81"]);
        let expose = format!("Access-Control-Expose-Headers: {EXPOSE_HEADERS}\r\n");
        for origin in ["https://a.example", "http://b.example:81"] {
            let expected = format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n{expose}");
            assert_eq!(fields(&two, origin), Some(expected));
        }
        for other in
            ["", "null", "https://a.example:81", "http://a.example", "https://a.example.evil", "https://a.exampl"]
        {
            assert_eq!(fields(&two, other), None, "{other}");
            assert_eq!(fields(&Cors::default(), other), None, "{other}");
        }
        let any = Some(format!("Access-Control-Allow-Origin: *\r\n{expose}"));
        assert_eq!((fields(&cors(&["*"]), "https://x"), fields(&cors(&["*"]), "null")), (any.clone(), any));
    }
}
