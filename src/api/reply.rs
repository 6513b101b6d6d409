//! Replies of the public API, before they are rendered as HTTP.

use super::fault::{Fault, TOO_MANY_BAD_LINES};
use crate::batch::Sequence;
use crate::batch::identity::Summary;
use crate::http::Status;
use crate::ndjson::LineError;

/// A reply to a request, before it is rendered as HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 200: all lines were accepted, this many.
    Accepted(u32),
    /// A reply with this status and JSON body.
    Json(Status, Box<str>),
    /// An error reply.
    Fault(Fault),
    /// 204 to `OPTIONS`, with the value of `Allow`.
    Allow(&'static str),
    /// 204 to a preflight of a page, with the methods that it may use.
    Preflight(&'static str),
}

impl Reply {
    /// The reply to a repeated request, made of the remembered numbers of its first reply. The errors
    /// of rejected lines are not remembered. `now` is what the reply would be if the request were the first:
    /// the body is the same.
    pub fn remembered(summary: Summary, now: &Self) -> Self {
        let has_elements = match now {
            Self::Json(_, body) => body.contains(ELEMENTS),
            _ => false,
        };
        Self::of(summary, &[], has_elements)
    }

    /// Bytes that it takes beside its own place.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Json(_, body) => body.len(),
            Self::Accepted(_) | Self::Fault(_) | Self::Allow(_) | Self::Preflight(_) => 0,
        }
    }

    /// The reply to a request with these numbers and errors, of lines or of elements.
    pub(super) fn of(summary: Summary, errors: &[LineError], has_elements: bool) -> Self {
        match summary {
            Summary { refused: true, rejected, .. } => {
                Self::Json(TOO_MANY_BAD_LINES.status, refused_body(rejected, errors, has_elements))
            }
            Summary { accepted, rejected: 0, .. } if !has_elements => Self::Accepted(accepted),
            Summary { accepted, rejected, .. } => {
                let is_refused = accepted == 0 && rejected > 0;
                let status = if is_refused { Status::UnprocessableContent } else { Status::Ok };
                Self::Json(status, summary_body(accepted, rejected, errors, has_elements))
            }
        }
    }

    /// This reply as 202: the events are durable and not yet confirmed by ClickHouse.
    pub fn not_yet_inserted(&self) -> Self {
        let body = match self {
            Self::Accepted(accepted) => format!("{{\"accepted\":{accepted},\"rejected\":0,\"inserted\":false}}"),
            Self::Json(_, body) => format!("{},\"inserted\":false}}", body.strip_suffix('}').unwrap_or(body)),
            reply @ (Self::Fault(_) | Self::Allow(_) | Self::Preflight(_)) => return reply.clone(),
        };
        Self::Json(Status::Accepted, body.into())
    }
}

/// The acknowledgement that a client asks for (`ack` in the query): what the reply waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// The commit of the events, as durably as `--durability` says.
    #[default]
    Disk,
    /// The commit and then ClickHouse's confirmation of the INSERT. The reply is 202 if the
    /// confirmation takes longer than `--inserted-timeout`.
    Inserted,
}

/// A reply together with the time at which it may be sent. Replies of one connection are also sent in
/// the order of its requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply may be sent at once, because it does not acknowledge events.
    Now(Reply),
    /// The reply acknowledges events: it may be sent after their batch is committed.
    AfterCommit {
        /// The reply if the commit succeeds.
        reply: Reply,
        /// The batch that contains the events of the request.
        sequence: Sequence,
        /// Its place among the requests of the batch that have a key, if it has one.
        keyed: Option<usize>,
        /// What the reply waits for.
        ack: Ack,
    },
}

/// What the reply to an array has beside its numbers. Inside of a JSON string its quotes have backslashes.
const ELEMENTS: &str = ",\"elements\":true";

fn refused_body(rejected: u32, errors: &[LineError], has_elements: bool) -> Box<str> {
    let mut body = summary_body(0, rejected, errors, has_elements).into_string();
    body.pop();
    let Fault { code, message, .. } = TOO_MANY_BAD_LINES;
    body.push_str(&format!(",\"error\":{},\"message\":{}}}", json(code), json(message)));
    body.into_boxed_str()
}

fn summary_body(accepted: u32, rejected: u32, errors: &[LineError], has_elements: bool) -> Box<str> {
    let elements = if has_elements { ELEMENTS } else { "" };
    let mut body = format!("{{\"accepted\":{accepted},\"rejected\":{rejected}{elements}");
    if rejected > 0 {
        body.push_str(",\"errors\":");
        push_errors(&mut body, errors);
    }
    body.push('}');
    body.into_boxed_str()
}

fn push_errors(body: &mut String, errors: &[LineError]) {
    body.push('[');
    for (index, error) in errors.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&format!("{{\"line\":{}", error.line));
        if let Some(column) = &error.column {
            body.push_str(&format!(",\"column\":{}", json(column)));
        }
        body.push_str(&format!(",\"code\":{},\"message\":{}}}", json(error.code.as_str()), json(&error.message)));
    }
    body.push(']');
}

/// `text` as a JSON string. Serializing a `str` does not fail; the empty string is never used.
fn json(text: &str) -> String {
    sonic_rs::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
