//! The head of a request: request line and header fields.
//!
//! `httparse` finds the tokens and lines; what it is too kind about is checked around it:
//!
//! - It takes a bare LF for a line end. But it takes a CR only in front of an LF, and has exactly
//!   one LF a line; so as many CRs as lines means that every line ends in CR LF. That is one
//!   count over the head, instead of a look at every line.
//! - It skips any number of blank lines in front. One is taken off before it sees the bytes.
//! - It takes UTF-8 in the target: see `target`. It looks at no field's value: see `fields`.
//! - It has one error for every version but 1.0 and 1.1, and for what is no version at all.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::target::split_target;
use super::{ContentCoding, Framing, Parsed, Refusal};
use crate::limits;

/// What is accepted of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of a head, from its first one to its empty line.
    pub head_bytes_max: usize,
    /// Header fields; [`limits::HEADERS_MAX`] at most.
    pub headers_max: usize,
}

/// A place for one header field.
pub type HeaderSlot<'a> = MaybeUninit<httparse::Header<'a>>;

/// Places for as many fields as `--headers-max` may be set to.
pub type HeaderSlots<'a> = [HeaderSlot<'a>; limits::HEADERS_MAX];

/// Empty slots. They are not written before they are used, so that `let mut slots = NO_HEADERS;`
/// in front of each [`parse_head`] costs nothing but room on the stack.
pub const NO_HEADERS: HeaderSlots<'static> = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX];

/// The methods that RFC 9110, section 9, and RFC 5789 name, but for CONNECT: it is for proxies,
/// and its target has a form of its own.
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

/// The version of the client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum Version {
    Http10,
    Http11,
}

/// A complete and acceptable head. A view: it borrows the bytes and the slots.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// What to do.
    pub method: Method,
    /// Path and query as they came, without scheme and authority; `*` for `OPTIONS *`.
    pub target: &'a str,
    /// The target up to its `?`, escapes not decoded (see [`super::plain_path`]); never empty.
    pub path: &'a str,
    /// The target behind its `?`, see [`super::query_pairs`].
    pub query: &'a str,
    /// The client's version.
    pub version: Version,
    /// Whether the client wants the connection to live on.
    pub keep_alive: bool,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client waits for [`super::CONTINUE`] before it sends the body.
    pub expect_continue: bool,
    /// How the body is packed.
    pub content_coding: ContentCoding,
    /// The value of `Idempotency-Key`; empty where the field comes twice.
    pub idempotency_key: Option<&'a [u8]>,
    /// Bytes of the head, with its empty line and a blank line in front of it: the body begins
    /// here.
    pub len: usize,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// The value of the first field of this name, whatever its letters' case, without the space
    /// around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_lines(name).next()
    }

    /// The values of all fields of this name in their order: for those that are lists
    /// (RFC 9110, section 5.3), and to refuse a second one of those that are not.
    pub fn header_lines(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}

/// Whether it makes sense to call [`parse_head`] again, after it needed more than the first
/// `seen` bytes of `input`.
///
/// Without a further LF a head can't have become complete, and what else is wrong with it can
/// wait for the line's end. So a client that sends byte by byte costs a parse a line, not one a
/// byte.
pub fn is_worth_parsing(input: &[u8], seen: usize, limits: &HeadLimits) -> bool {
    let fresh = input.get(seen..).unwrap_or_default();
    seen == 0 || input.len() >= limits.head_bytes_max || memchr::memchr(b'\n', fresh).is_some()
}

/// Parses the head at the start of `input`.
///
/// A body that is not all there yet, or is to be decoded in place, can't be waited for with the
/// [`Head`] in hand, which borrows the buffer. Parsing the first [`Head::len`] bytes again later
/// gives the same head.
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
    // RFC 9112, section 2.2: one blank line is ignored, more are refused.
    if matches!(bytes.first(), Some(b'\n')) || blank > 0 && matches!(bytes.first(), Some(b'\r')) {
        return Parsed::Refused(Refusal::BadRequestLine);
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
        Err(error) => broken(bytes, error, &request),
    }
}

/// The head's syntax is right, but for line ends; the first `len` of `bytes` are the head.
#[inline]
fn conclude<'s, 'a: 's>(bytes: &'a [u8], len: usize, request: httparse::Request<'s, 'a>) -> Result<Head<'s>, Refusal> {
    // The request line, the fields, the empty line: see the top of this file.
    let lines = request.headers.len() + 2;
    let head = bytes.get(..len).unwrap_or(bytes);
    if memchr::memchr_iter(b'\r', head).count() != lines {
        return Err(Refusal::BadLineEnd);
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let head = accept_head(method, target, request.version.unwrap_or(1), request.headers)?;
    Ok(Head { len, ..head })
}

/// The head of a request that another has taken apart; its [`Head::len`] is 0. `minor` is the digit
/// behind `HTTP/1.`.
///
/// # Errors
///
/// What is refused although `httparse` took it, but for line ends, which can't be seen any more.
#[inline]
pub fn accept_head<'s>(
    method: &'s str,
    target: &'s str,
    minor: u8,
    headers: &'s [httparse::Header<'s>],
) -> Result<Head<'s>, Refusal> {
    let method = method_of(method).ok_or(Refusal::UnknownMethod)?;
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
        len: 0,
        headers,
    })
}

/// Method names know upper and lower case (RFC 9110, section 9.1).
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

/// The end is not here yet; a bare LF may be, and then the end need not be waited for.
#[cold]
fn incomplete<T>(bytes: &[u8]) -> Parsed<T> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    if lines.any(|line| line.ends_with(b"\n") && !line.ends_with(b"\r\n")) {
        return Parsed::Refused(Refusal::BadLineEnd);
    }
    Parsed::NeedMore
}

/// All the bytes that a head may have are here, and no end among them. RFC 9112, section 3, has
/// different answers for a long target and a long method.
#[cold]
fn too_large(bytes: &[u8]) -> Refusal {
    if memchr::memchr(b'\n', bytes).is_some() {
        Refusal::HeadTooLarge
    } else if memchr::memchr(b' ', bytes).is_some() {
        Refusal::TargetTooLong
    } else {
        Refusal::UnknownMethod
    }
}

/// Names what `httparse` found. `request` tells how far it came.
#[cold]
fn broken<T>(bytes: &[u8], error: httparse::Error, request: &httparse::Request<'_, '_>) -> Parsed<T> {
    Parsed::Refused(match (error, request.method, request.path) {
        (httparse::Error::TooManyHeaders, ..) => Refusal::TooManyHeaders,
        (httparse::Error::HeaderName | httparse::Error::HeaderValue, ..) => Refusal::BadHeader,
        (httparse::Error::NewLine, ..) => Refusal::BadLineEnd,
        (httparse::Error::Version, Some(method), Some(target)) => {
            let at = method.len() + target.len() + 2;
            return foreign_version(bytes.get(at..).unwrap_or_default());
        }
        (httparse::Error::Token, Some(_), None) => Refusal::BadTarget,
        _ => Refusal::BadRequestLine,
    })
}

/// Tells a version that is not spoken here from what is no version (RFC 9112, section 2.3).
/// `bytes` begin behind the target, and are not HTTP/1.0 or HTTP/1.1.
fn foreign_version<T>(bytes: &[u8]) -> Parsed<T> {
    let shape = b"HTTP/0.0";
    let fits = shape.iter().zip(bytes).all(|(&wanted, &byte)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == wanted,
    });
    match fits {
        false => Parsed::Refused(Refusal::BadRequestLine),
        true if bytes.len() < shape.len() => Parsed::NeedMore,
        true => Parsed::Refused(Refusal::UnsupportedVersion),
    }
}

#[cfg(test)]
mod tests;
