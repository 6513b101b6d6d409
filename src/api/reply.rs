//! What a request is answered with, before it is rendered.

use super::fault::{Fault, TOO_MANY_BAD_LINES};
use crate::batch::Sequence;
use crate::batch::identity::Summary;
use crate::http::Status;
use crate::ndjson::LineError;

/// A reply before it is rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// All lines were accepted.
    Accepted(u32),
    /// A body that was made for this request.
    Json(Status, Box<str>),
    /// An error.
    Fault(Fault),
    /// No body; the value is `Allow`.
    Allow(&'static str),
}

impl Reply {
    /// The first reply to a request, from what is remembered of it.
    pub fn remembered(summary: Summary) -> Self {
        Self::of(summary, &[])
    }

    pub(super) fn of(summary: Summary, errors: &[LineError]) -> Self {
        match summary {
            Summary { refused: true, rejected, .. } => {
                Self::Json(TOO_MANY_BAD_LINES.status, refused_body(rejected, errors))
            }
            Summary { accepted, rejected: 0, .. } => Self::Accepted(accepted),
            Summary { accepted, rejected, .. } => {
                let status = if accepted == 0 { Status::UnprocessableContent } else { Status::Ok };
                Self::Json(status, summary_body(accepted, rejected, errors))
            }
        }
    }

    /// The same for events that are durable here and not yet confirmed by ClickHouse.
    pub fn not_yet_inserted(&self) -> Self {
        let body = match self {
            Self::Accepted(accepted) => format!("{{\"accepted\":{accepted},\"rejected\":0,\"inserted\":false}}"),
            Self::Json(_, body) => format!("{},\"inserted\":false}}", body.strip_suffix('}').unwrap_or(body)),
            reply @ (Self::Fault(_) | Self::Allow(_)) => return reply.clone(),
        };
        Self::Json(Status::Accepted, body.into())
    }
}

/// What a reply waits for (`ack` in the query).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// The commit of the events, as durable as `--durability` says.
    #[default]
    Disk,
    /// The commit, and then ClickHouse's proof of the INSERT; 202 when that takes too long.
    Inserted,
}

/// When a reply may leave, once the replies before it on its connection have left.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// At once: it promises nothing.
    Now(Reply),
    /// Once the batch of this sequence is committed: the reply promises its events.
    AfterCommit {
        /// The reply, should the commit succeed.
        reply: Reply,
        /// The batch that holds the request's events.
        sequence: Sequence,
        /// What the reply waits for after the commit.
        ack: Ack,
    },
}

fn refused_body(rejected: u32, errors: &[LineError]) -> Box<str> {
    let mut body = summary_body(0, rejected, errors).into_string();
    body.pop();
    let Fault { code, message, .. } = TOO_MANY_BAD_LINES;
    body.push_str(&format!(",\"error\":{},\"message\":{}}}", json(code), json(message)));
    body.into_boxed_str()
}

fn summary_body(accepted: u32, rejected: u32, errors: &[LineError]) -> Box<str> {
    let mut body = format!("{{\"accepted\":{accepted},\"rejected\":{rejected},\"errors\":");
    push_errors(&mut body, errors);
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

/// A JSON string. Serializing a `str` can't fail; an empty string stands for the impossible.
fn json(text: &str) -> String {
    sonic_rs::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
