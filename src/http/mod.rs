//! HTTP/1.1 as bytes: a slice goes in; what was used up and views of it come out.
//!
//! | file | |
//! |---|---|
//! | [`head`](parse_head) | request line and header fields → [`Head`] |
//! | `fields` | the header fields that decide about framing and persistence |
//! | `target` | the request target and the host |
//! | [`body`](ChunkDecoder) | the chunked transfer coding, decoded in place |
//! | [`query`](query_pairs) | query parameters, escapes of a path |
//! | [`response`](Response) | a whole response, appended to the caller's buffer |
//! | [`date`](DateCache) | the `Date` field, rendered once a second |
//! | [`status`](Status), [`refusal`](Refusal) | the two tables |
//!
//! A parser has three outcomes, see [`Parsed`]: the bytes are not all here yet is no error.
//!
//! **Absent on purpose.** Sockets, clocks, time-outs and buffers: the connection has them. Routes,
//! keys and the meaning of a body: the api has them. Upgrades, `CONNECT`, trailers as something
//! to look at, multipart, ranges, conditional requests: an event needs none of them. Leniency:
//! where RFC 9112 lets a server choose between guessing and refusing, this one refuses, because
//! a guess that a proxy in front makes differently is a smuggled request.
//!
//! **Invariant.** Every [`Refusal`] ends its connection: after it nobody knows where the next
//! request would begin.

mod body;
mod date;
mod fields;
mod head;
mod query;
mod refusal;
mod response;
mod status;
mod target;

pub use body::{ChunkDecoder, Decoded};
pub use date::DateCache;
pub use fields::{ContentCoding, Framing};
pub use head::{
    Head, HeadLimits, HeaderSlot, HeaderSlots, Method, NO_HEADERS, Version, accept_head, is_worth_parsing, parse_head,
};
pub use query::{plain_path, query_pairs};
pub use refusal::Refusal;
pub use response::{CONTINUE, Response};
pub use status::Status;

/// What a parser says about the bytes that it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// All of it is here.
    Done(T),
    /// So far it is right, and not yet all here.
    NeedMore,
    /// No continuation makes it right.
    Refused(Refusal),
}
