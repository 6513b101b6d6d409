//! One connection's state machine: decides what the bytes that arrived mean, keeps the replies in
//! order, and calls the leaves. It owns no socket and no buffer of its own, so that every input
//! can be split at every byte in a test.
//!
//! ```text
//!           head complete              body complete
//!   Head ─────────────────▶ Body ─────────────────────▶ Head …
//!     │ refused              │ refused
//!     └──────────▶ Closing ◀─┘        (nothing more is read; replies still leave, in order)
//! ```

mod replies;

use std::ops::Range;

pub use replies::{Committed, Replies};
pub(crate) use replies::{ReplyOptions, Wire};
#[cfg(feature = "engine-may")]
pub(crate) use replies::{spell_out, write as write_reply};

use crate::api::{Answer, Fault, Reply, Route};
use crate::http::{self, ChunkDecoder, DateCache, Framing, HeadLimits, HttpRefusal, Parsed, Status};
use crate::limits;

/// What a connection needs from the worker that serves it.
pub trait Service {
    /// What a head asks for.
    fn route(&self, head: &http::Head<'_>) -> Route;
    /// False while there is no place for the events of another request: stop reading.
    fn has_room(&self) -> bool;
    /// Serves a request whose body is complete.
    fn serve(&mut self, route: Route, body: &[u8]) -> Answer;
}

/// Bounds of what a peer controls.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Of heads.
    pub head: HeadLimits,
    /// Bytes of a body, decoded.
    pub body_bytes_max: u64,
}

/// What is left of the input after [`Connection::receive`].
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// The part of the input that must be there again, at the front, at the next call.
    pub kept: Range<usize>,
    /// Bytes that the request is known to have in all; 0 when unknown.
    pub expected: usize,
}

/// What a connection waits for, and so which time-out counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// A commit, or the peer to read its replies.
    Reply,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Connection {
    stage: Stage,
    /// Bytes of an incomplete head that were looked at; 0 without one.
    partial_head: usize,
    paused: bool,
    refused: bool,
    replies: Replies,
    finished: bool,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Head,
    Body(Request),
    Closing,
}

/// A request whose head is read. `head_len` and `body_len` count from the front of its input.
#[derive(Debug)]
struct Request {
    route: Route,
    options: ReplyOptions,
    head_len: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked { decoder: ChunkDecoder, len: usize },
}

enum Advance {
    Consumed(usize),
    NeedMore { keep: usize, expected: usize },
}

impl Connection {
    /// Takes the bytes that arrived, behind those that were kept, and serves every request in
    /// them that is complete.
    pub fn receive<S: Service>(&mut self, input: &mut [u8], limits: &RequestLimits, service: &mut S) -> Received {
        let mut start = 0;
        self.paused = false;
        while let Some(rest) = input.get_mut(start..).filter(|rest| !rest.is_empty()) {
            if matches!(self.stage, Stage::Closing) {
                break;
            }
            if self.replies.len() >= limits::PIPELINED_REQUESTS_MAX || !service.has_room() {
                self.paused = true;
                return Received { kept: start..input.len(), expected: 0 };
            }
            match self.step(rest, limits, service) {
                Advance::Consumed(len) => start += len,
                Advance::NeedMore { keep, expected } => {
                    return Received { kept: start..start + keep, expected };
                }
            }
        }
        self.partial_head = 0;
        Received { kept: 0..0, expected: 0 }
    }

    /// The replies, to release those whose batch or segment is decided.
    pub fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// Appends to `out` every reply whose turn it is; `sent` gets the status of each. With `last`
    /// the connection says that it closes.
    pub fn render(&mut self, out: &mut Vec<u8>, date: &DateCache, last: bool, mut sent: impl FnMut(Status)) {
        while let Some((wire, mut options)) = self.replies.next() {
            let Wire::Reply(reply) = &wire else {
                out.extend_from_slice(http::CONTINUE);
                continue;
            };
            options.close |= last && self.replies.is_empty() && !matches!(self.stage, Stage::Body(_));
            sent(replies::write(out, reply, options, date));
            if options.close {
                self.replies.clear();
                self.stage = Stage::Closing;
                self.finished = true;
                return;
            }
        }
        // The peer ended its side, and now has everything.
        self.finished |= matches!(self.stage, Stage::Closing) && self.replies.is_empty();
    }

    /// Refuses whatever comes: this reply, behind those that wait, is the last one.
    pub fn refuse(&mut self, fault: Fault) {
        self.stage = Stage::Closing;
        self.refused = true;
        self.replies.push(Answer::Now(Reply::Fault(fault)), ReplyOptions::LAST);
    }

    /// The peer ended its side: nothing more arrives, replies still leave.
    pub fn end_of_input(&mut self) {
        self.stage = Stage::Closing;
        self.finished = self.replies.is_empty();
    }

    /// True once the last reply is rendered: close when it is written.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// True when a request must not be read now.
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing)
    }

    /// True when there was no room at the last [`Connection::receive`]: what it kept may hold
    /// complete requests.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// True when a request was refused before it was read: the peer may still be sending it.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// Bytes that the request under way is known to have in all; 0 when unknown.
    pub fn expected(&self) -> usize {
        match &self.stage {
            Stage::Body(request) => request.expected(),
            Stage::Head | Stage::Closing => 0,
        }
    }

    /// True when no request is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting() == Waiting::Request
    }

    /// What it waits for.
    pub fn waiting(&self) -> Waiting {
        match &self.stage {
            // The peer has done its part.
            _ if self.paused => Waiting::Reply,
            Stage::Body(_) => Waiting::Body,
            Stage::Head if self.partial_head > 0 => Waiting::Head,
            _ if !self.replies.is_empty() => Waiting::Reply,
            Stage::Head => Waiting::Request,
            Stage::Closing => Waiting::Reply,
        }
    }

    fn step<S: Service>(&mut self, input: &mut [u8], limits: &RequestLimits, service: &mut S) -> Advance {
        let total = input.len();
        let request = match &mut self.stage {
            Stage::Body(request) => request,
            Stage::Closing => return Advance::Consumed(total),
            Stage::Head if !http::is_worth_parsing(input, self.partial_head, &limits.head) => {
                return Advance::NeedMore { keep: total, expected: 0 };
            }
            Stage::Head => match self.read_head(input, limits, service) {
                Ok(Some(request)) => {
                    self.partial_head = 0;
                    self.stage = Stage::Body(request);
                    // Straight on to the body, which is usually there already.
                    return self.step(input, limits, service);
                }
                Ok(None) => {
                    self.partial_head = total;
                    return Advance::NeedMore { keep: total, expected: 0 };
                }
                Err(fault) => {
                    self.refuse(fault);
                    return Advance::Consumed(total);
                }
            },
        };
        match request.read_body(input, limits) {
            Ok(Parsed::Done((body, consumed))) => {
                let (route, options) = (request.route, request.options);
                self.stage = if options.close { Stage::Closing } else { Stage::Head };
                let answer = match route {
                    Route::Refuse(fault) => Answer::Now(Reply::Fault(fault)),
                    route => service.serve(route, input.get(body).unwrap_or_default()),
                };
                self.replies.push(answer, options);
                Advance::Consumed(consumed)
            }
            Ok(Parsed::NeedMore) => Advance::NeedMore { keep: request.kept(total), expected: request.expected() },
            Ok(Parsed::Refused(refusal)) | Err(refusal) => {
                self.refuse(refusal.into());
                Advance::Consumed(total)
            }
        }
    }

    /// The request of a complete head, or nothing when the head isn't complete.
    fn read_head<S: Service>(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        service: &S,
    ) -> Result<Option<Request>, Fault> {
        let mut slots = http::NO_HEADERS;
        let head = match http::parse_head(input, &limits.head, &mut slots) {
            Parsed::Done(head) => head,
            Parsed::NeedMore => return Ok(None),
            Parsed::Refused(refusal) => return Err(refusal.into()),
        };
        let route = service.route(&head);
        let body = match head.framing {
            Framing::Length(len) if len > limits.body_bytes_max => return Err(HttpRefusal::BodyTooLarge.into()),
            Framing::Length(len) => Body::Length(usize::try_from(len).map_err(|_| HttpRefusal::BodyTooLarge)?),
            Framing::Chunked => Body::Chunked { decoder: ChunkDecoder::default(), len: 0 },
        };
        let whole = matches!(body, Body::Length(len) if input.len() >= head.len.saturating_add(len));
        if head.expect_continue && !whole {
            // A client that waits for leave to send can be told at once that it has none; what it
            // does with its body then can't be known, so the connection ends (RFC 9110, 10.1.1).
            if let Route::Refuse(fault) = route {
                return Err(fault);
            }
            self.replies.push_continue();
        }
        Ok(Some(Request { route, options: ReplyOptions::of(&head), head_len: head.len, body }))
    }
}

impl Request {
    /// The body's place in the input and the length of the whole request, once it is complete. A
    /// chunked body is decoded in place: behind the head lies what is decoded of it.
    fn read_body(
        &mut self,
        input: &mut [u8],
        limits: &RequestLimits,
    ) -> Result<Parsed<(Range<usize>, usize)>, HttpRefusal> {
        let start = self.head_len;
        match &mut self.body {
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

    /// How much of `total` bytes of input is worth keeping: not the framing of decoded chunks.
    fn kept(&self, total: usize) -> usize {
        match &self.body {
            Body::Length(_) => total,
            Body::Chunked { len, .. } => self.head_len + len,
        }
    }

    fn expected(&self) -> usize {
        match &self.body {
            Body::Length(len) => self.head_len + len,
            Body::Chunked { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests;
