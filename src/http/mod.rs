//! HTTP/1.1 parsing and rendering without I/O: a parser takes a slice and returns the number of bytes
//! it consumed and values that borrow from the slice.
//!
//! | file | |
//! |---|---|
//! | [`head`](parse_head) | request line and header fields → [`Head`] |
//! | `fields` | the header fields that determine framing, persistence and content coding |
//! | [`forwarded`](client_address) | the client's address behind proxies |
//! | `target` | the request target and the host |
//! | [`body`](ChunkDecoder) | the chunked transfer coding, decoded in place |
//! | [`coding`] | the content codings of a body |
//! | [`query`](query_pairs) | query parameters, escapes of a path |
//! | [`response`](Response) | a whole response, appended to the caller's buffer |
//! | [`date`](DateCache) | the `Date` field, rendered once a second |
//! | [`status`](Status), [`refusal`](HttpRefusal) | the tables of status codes and of refusals |
//!
//! A parser has three outcomes, see [`Parsed`]: incomplete input is not an error.
//!
//! **Absent on purpose.** Sockets, clocks, time-outs and buffers belong to `connection` and its
//! worker; routes, keys and the meaning of a body belong to `api`. Upgrades, `CONNECT`, access to
//! trailers, multipart, ranges and conditional requests are not needed to receive events. There is
//! no leniency: where RFC 9112 lets a server either repair a message or reject it, this server
//! rejects it, because a proxy in front may repair it differently, which is request smuggling.
//!
//! **Invariant.** Every [`HttpRefusal`] closes its connection: the start of the next request can't
//! be determined after it.

mod body;
pub mod coding;
mod date;
mod fields;
mod forwarded;
mod head;
mod query;
mod refusal;
mod response;
mod status;
mod target;

pub use body::{ChunkDecoder, Decoded};
pub use date::DateCache;
pub use fields::{Coding, ContentCoding, Framing};
pub use forwarded::client_address;
pub use head::{
    Head, HeadLimits, HeaderSlot, HeaderSlots, Method, NO_HEADERS, Version, accept_head, fields_of_refused,
    is_worth_parsing, parse_head,
};
pub use query::{has_repeated_name, plain_path, query_pairs};
pub use refusal::HttpRefusal;
pub use response::{CONTINUE, Response, push_field};
pub use status::Status;

/// The outcome of parsing a prefix of a connection's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The element is complete.
    Done(T),
    /// The input is valid so far and incomplete.
    NeedMore,
    /// The input is invalid whatever follows.
    Refused(HttpRefusal),
}
