//! A request whose head is complete, and its body as it comes in.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::{ReplyOptions, RequestLimits, Unfinished};
use crate::api::{ReplyFields, RequestValues, Route};
use crate::http::{ChunkDecoder, HttpRefusal, Parsed};

/// A request whose head is complete.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) route: Route,
    /// The client's address: the requests of one proxy's connection have different ones.
    pub(super) client_address: Option<IpAddr>,
    /// What the table's columns get of the head, if that is anything.
    pub(super) values: Option<Arc<RequestValues>>,
    pub(super) options: ReplyOptions,
    pub(super) fields: ReplyFields,
    /// Bytes of the head: the offset of the body in the request's input.
    pub(super) head_len: usize,
    pub(super) body: Body,
    /// The body is complete and the service has not answered.
    pub(super) unfinished: Option<Unfinished>,
}

/// A body that is being received.
#[derive(Debug)]
pub(super) enum Body {
    /// A body of this many bytes.
    Length(usize),
    /// A chunked body; `len` bytes of content are decoded.
    Chunked { decoder: ChunkDecoder, len: usize },
    /// A complete body in this range of the request's input; the request ends at `end`.
    Complete { range: Range<usize>, end: usize },
}

impl Request {
    /// The range of the body in the input and the length of the whole request, once the body is
    /// complete. A chunked body is decoded in place: its content follows the head.
    pub(super) fn read_body(
        &mut self,
        input: &mut [u8],
        limits: &RequestLimits,
    ) -> Result<Parsed<(Range<usize>, usize)>, HttpRefusal> {
        let start = self.head_len;
        match &mut self.body {
            Body::Complete { range, end } => Ok(Parsed::Done((range.clone(), *end))),
            Body::Length(len) => {
                let end = start.saturating_add(*len);
                Ok(if end <= input.len() { Parsed::Done((start..end, end)) } else { Parsed::NeedMore })
            }
            Body::Chunked { decoder, len } => {
                let raw_start = start + *len;
                let raw = input.get_mut(raw_start..).unwrap_or_default();
                let decoded = decoder.decode(raw)?;
                *len += decoded.written;
                if decoder.announced() > limits.body_bytes_max {
                    return Err(HttpRefusal::BodyTooLarge);
                }
                Ok(if decoded.done {
                    Parsed::Done((start..start + *len, raw_start + decoded.consumed))
                } else {
                    Parsed::NeedMore
                })
            }
        }
    }

    /// Its length, as far as it is known.
    pub(super) fn len(&self) -> usize {
        match self.body {
            Body::Length(len) | Body::Chunked { len, .. } => self.head_len.saturating_add(len),
            Body::Complete { end, .. } => end,
        }
    }

    /// The number of bytes to keep of `total` bytes of input: everything but the framing of decoded
    /// chunks.
    pub(super) fn kept(&self, total: usize) -> usize {
        match &self.body {
            Body::Length(_) | Body::Complete { .. } => total,
            Body::Chunked { len, .. } => self.head_len + len,
        }
    }

    /// Bytes of the whole request; 0 when not known.
    pub(super) fn expected(&self) -> usize {
        match &self.body {
            Body::Length(_) | Body::Complete { .. } => self.len(),
            Body::Chunked { .. } => 0,
        }
    }
}
