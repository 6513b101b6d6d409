//! The header fields that decide where a request ends, whether its connection lives on, and how
//! its body is packed. They are looked at in one pass; all others stay where they are.

use super::target::is_host;
use super::{Refusal, Version};

/// Where the body ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 when the request announces no body.
    Length(u64),
    /// Where the chunks say so, see [`super::ChunkDecoder`].
    Chunked,
}

/// How the content was packed (RFC 9110, section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// Not at all.
    Identity,
    /// `gzip`, or its old name `x-gzip`.
    Gzip,
    /// The zlib format, in spite of its name.
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// Something else, or more than one.
    Unsupported,
}

/// What the pass over the header fields has found; [`Fields::conclude`] draws the conclusions.
#[derive(Default)]
pub(super) struct Fields<'a> {
    has_host: bool,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a [u8]>,
    content_coding: Option<ContentCoding>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    idempotency_key: Option<&'a [u8]>,
}

/// The conclusions.
pub(super) struct Facts<'a> {
    pub(super) framing: Framing,
    pub(super) content_coding: ContentCoding,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    pub(super) idempotency_key: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Takes note of one field. The length of its name comes first, so that nearly every other
    /// field costs one comparison.
    #[inline]
    pub(super) fn note(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                if self.has_host || !is_host(value) {
                    return Err(Refusal::BadHost);
                }
                self.has_host = true;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::BadExpectation);
                }
                self.expect_continue = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => self.note_connection(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                if self.content_length.is_some() {
                    return Err(Refusal::BadContentLength);
                }
                self.content_length = Some(decimal(value).ok_or(Refusal::BadContentLength)?);
            }
            15 if name.eq_ignore_ascii_case("idempotency-key") => {
                // Of two nobody knows which one counts: the empty one is refused as no key.
                self.idempotency_key = Some(if self.idempotency_key.is_none() { value } else { b"" });
            }
            16 if name.eq_ignore_ascii_case("content-encoding") => {
                self.content_coding = Some(match self.content_coding {
                    None => content_coding(value),
                    Some(_) => ContentCoding::Unsupported,
                });
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.transfer_encoding.is_some() {
                    return Err(Refusal::BadTransferCoding);
                }
                self.transfer_encoding = Some(value);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9110, section 7.6.1: a list, possibly over several lines. Options other than these
    /// two ask for nothing that this server does.
    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// What the fields mean together, in a request of this version.
    #[inline]
    pub(super) fn conclude(self, version: Version) -> Result<Facts<'a>, Refusal> {
        if version == Version::Http11 && !self.has_host {
            return Err(Refusal::MissingHost);
        }
        let framing = match (self.content_length, self.transfer_encoding) {
            (Some(_), Some(_)) => return Err(Refusal::BothLengths),
            (None, Some(codings)) => chunked_only(codings, version)?,
            (length, None) => Framing::Length(length.unwrap_or(0)),
        };
        // RFC 9112, section 9.3.
        let keep_alive = match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        };
        // RFC 9110, section 10.1.1: HTTP/1.0 does not know it, and without content there is
        // nothing to continue with.
        let expect_continue = self.expect_continue && version == Version::Http11 && framing != Framing::Length(0);
        Ok(Facts {
            framing,
            content_coding: self.content_coding.unwrap_or(ContentCoding::Identity),
            keep_alive,
            expect_continue,
            idempotency_key: self.idempotency_key,
        })
    }
}

/// `1*DIGIT` that fits (RFC 9110, section 8.6). No sign, no list, no space.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 9112, section 6.1. Anything but `chunked` alone is refused; the table of statuses tells a
/// coding that could be right elsewhere (501) from a body that has no certain end (400).
fn chunked_only(codings: &[u8], version: Version) -> Result<Framing, Refusal> {
    if version == Version::Http10 {
        return Err(Refusal::BadTransferCoding);
    }
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let mut others = codings.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    others.next();
    if codings.is_empty() || others.any(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::BadTransferCoding);
    }
    Err(Refusal::UnsupportedTransferCoding)
}

/// RFC 9110, section 8.4.1. An empty list is no coding.
fn content_coding(value: &[u8]) -> ContentCoding {
    const NAMES: [(&[u8], ContentCoding); 7] = [
        (b"gzip", ContentCoding::Gzip),
        (b"zstd", ContentCoding::Zstd),
        (b"br", ContentCoding::Br),
        (b"deflate", ContentCoding::Deflate),
        (b"identity", ContentCoding::Identity),
        (b"x-gzip", ContentCoding::Gzip),
        (b"", ContentCoding::Identity),
    ];
    NAMES
        .iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name))
        .map_or(ContentCoding::Unsupported, |&(_, coding)| coding)
}
