//! The header fields that determine framing, persistence and content coding. One pass over the
//! fields interprets them; the values of all other fields are left as they are.

use super::target::is_host;
use super::{HttpRefusal, Version};

/// How the length of a body is determined (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`, in bytes; 0 when the request has no body.
    Length(u64),
    /// By the chunked transfer coding, see [`super::ChunkDecoder`].
    Chunked,
}

/// What `Content-Encoding` says about a body (RFC 9110, section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentCoding {
    /// No coding.
    #[default]
    Identity,
    /// One coding that this server knows.
    Coded(Coding),
    /// Any other coding, or more than one.
    Unsupported,
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, or its old name `x-gzip`.
    Gzip,
    /// The zlib format (RFC 1950); raw DEFLATE (RFC 1951) is accepted, too.
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
}

impl ContentCoding {
    /// The coding after another element of the list, which may be on a line of its own. Empty elements
    /// are skipped (RFC 9110, section 5.6.1), and `identity` is none.
    fn and(self, element: &[u8]) -> Self {
        const NAMES: [(&[u8], Coding); 5] = [
            (b"gzip", Coding::Gzip),
            (b"zstd", Coding::Zstd),
            (b"br", Coding::Br),
            (b"deflate", Coding::Deflate),
            (b"x-gzip", Coding::Gzip),
        ];
        if element.is_empty() || element.eq_ignore_ascii_case(b"identity") {
            return self;
        }
        let known = NAMES.iter().find(|(name, _)| element.eq_ignore_ascii_case(name));
        match (self, known) {
            (Self::Identity, Some((_, coding))) => Self::Coded(*coding),
            _ => Self::Unsupported,
        }
    }
}

/// The values collected in the pass over the header fields; [`Fields::conclude`] combines them.
#[derive(Default)]
pub(super) struct Fields<'a> {
    has_host: bool,
    content_length: Option<u64>,
    transfer_codings: TransferCodings,
    content_coding: ContentCoding,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    idempotency_key: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
}

/// What the header fields mean together for one request.
pub(super) struct Facts<'a> {
    pub(super) framing: Framing,
    pub(super) content_coding: ContentCoding,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    pub(super) idempotency_key: Option<&'a [u8]>,
    pub(super) request_id: Option<&'a [u8]>,
    pub(super) origin: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Collects one field. Names are distinguished by length first, so that a field that is not
    /// collected usually costs one comparison.
    #[inline]
    pub(super) fn note(&mut self, name: &str, value: &'a [u8]) -> Result<(), HttpRefusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                if self.has_host || !is_host(value) {
                    return Err(HttpRefusal::BadHost);
                }
                self.has_host = true;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HttpRefusal::BadExpectation);
                }
                self.expect_continue = true;
            }
            6 if name.eq_ignore_ascii_case("origin") => {
                // RFC 6454, section 7.3: one. A repeated field is nobody's origin.
                self.origin = Some(if self.origin.is_none() { value } else { b"" });
            }
            10 if name.eq_ignore_ascii_case("connection") => self.note_connection(value),
            12 if name.eq_ignore_ascii_case("x-request-id") => {
                self.request_id = Some(if self.request_id.is_none() { value } else { b"" });
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                if self.content_length.is_some() {
                    return Err(HttpRefusal::BadContentLength);
                }
                self.content_length = Some(decimal(value).ok_or(HttpRefusal::BadContentLength)?);
            }
            15 if name.eq_ignore_ascii_case("idempotency-key") => {
                // A repeated field is ambiguous. The empty key that replaces it is refused by the api.
                self.idempotency_key = Some(if self.idempotency_key.is_none() { value } else { b"" });
            }
            16 if name.eq_ignore_ascii_case("content-encoding") => {
                let elements = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                self.content_coding = elements.fold(self.content_coding, ContentCoding::and);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                self.transfer_codings.note(value);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9110, section 7.6.1: `Connection` is a list, possibly over several lines. All options but
    /// these two are ignored.
    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Combines the collected fields for a request of this version.
    #[inline]
    pub(super) fn conclude(self, version: Version) -> Result<Facts<'a>, HttpRefusal> {
        if version == Version::Http11 && !self.has_host {
            return Err(HttpRefusal::MissingHost);
        }
        let framing = match (self.content_length, self.transfer_codings.count) {
            (Some(_), 1..) => return Err(HttpRefusal::BothLengths),
            (None, 1..) => self.transfer_codings.framing(version)?,
            (length, 0) => Framing::Length(length.unwrap_or(0)),
        };
        // RFC 9112, section 9.3.
        let keep_alive = match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        };
        // RFC 9110, section 10.1.1: the expectation is ignored in HTTP/1.0 requests and in requests
        // without content.
        let expect_continue = self.expect_continue && version == Version::Http11 && framing != Framing::Length(0);
        Ok(Facts {
            framing,
            content_coding: self.content_coding,
            keep_alive,
            expect_continue,
            idempotency_key: self.idempotency_key,
            request_id: self.request_id,
            origin: self.origin,
        })
    }
}

/// `1*DIGIT` that fits 64 bits (RFC 9110, section 8.6), without sign, list or white space.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The list of all `Transfer-Encoding` lines: lines are one list (RFC 9110, section 5.3).
#[derive(Default)]
struct TransferCodings {
    count: usize,
    /// True when the last coding so far is `chunked`.
    ends_chunked: bool,
    /// True when a coding follows `chunked`.
    has_chunked_before: bool,
    /// True while there is nothing but an empty line.
    is_empty: bool,
}

impl TransferCodings {
    fn note(&mut self, value: &[u8]) {
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.is_empty = self.count == 0 && coding.is_empty();
            self.count += 1;
            self.has_chunked_before |= self.ends_chunked;
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
        }
    }

    /// Accepts `chunked` alone (RFC 9112, section 6.1). A coding that another server may support is 501;
    /// a list that does not determine the end of the body is 400.
    fn framing(&self, version: Version) -> Result<Framing, HttpRefusal> {
        if version == Version::Http10 || self.is_empty || self.has_chunked_before {
            return Err(HttpRefusal::BadTransferCoding);
        }
        if self.ends_chunked && self.count == 1 {
            return Ok(Framing::Chunked);
        }
        Err(HttpRefusal::UnsupportedTransferCoding)
    }
}
