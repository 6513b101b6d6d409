//! The state machine of one connection: it splits the received bytes into requests, passes them to a
//! [`Service`], and keeps the replies in the order of the requests. It has no socket and no buffer, so
//! that tests can split every input at every byte.
//!
//! ```text
//!           head complete              body complete
//!   Head ─────────────────▶ Body ─────────────────────▶ Head …
//!     │ refused              │ refused
//!     └──────────▶ Closing ◀─┘        (no more input is read; pending replies are sent in order)
//! ```
//!
//! A request that the service has not finished stays complete in `Body`: its input is kept, nothing is
//! read, and [`Connection::receive`] passes it to the service again.

mod replies;
mod request;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

pub use replies::{Committed, Replies};
pub(crate) use replies::{ReplyOptions, Wire};
#[cfg(feature = "engine-may")]
pub(crate) use replies::{spell_out, write as write_reply};

use request::{Body, Request};

use crate::api::{Answer, Fault, Rendering, Reply, ReplyFields, RequestValues, Route};
use crate::http::{self, ChunkDecoder, Framing, HeadLimits, HttpRefusal, Parsed, Status};
use crate::limits;

/// What serves the requests of a connection.
pub trait Service {
    /// Selects the operation of a request by its head.
    fn route(&self, head: &http::Head<'_>) -> Route;
    /// The address of the client who has sent a request with this head; none when it is not known.
    fn client_address(&self, head: &http::Head<'_>) -> Option<IpAddr>;
    /// The fields of the reply to a request with these values of `Origin` and `X-Request-Id`.
    fn fields(&self, origin: Option<&[u8]>, request_id: Option<&[u8]>) -> ReplyFields;
    /// False while no batch has space for another request of so many bytes: the connection stops reading.
    fn has_room(&self, bytes: usize) -> bool;
    /// What the columns of the route's table get of a head, if that is anything; the reply's `fields` get the
    /// request's identity if a column gets it.
    fn values(&self, _: Route, _: &http::Head<'_>, _: &mut ReplyFields) -> Option<Arc<RequestValues>> {
        None
    }
    /// Serves a request whose body is complete. Until it is answered, the connection passes the same
    /// request again. `fields` go out with the reply.
    fn serve(&mut self, route: Route, client: Client<'_>, body: &[u8], fields: &mut ReplyFields) -> Served;
}

/// What a request's head says beside its route.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// See [`Service::client_address`].
    pub address: Option<IpAddr>,
    /// See [`Service::values`].
    pub values: Option<&'a Arc<RequestValues>>,
}

/// The result of [`Service::serve`].
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// The request is served.
    Answered(Answer),
    /// The request is not served yet.
    Unfinished(Unfinished),
}

/// When a request that is not served yet is passed to the service again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// In the next turn.
    NextTurn,
    /// When the requests before it in the worker's line are served.
    InLine,
}

/// Limits of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Limits of the head.
    pub head: HeadLimits,
    /// Bytes of the body, without the framing of the chunked transfer coding.
    pub body_bytes_max: u64,
    /// Requests of one connection; the reply to the last one closes it.
    pub requests_max: Option<NonZeroU64>,
}

/// The result of [`Connection::receive`].
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// The range of the input that the caller keeps: the next call's input begins with these bytes.
    pub kept: Range<usize>,
    /// Bytes of the whole incomplete request; 0 when not known.
    pub expected: usize,
}

/// What a connection waits for, which selects its time-out.
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

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    stage: Stage,
    /// Bytes of an incomplete head that were parsed; 0 when no head has begun.
    partial_head: usize,
    /// The last [`Connection::receive`] stopped before the end of its input.
    paused: bool,
    /// It is paused for the want of a place for events, not of one for replies.
    lacks_room: bool,
    /// Requests whose head is read, to tell one from the next.
    requests: u64,
    /// The request that is read asks for a reply without content: its method is HEAD.
    head_only: bool,
    /// The server has ended the connection by itself: a request was refused before it was read, or it was
    /// the last one.
    ended_by_us: bool,
    replies: Replies,
    /// The last reply is rendered.
    finished: bool,
}

/// The part of a request that is read next.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Head,
    Body(Request),
    Closing,
}

/// The result of one step of the state machine.
enum Advance {
    /// The first bytes of the input, this many, are consumed.
    Consumed(usize),
    /// The request is incomplete: the first `keep` bytes of the input are kept.
    NeedMore {
        keep: usize,
        expected: usize,
    },
    NoRoom,
    /// The request at the front of the input is for the next turn.
    Unfinished,
}

impl Connection {
    /// Processes `input`, which is the kept bytes followed by the new ones, and serves the complete
    /// requests in it, at most [`limits::VISIT_REQUESTS_MAX`].
    pub fn receive<S: Service>(&mut self, input: &mut [u8], limits: &RequestLimits, service: &mut S) -> Received {
        let (mut start, mut served) = (0, 0);
        (self.paused, self.lacks_room) = (false, false);
        while let Some(rest) = input.get_mut(start..).filter(|rest| !rest.is_empty()) {
            if matches!(self.stage, Stage::Closing) {
                break;
            }
            // A request that is not finished had room when it was begun.
            let has_room = self.has_room_for_replies() || self.unfinished().is_some();
            let advance = match (served < limits::VISIT_REQUESTS_MAX, has_room) {
                (false, _) => Advance::Unfinished,
                (true, false) => Advance::NoRoom,
                (true, true) => self.step(rest, limits, service),
            };
            match advance {
                Advance::Consumed(len) => (start, served) = (start + len, served + 1),
                Advance::NeedMore { keep, expected } => {
                    return Received { kept: start..start + keep, expected };
                }
                stopped @ (Advance::Unfinished | Advance::NoRoom) => {
                    self.paused = true;
                    self.lacks_room = matches!(stopped, Advance::NoRoom) && self.has_room_for_replies();
                    return Received { kept: start..input.len(), expected: 0 };
                }
            }
        }
        self.partial_head = 0;
        Received { kept: 0..0, expected: 0 }
    }

    /// False while as many replies wait as may wait: nothing more is read before one of them leaves.
    pub fn has_room_for_replies(&self) -> bool {
        self.replies.len() < limits::PIPELINED_REQUESTS_MAX && self.replies.bytes() < limits::WAITING_REPLIES_BYTES_MAX
    }

    /// How many requests were begun: the number of the one under way.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The pending replies, to release those whose batch is committed or whose block is inserted.
    pub fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// Renders every reply that may be sent now to `out`, and calls `sent` with the status of each. If
    /// `last` is set and no body is being read, the last pending reply closes the connection.
    pub fn render(&mut self, out: &mut Vec<u8>, with: &Rendering<'_>, last: bool, mut sent: impl FnMut(Status)) {
        while let Some((wire, mut options, fields)) = self.replies.next() {
            let Wire::Reply(reply) = &wire else {
                out.extend_from_slice(http::CONTINUE);
                continue;
            };
            options.close |= last && self.replies.is_empty() && !matches!(self.stage, Stage::Body(_));
            sent(replies::write(out, reply, options, with.date, |status, out| {
                fields.append_to(out, reply, status, with);
            }));
            if options.close {
                self.replies.clear();
                self.stage = Stage::Closing;
                self.finished = true;
                return;
            }
        }
        // The peer has closed its side, and every reply is rendered.
        self.finished |= matches!(self.stage, Stage::Closing) && self.replies.is_empty();
    }

    /// Refuses all further input. `fault` is the last reply, after the pending ones.
    pub fn refuse(&mut self, fault: Fault) {
        let fields = match std::mem::replace(&mut self.stage, Stage::Closing) {
            Stage::Body(request) => request.fields,
            Stage::Head | Stage::Closing => ReplyFields::default(),
        };
        self.refuse_with(fault, fields);
    }

    fn refuse_with(&mut self, fault: Fault, fields: ReplyFields) {
        self.stage = Stage::Closing;
        self.ended_by_us = true;
        let options = ReplyOptions { head_only: self.head_only, ..ReplyOptions::LAST };
        self.replies.push(Answer::Now(Reply::Fault(fault)), options, fields);
    }

    /// Ends the input: the peer has closed its side. Pending replies are still sent.
    pub fn end_of_input(&mut self) {
        self.stage = Stage::Closing;
        self.finished = self.replies.is_empty();
    }

    /// True once the last reply is rendered: the caller closes the connection when it is sent.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// True when no further request is read.
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing)
    }

    /// True when the last [`Connection::receive`] stopped for lack of room for a request or a reply, or had
    /// served as many as it may: the kept input may contain complete requests.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// When the request under way is passed to the service again; `None` when none was passed yet.
    pub fn unfinished(&self) -> Option<Unfinished> {
        match &self.stage {
            Stage::Body(request) => request.unfinished,
            Stage::Head | Stage::Closing => None,
        }
    }

    /// True when it is paused until there is a place for the events of the request under way.
    pub fn lacks_room(&self) -> bool {
        self.lacks_room
    }

    /// True when the server has ended the connection without having read all that the peer may be sending:
    /// a request was refused before it was read, or was the last one by number.
    pub fn may_have_more_input(&self) -> bool {
        self.ended_by_us
    }

    /// The length of the body under way, as far as it is known: what is announced, or what of a chunked
    /// one has come.
    pub fn body_len(&self) -> usize {
        match &self.stage {
            Stage::Body(Request { body: Body::Length(len) | Body::Chunked { len, .. }, .. }) => *len,
            Stage::Body(Request { body: Body::Complete { range, .. }, .. }) => range.len(),
            Stage::Head | Stage::Closing => 0,
        }
    }

    /// Bytes of the whole request whose body is being read; 0 when not known.
    pub fn expected(&self) -> usize {
        match &self.stage {
            Stage::Body(request) => request.expected(),
            Stage::Head | Stage::Closing => 0,
        }
    }

    /// True when no request has begun and no reply is pending.
    pub fn is_idle(&self) -> bool {
        self.waiting() == Waiting::Request
    }

    /// What the connection waits for.
    pub fn waiting(&self) -> Waiting {
        match &self.stage {
            // The server waits for its own resources, not for the peer's input.
            _ if self.paused => Waiting::Reply,
            Stage::Body(_) => Waiting::Body,
            Stage::Head if self.partial_head > 0 => Waiting::Head,
            _ if !self.replies.is_empty() => Waiting::Reply,
            Stage::Head => Waiting::Request,
            Stage::Closing => Waiting::Reply,
        }
    }

    /// Reads one head or body from the front of `input`, and serves the request when it is complete.
    fn step<S: Service>(&mut self, input: &mut [u8], limits: &RequestLimits, service: &mut S) -> Advance {
        let total = input.len();
        let request = match &mut self.stage {
            Stage::Body(request) => request,
            Stage::Closing => return Advance::Consumed(total),
            Stage::Head if !http::is_worth_parsing(input, self.partial_head, &limits.head) => {
                return Advance::NeedMore { keep: total, expected: 0 };
            }
            Stage::Head => match self.read_head(input, limits, service) {
                Ok(Some(mut request)) => {
                    self.partial_head = 0;
                    self.requests += 1;
                    if limits.requests_max.is_some_and(|max| self.requests >= max.get()) {
                        request.options.close = true;
                        self.ended_by_us = true;
                    }
                    self.stage = Stage::Body(request);
                    // The body has usually arrived with the head.
                    return self.step(input, limits, service);
                }
                Ok(None) => {
                    self.partial_head = total;
                    return Advance::NeedMore { keep: total, expected: 0 };
                }
                Err((fault, fields)) => {
                    self.refuse_with(fault, fields);
                    return Advance::Consumed(total);
                }
            },
        };
        // Only events need room: whoever asks for health is answered whatever waits.
        if matches!(request.route, Route::Events(_)) && !service.has_room(request.len()) {
            return Advance::NoRoom;
        }
        match request.read_body(input, limits) {
            Ok(Parsed::Done((body, consumed))) => {
                let (route, options) = (request.route, request.options);
                let client = Client { address: request.client_address, values: request.values.as_ref() };
                let served = match route {
                    Route::Refuse(fault) => Served::Answered(Answer::Now(Reply::Fault(fault))),
                    route => {
                        let body = input.get(body.clone()).unwrap_or_default();
                        service.serve(route, client, body, &mut request.fields)
                    }
                };
                let answer = match served {
                    Served::Answered(answer) => answer,
                    Served::Unfinished(unfinished) => {
                        request.body = Body::Complete { range: body, end: consumed };
                        request.unfinished = Some(unfinished);
                        return Advance::Unfinished;
                    }
                };
                let fields = std::mem::take(&mut request.fields);
                self.stage = if options.close { Stage::Closing } else { Stage::Head };
                self.head_only = false;
                self.replies.push(answer, options, fields);
                Advance::Consumed(consumed)
            }
            Ok(Parsed::NeedMore) => Advance::NeedMore { keep: request.kept(total), expected: request.expected() },
            Ok(Parsed::Refused(refusal)) | Err(refusal) => {
                self.refuse(refusal.into());
                Advance::Consumed(total)
            }
        }
    }

    /// Parses the head at the front of `input`; `None` when it is incomplete.
    fn read_head<S: Service>(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        service: &S,
    ) -> Result<Option<Request>, (Fault, ReplyFields)> {
        // Known before the head is complete, or valid (RFC 9110, section 9.3.2).
        self.head_only = input.strip_prefix(b"\r\n").unwrap_or(input).starts_with(b"HEAD ");
        let mut slots = http::NO_HEADERS;
        let head = match http::parse_head(input, &limits.head, &mut slots) {
            Parsed::Done(head) => head,
            Parsed::NeedMore => return Ok(None),
            Parsed::Refused(refusal) => {
                let (origin, request_id) = http::fields_of_refused(input, &limits.head);
                return Err((refusal.into(), service.fields(origin, request_id)));
            }
        };
        let route = service.route(&head);
        let mut fields = service.fields(head.origin, head.request_id);
        let values = service.values(route, &head, &mut fields);
        let body = match head.framing {
            Framing::Length(len) => match usize::try_from(len) {
                Ok(length) if len <= limits.body_bytes_max => Body::Length(length),
                _ => return Err((HttpRefusal::BodyTooLarge.into(), fields)),
            },
            Framing::Chunked => Body::Chunked { decoder: ChunkDecoder::default(), len: 0 },
        };
        let whole = matches!(body, Body::Length(len) if input.len() >= head.len.saturating_add(len));
        if head.expect_continue && !whole {
            // A client that waits for 100 gets a refusal at once. It may send the body or not, so the
            // next request can't be found, and the connection is closed (RFC 9110, section 10.1.1).
            if let Route::Refuse(fault) = route {
                return Err((fault, fields));
            }
            self.replies.push_continue();
        }
        let (client_address, options) = (service.client_address(&head), ReplyOptions::of(&head));
        let head_len = head.len;
        Ok(Some(Request { route, client_address, values, options, fields, head_len, body, unfinished: None }))
    }
}

#[cfg(test)]
mod tests;
