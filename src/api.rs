//! Routes and replies of the public address: what a request means and what it is answered with.
//! Knows no socket; both engines serve it.

use std::sync::Arc;

use crate::batch::Batch;
use crate::figures::Shed;
use crate::http::{ContentCoding, Head, Method, Refusal, Status, plain_path, query_pairs};
use crate::identity::{self, Figures, Id, RequestKey};
use crate::limits;
use crate::ndjson::{EncodeRefusal, LineError, Origin, Report, RowEncoder};
use crate::schema::Plan;

/// What a head asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Take the events of the body.
    Events(Take),
    /// Would an event be taken now?
    Health,
    /// Which methods the path has: these.
    Options(&'static str),
    /// Nothing of ours: read the body, then answer with this.
    Refuse(Fault),
}

/// How events are to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Take {
    /// Answer the same, store nothing.
    pub dry_run: bool,
    /// Answer when ClickHouse has them, not when the disk has.
    pub ack_inserted: bool,
    /// The identity of the request, where it came with an `Idempotency-Key`.
    pub key: Option<Id>,
}

/// An error reply: `{"error":code,"message":message}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its status.
    pub status: Status,
    /// The `error` of its body.
    pub code: &'static str,
    /// The `message` of its body, a sentence.
    pub message: &'static str,
    /// The methods that the path has, for 405.
    pub allow: Option<&'static str>,
}

impl Fault {
    /// A fault with a code and a sentence.
    pub const fn new(status: Status, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, allow: None }
    }

    const fn with_allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status(), refusal.code(), refusal.message())
    }
}

impl From<Shed> for Fault {
    fn from(reason: Shed) -> Self {
        Self::new(Status::ServiceUnavailable, reason.code(), reason.message())
    }
}

impl From<EncodeRefusal> for Fault {
    fn from(refusal: EncodeRefusal) -> Self {
        match refusal {
            // Has a body of its own with the errors, see `Api::take_events`.
            EncodeRefusal::TooManyBadLines => TOO_MANY_BAD_LINES,
            EncodeRefusal::TooManyEvents => Self::new(
                Status::ContentTooLarge,
                "too_many_events",
                "The body has more events than one request may have; nothing was stored.",
            ),
            EncodeRefusal::EncodedTooLarge => Self::new(
                Status::ContentTooLarge,
                "too_many_events",
                "The rows of the body take more bytes than one request may take; nothing was stored.",
            ),
        }
    }
}

const NOT_FOUND: Fault = Fault::new(Status::NotFound, "not_found", "There is nothing at this path.");
const EVENTS_ALLOW: &str = "POST, OPTIONS";
const HEALTH_ALLOW: &str = "GET, HEAD, OPTIONS";
const METHOD_NOT_ALLOWED: Fault =
    Fault::new(Status::MethodNotAllowed, "method_not_allowed", "The path does not have this method; see Allow.");
const UNSUPPORTED_CODING: Fault =
    Fault::new(Status::UnsupportedMediaType, "unsupported_content_coding", "This Content-Encoding is not supported.");
const BAD_QUERY: Fault = Fault::new(
    Status::BadRequest,
    "bad_query",
    "The query is malformed, or a value in it is not one of those that are known.",
);

const TOO_MANY_BAD_LINES: Fault =
    Fault::new(Status::UnprocessableContent, "too_many_bad_lines", "More than 1000 lines are bad; nothing was stored.");
const BAD_KEY: Fault =
    Fault::new(Status::BadRequest, "bad_idempotency_key", "There must be one Idempotency-Key, of 1 to 255 bytes.");
/// The reply to a key that came before with another body.
pub const KEY_REUSED: Fault = Fault::new(
    Status::UnprocessableContent,
    "idempotency_key_reused",
    "This Idempotency-Key came before with another body; nothing was stored.",
);

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
    pub fn remembered(figures: Figures) -> Self {
        Self::of(figures, &[])
    }

    fn of(figures: Figures, errors: &[LineError]) -> Self {
        match figures {
            Figures { refused: true, rejected, .. } => {
                Self::Json(TOO_MANY_BAD_LINES.status, refused_body(rejected, errors))
            }
            Figures { accepted, rejected: 0, .. } => Self::Accepted(accepted),
            Figures { accepted, rejected, .. } => {
                let status = if accepted == 0 { Status::UnprocessableContent } else { Status::Ok };
                Self::Json(status, figures_body(accepted, rejected, errors))
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

/// A reply, and whether it is a promise that has to wait for the commit.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// What to say.
    pub reply: Reply,
    /// True: only after the batch is durable. False: at once (in order).
    pub after_commit: bool,
    /// True: then also after ClickHouse has confirmed the segment, or 202.
    pub after_insert: bool,
}

impl Answer {
    /// An answer that promises nothing.
    pub fn now(reply: Reply) -> Self {
        Self { reply, after_commit: false, after_insert: false }
    }
}

/// One worker's way from a request to a reply.
pub struct Api {
    encoder: RowEncoder,
    report: Report,
    table: String,
    table_path: String,
}

impl Api {
    /// The api of the stream into `table`.
    pub fn new(encoder: RowEncoder, table: &str) -> Self {
        Self { encoder, report: Report::default(), table: table.to_owned(), table_path: format!("/api/{table}") }
    }

    /// The table has changed: encodes events by this plan from now on.
    pub fn follow(&mut self, plan: Arc<Plan>) {
        self.encoder.follow(plan);
    }

    /// What a head asks for.
    pub fn route(&self, head: &Head<'_>) -> Route {
        let path = plain_path(head.path);
        let allow = if path == "/api/events" || path == self.table_path {
            EVENTS_ALLOW
        } else if path == "/health" {
            HEALTH_ALLOW
        } else if head.path == "*" && head.method == Method::Options {
            return Route::Options(EVENTS_ALLOW);
        } else {
            return Route::Refuse(NOT_FOUND);
        };
        if head.content_coding != ContentCoding::Identity {
            return Route::Refuse(UNSUPPORTED_CODING);
        }
        match head.method {
            Method::Options => Route::Options(allow),
            Method::Post if allow == EVENTS_ALLOW => self.route_events(head),
            Method::Get | Method::Head if allow == HEALTH_ALLOW => Route::Health,
            _ => Route::Refuse(METHOD_NOT_ALLOWED.with_allow(allow)),
        }
    }

    fn route_events(&self, head: &Head<'_>) -> Route {
        let Some(take) = take(head.query) else {
            return Route::Refuse(BAD_QUERY);
        };
        match head.idempotency_key {
            None => Route::Events(take),
            Some(key) if (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
                Route::Events(Take { key: Some(identity::of_request(&self.table, key)), ..take })
            }
            Some(_) => Route::Refuse(BAD_KEY),
        }
    }

    /// Encodes the events of a whole body into `batch`. What is refused as a whole leaves no
    /// trace there, but for the key of a request that has one: the committer must know it, and
    /// finds out whether it came before. Such a request needs a batch of its own.
    pub fn take_events(&mut self, body: &[u8], take: Take, origin: &Origin, batch: &mut Batch) -> Answer {
        let before = batch.mark();
        self.report.clear();
        let refused = match self.encoder.encode(body, origin, batch, &mut self.report) {
            Ok(()) => false,
            Err(EncodeRefusal::TooManyBadLines) => true,
            Err(refusal) => {
                debug_assert_eq!(before, batch.mark());
                return Answer::now(Reply::Fault(refusal.into()));
            }
        };
        if take.dry_run {
            batch.roll_back(before);
        }
        let Report { accepted, rejected, ref errors, .. } = self.report;
        let figures = Figures { accepted, rejected, refused };
        let reply = Reply::of(figures, errors);
        let key = take.key.filter(|_| !take.dry_run);
        batch.key = key.map(|id| RequestKey::new(id, body, figures));
        let after_commit = before != batch.mark() || key.is_some();
        Answer { reply, after_commit, after_insert: after_commit && take.ack_inserted && accepted > 0 }
    }

    /// What the last [`Api::take_events`] found.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// What the query says; `None` for an unknown value.
fn take(query: &str) -> Option<Take> {
    let mut take = Take::default();
    for pair in query_pairs(query) {
        let (name, value) = pair.ok()?;
        match (name.as_ref(), value.as_ref()) {
            ("dry_run", "1") => take.dry_run = true,
            ("dry_run", "0") | ("ack", "disk") => {}
            ("ack", "inserted") => take.ack_inserted = true,
            ("dry_run" | "ack", _) => return None,
            _ => {}
        }
    }
    Some(take)
}

fn refused_body(rejected: u32, errors: &[LineError]) -> Box<str> {
    let mut body = figures_body(0, rejected, errors).into_string();
    body.pop();
    let Fault { code, message, .. } = TOO_MANY_BAD_LINES;
    body.push_str(&format!(",\"error\":{},\"message\":{}}}", json(code), json(message)));
    body.into_boxed_str()
}

fn figures_body(accepted: u32, rejected: u32, errors: &[LineError]) -> Box<str> {
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
