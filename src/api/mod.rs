//! Routes and replies of the public address: what a request means and what it is answered with.
//! Knows no socket; both engines serve it.

mod fault;
mod reply;

use std::sync::Arc;

pub use fault::{Fault, KEY_REUSED, Shed};
pub use reply::{Ack, Answer, Reply};

use fault::{BAD_KEY, BAD_QUERY, EVENTS_ALLOW, HEALTH_ALLOW, METHOD_NOT_ALLOWED, NOT_FOUND, UNSUPPORTED_CODING};

use crate::batch::Batch;
use crate::batch::identity::{self, Id, RequestKey, Summary};
use crate::http::{ContentCoding, Head, Method, plain_path, query_pairs};
use crate::limits;
use crate::ndjson::{EncodeRefusal, Origin, Report, RowEncoder};
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
    /// What the reply waits for.
    pub ack: Ack,
    /// The identity of the request, where it came with an `Idempotency-Key`.
    pub key: Option<Id>,
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

    /// Encodes the events of a whole body into `batch`.
    ///
    /// What was appended counts only with [`Answer::AfterCommit`]; else the caller rolls it back. A
    /// request with an `Idempotency-Key` that is refused as a whole still submits its batch, without
    /// rows, because only the committer knows whether the key came before; such a request needs a
    /// batch of its own.
    pub fn take_events(&mut self, body: &[u8], take: Take, origin: &Origin, batch: &mut Batch) -> Answer {
        let before = batch.mark();
        self.report.clear();
        let refused = match self.encoder.encode(body, origin, batch, &mut self.report) {
            Ok(()) => false,
            Err(EncodeRefusal::TooManyBadLines) => true,
            Err(refusal) => {
                return Answer::Now(Reply::Fault(refusal.into()));
            }
        };
        let Report { accepted, rejected, ref errors, .. } = self.report;
        let summary = Summary { accepted, rejected, refused };
        let reply = Reply::of(summary, errors);
        let key = take.key.filter(|_| !take.dry_run);
        batch.key = key.map(|id| RequestKey::new(id, body, summary));
        if take.dry_run || before == batch.mark() && key.is_none() {
            return Answer::Now(reply);
        }
        let ack = if accepted > 0 { take.ack } else { Ack::Disk };
        Answer::AfterCommit { reply, sequence: batch.sequence, ack }
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
            ("dry_run", "0") => {}
            ("ack", "disk") => take.ack = Ack::Disk,
            ("ack", "inserted") => take.ack = Ack::Inserted,
            ("dry_run" | "ack", _) => return None,
            _ => {}
        }
    }
    Some(take)
}
