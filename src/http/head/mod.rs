//! The head of a request: request line and header fields.
//!
//! `httparse` splits the head into lines and tokens. It accepts more than RFC 9112 allows, so this
//! module adds checks:
//!
//! - `httparse` accepts a bare LF as a line end. It accepts a CR only before an LF, and exactly one
//!   LF a line; so a head with as many CRs as lines has CR LF at the end of every line. The check
//!   is one count of CRs over the head.
//! - `httparse` skips any number of blank lines before the request line. This module removes at most
//!   one blank line and refuses a second one.
//! - `httparse` accepts UTF-8 in the target; `target` does not. `httparse` does not interpret field
//!   values; `fields` does.
//! - `httparse` has one error for an unsupported version and for a malformed one; `foreign_version`
//!   tells them apart.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::target::split_target;
use super::{ContentCoding, Framing, HttpRefusal, Parsed};
use crate::limits;

/// Limits of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of a head, its empty line included.
    pub head_bytes_max: usize,
    /// Header fields of a head; at most [`limits::HEADERS_MAX`].
    pub headers_max: usize,
}

/// Uninitialized memory for one parsed header field.
pub type HeaderSlot<'a> = MaybeUninit<httparse::Header<'a>>;

/// Memory for the largest number of header fields that `--headers-max` allows.
pub type HeaderSlots<'a> = [HeaderSlot<'a>; limits::HEADERS_MAX];

/// Uninitialized slots: `let mut slots = NO_HEADERS;` before each [`parse_head`] reserves stack space
/// and writes nothing.
pub const NO_HEADERS: HeaderSlots<'static> = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX];

/// The methods of RFC 9110, section 9, and RFC 5789, without CONNECT, which only a proxy serves and
/// whose target has another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
}

/// The HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum Version {
    Http10,
    Http11,
}

/// A complete and valid request head. It borrows the input and the header slots.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The request method.
    pub method: Method,
    /// Path and query as received, without scheme and authority; `*` for `OPTIONS *`.
    pub target: &'a str,
    /// The target before its `?`, not percent-decoded (see [`super::plain_path`]); never empty.
    pub path: &'a str,
    /// The target after its `?`, see [`super::query_pairs`].
    pub query: &'a str,
    /// The HTTP version of the request.
    pub version: Version,
    /// True when the connection persists after this request (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// How the length of the body is determined.
    pub framing: Framing,
    /// True when the client waits for [`super::CONTINUE`] before it sends the body.
    pub expect_continue: bool,
    /// The content coding of the body.
    pub content_coding: ContentCoding,
    /// The value of `Idempotency-Key`; empty when the field is repeated.
    pub idempotency_key: Option<&'a [u8]>,
    /// The value of `X-Request-Id`; empty when the field is repeated.
    pub request_id: Option<&'a [u8]>,
    /// The value of `Origin` (RFC 6454, section 7); empty when the field is repeated.
    pub origin: Option<&'a [u8]>,
    /// Bytes from the start of the input to the start of the body: the head, its empty line, and a
    /// blank line before the head if there is one.
    pub len: usize,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// The value of the first field of this name, without surrounding white space. Names are
    /// compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_lines(name).next()
    }

    /// The values of all fields of this name in order: to combine a list-based field (RFC 9110,
    /// section 5.3), or to refuse a repeated field that is not a list.
    pub fn header_lines(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}

/// True when [`parse_head`] can give another result than for the first `seen` bytes of `input`,
/// which were incomplete.
///
/// A head can't become complete without another LF, and any other fault is reported at the end of
/// its line. So a client that sends single bytes costs one parse per line instead of one per byte.
pub fn is_worth_parsing(input: &[u8], seen: usize, limits: &HeadLimits) -> bool {
    let fresh = input.get(seen..).unwrap_or_default();
    seen == 0 || input.len() >= limits.head_bytes_max || memchr::memchr(b'\n', fresh).is_some()
}

/// Parses the head at the start of `input`.
///
/// A [`Head`] borrows the buffer, so it can't be kept while the body is received into that buffer or
/// decoded in it. Parsing the first [`Head::len`] bytes again gives the same head.
#[inline]
pub fn parse_head<'s, 'a: 's>(
    input: &'a [u8],
    limits: &HeadLimits,
    slots: &'s mut [HeaderSlot<'a>],
) -> Parsed<Head<'s>> {
    let bounded = input.get(..limits.head_bytes_max).unwrap_or(input);
    let (blank, bytes) = match bounded.strip_prefix(b"\r\n") {
        Some(rest) => (2, rest),
        None => (0, bounded),
    };
    // RFC 9112, section 2.2: a server ignores at least one blank line. A second one is refused.
    if matches!(bytes.first(), Some(b'\n')) || blank > 0 && matches!(bytes.first(), Some(b'\r')) {
        return Parsed::Refused(HttpRefusal::BadRequestLine);
    }

    let usable = slots.len().min(limits.headers_max);
    let slots = slots.get_mut(..usable).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(len)) => match conclude(bytes, len, request) {
            Ok(head) => Parsed::Done(Head { len: blank + head.len, ..head }),
            Err(refusal) => Parsed::Refused(refusal),
        },
        Ok(httparse::Status::Partial) if input.len() < limits.head_bytes_max => incomplete(bytes),
        Ok(httparse::Status::Partial) => Parsed::Refused(too_large(bytes)),
        Err(error) => match broken(bytes, error, &request) {
            // It ends inside of a version that is wrong so far.
            Parsed::NeedMore if input.len() >= limits.head_bytes_max => Parsed::Refused(too_large(bytes)),
            parsed => parsed,
        },
    }
}

/// Checks the line ends of a head that `httparse` accepted, and interprets the head. The head is the
/// first `len` of `bytes`.
#[inline]
fn conclude<'s, 'a: 's>(
    bytes: &'a [u8],
    len: usize,
    request: httparse::Request<'s, 'a>,
) -> Result<Head<'s>, HttpRefusal> {
    // The request line, the fields and the empty line; why their CRs are counted is explained in the
    // documentation of this module.
    let lines = request.headers.len() + 2;
    let head = bytes.get(..len).unwrap_or(bytes);
    if memchr::memchr_iter(b'\r', head).count() != lines {
        return Err(HttpRefusal::BadLineEnd);
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let head = accept_head(method, target, request.version.unwrap_or(1), request.headers)?;
    Ok(Head { len, ..head })
}

/// The values of `Origin` and `X-Request-Id` in a head that [`parse_head`] refused, for the reply; `None`
/// for a field that is missing or repeated, and for both when `httparse` can't split the head.
#[cold]
pub fn fields_of_refused<'a>(input: &'a [u8], limits: &HeadLimits) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let bounded = input.get(..limits.head_bytes_max).unwrap_or(input);
    let bytes = bounded.strip_prefix(b"\r\n").unwrap_or(bounded);
    let mut slots = NO_HEADERS;
    let mut request = httparse::Request::new(&mut []);
    if !matches!(request.parse_with_uninit_headers(bytes, &mut slots), Ok(httparse::Status::Complete(_))) {
        return (None, None);
    }
    let only = |name: &str| {
        let mut lines = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        lines.next().filter(|_| lines.next().is_none()).map(|header| header.value)
    };
    (only("origin"), only("x-request-id"))
}

/// Interprets a head that another HTTP server has already split; its [`Head::len`] is 0. `minor` is
/// the minor version, the digit after `HTTP/1.`.
///
/// # Errors
///
/// Every check of [`parse_head`] beyond those of `httparse`, except the check of line ends, which
/// are no longer there.
#[inline]
pub fn accept_head<'s>(
    method: &'s str,
    target: &'s str,
    minor: u8,
    headers: &'s [httparse::Header<'s>],
) -> Result<Head<'s>, HttpRefusal> {
    let method = method_of(method).ok_or(HttpRefusal::UnknownMethod)?;
    let target = split_target(target, method)?;
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let mut fields = Fields::default();
    for header in headers {
        fields.note(header.name, header.value)?;
    }
    let facts = fields.conclude(version)?;
    Ok(Head {
        method,
        target: target.whole,
        path: target.path,
        query: target.query,
        version,
        keep_alive: facts.keep_alive,
        framing: facts.framing,
        expect_continue: facts.expect_continue,
        content_coding: facts.content_coding,
        idempotency_key: facts.idempotency_key,
        request_id: facts.request_id,
        origin: facts.origin,
        len: 0,
        headers,
    })
}

/// Method names are case-sensitive (RFC 9110, section 9.1).
fn method_of(token: &str) -> Option<Method> {
    Some(match token {
        "POST" => Method::Post,
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "TRACE" => Method::Trace,
        _ => return None,
    })
}

/// The outcome for a head that `httparse` found incomplete: a bare LF is refused at once.
#[cold]
fn incomplete<T>(bytes: &[u8]) -> Parsed<T> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    if lines.any(|line| line.ends_with(b"\n") && !line.ends_with(b"\r\n")) {
        return Parsed::Refused(HttpRefusal::BadLineEnd);
    }
    Parsed::NeedMore
}

/// The refusal of a head that does not end within `head_bytes_max`. RFC 9112, section 3, has different
/// status codes for a long target and for a long method.
#[cold]
fn too_large(bytes: &[u8]) -> HttpRefusal {
    if memchr::memchr(b'\n', bytes).is_some() {
        HttpRefusal::HeadTooLarge
    } else if memchr::memchr(b' ', bytes).is_some() {
        HttpRefusal::TargetTooLong
    } else {
        HttpRefusal::UnknownMethod
    }
}

/// Translates an error of `httparse`. The parts that are set in `request` show how far it parsed.
#[cold]
fn broken<T>(bytes: &[u8], error: httparse::Error, request: &httparse::Request<'_, '_>) -> Parsed<T> {
    Parsed::Refused(match (error, request.method, request.path) {
        (httparse::Error::TooManyHeaders, ..) => HttpRefusal::TooManyHeaders,
        (httparse::Error::HeaderName | httparse::Error::HeaderValue, ..) => HttpRefusal::BadHeader,
        (httparse::Error::NewLine, ..) => HttpRefusal::BadLineEnd,
        (httparse::Error::Version, Some(method), Some(target)) => {
            let at = method.len() + target.len() + 2;
            return foreign_version(bytes.get(at..).unwrap_or_default());
        }
        (httparse::Error::Token, Some(_), None) => HttpRefusal::BadTarget,
        _ => HttpRefusal::BadRequestLine,
    })
}

/// Distinguishes an unsupported HTTP version from a malformed one (RFC 9112, section 2.3). `bytes`
/// begin after the target and are neither HTTP/1.0 nor HTTP/1.1.
fn foreign_version<T>(bytes: &[u8]) -> Parsed<T> {
    let pattern = b"HTTP/0.0";
    let fits = pattern.iter().zip(bytes).all(|(&wanted, &byte)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == wanted,
    });
    match fits {
        false => Parsed::Refused(HttpRefusal::BadRequestLine),
        true if bytes.len() < pattern.len() => Parsed::NeedMore,
        true => Parsed::Refused(HttpRefusal::UnsupportedVersion),
    }
}

#[cfg(test)]
mod tests;
