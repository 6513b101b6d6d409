//! The public HTTP API: routes, replies and errors. It uses no sockets; both engines serve it.

pub mod cors;
mod fault;
pub mod keys;
pub mod rate;
mod reply;
mod reply_fields;
mod request_id;
mod taken;

use std::sync::Arc;

pub use fault::{Fault, KEY_REUSED, OVER_BURST, OVER_RATE, Shed, TOO_MANY_OF_ADDRESS};
pub use reply::{Ack, Answer, Reply};
pub use reply_fields::{Rendering, ReplyFields};
pub use request_id::RequestIds;
pub use taken::Taken;

use fault::{
    BAD_KEY, BAD_QUERY, CODINGS, EVENTS_ALLOW, HEALTH_ALLOW, METHOD_NOT_ALLOWED, NOT_FOUND, UNSUPPORTED_CODING,
};
use taken::answer;

use self::keys::{Keys, Writer};
use crate::batch::Batch;
use crate::batch::identity::{self, Id, RequestKey};
use crate::http::{Coding, ContentCoding, Head, Method, has_repeated_name, plain_path, query_pairs};
use crate::limits;
use crate::ndjson::{EncodeRefusal, Origin, Report, RowEncoder};
use crate::schema::Plan;

/// The operation that a request head selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST` of events.
    Events(IngestOptions),
    /// `GET /health`: whether the server accepts events now.
    Health,
    /// `OPTIONS`: the value of `Allow`.
    Options(&'static str),
    /// A preflight of a page of an allowed origin: the methods that it may use.
    Preflight(&'static str),
    /// No operation: the body is read and dropped, then this error is the reply.
    Refuse(Fault),
}

/// The options of a request with events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IngestOptions {
    /// `dry_run=1`: the reply is the same, and nothing is stored.
    pub dry_run: bool,
    /// What the reply waits for.
    pub ack: Ack,
    /// The identity of the request, if it has an `Idempotency-Key`.
    pub key: Option<Id>,
    /// Whose rate and counter the events belong to.
    pub writer: Option<Writer>,
    /// The content coding of the body.
    pub coding: Option<Coding>,
}

/// One worker's implementation of the API, with the row encoder and its reused report.
pub struct Api {
    encoder: RowEncoder,
    report: Report,
    table: String,
    table_path: String,
    keys: Arc<Keys>,
    /// Coded bodies are decoded by who serves them; else they are refused.
    decodes: bool,
}

impl Api {
    /// The API of `table`, served at `/api/events` and `/api/<table>` to everyone.
    pub fn new(encoder: RowEncoder, table: &str) -> Self {
        Self {
            encoder,
            report: Report::default(),
            table: table.to_owned(),
            table_path: format!("/api/{table}"),
            keys: Arc::new(Keys::open(None)),
            decodes: cfg!(feature = "codings"),
        }
    }

    /// Changes the keys that all further requests need.
    pub fn require(&mut self, keys: Arc<Keys>) {
        self.keys = keys;
    }

    /// Refuses every content coding.
    #[must_use]
    pub fn without_codings(mut self) -> Self {
        self.decodes = false;
        self
    }

    /// Changes the plan that events are encoded by, because the table's columns have changed.
    pub fn follow(&mut self, plan: Arc<Plan>) {
        self.encoder.follow(plan);
    }

    /// Selects the operation of a request by its head.
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
        match head.method {
            Method::Options => Route::Options(allow),
            Method::Post if allow == EVENTS_ALLOW => self.route_events(head),
            Method::Get | Method::Head if allow == HEALTH_ALLOW => Route::Health,
            _ => Route::Refuse(METHOD_NOT_ALLOWED.with_allow(allow)),
        }
    }

    fn route_events(&self, head: &Head<'_>) -> Route {
        let writer = match self.keys.authorize(head, &self.table) {
            Ok(writer) => writer,
            Err(fault) => return Route::Refuse(fault),
        };
        let Some(options) = ingest_options(head.query) else {
            return Route::Refuse(BAD_QUERY);
        };
        let coding = match head.content_coding {
            ContentCoding::Identity => None,
            ContentCoding::Coded(coding) if self.decodes => Some(coding),
            _ if self.decodes => return Route::Refuse(UNSUPPORTED_CODING.with_accept_encoding(CODINGS)),
            _ => return Route::Refuse(UNSUPPORTED_CODING.with_accept_encoding("identity")),
        };
        let options = IngestOptions { writer, coding, ..options };
        match head.idempotency_key {
            None => Route::Events(options),
            Some(key) if (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
                let owner = writer.and_then(|writer| self.keys.owners().get(writer.owner).identity.as_ref());
                let id = identity::of_request_by(owner, &self.table, key);
                Route::Events(IngestOptions { key: Some(id), ..options })
            }
            Some(_) => Route::Refuse(BAD_KEY),
        }
    }

    /// Encodes the events of a complete body into `batch`.
    ///
    /// With [`Answer::Now`] the caller rolls back what was appended. A refused request's rows are
    /// rolled back here; a keyed request still submits an empty batch, because only the committer
    /// knows whether the key was used before. A keyed request needs a batch of its own.
    pub fn take_events(&mut self, body: &[u8], options: IngestOptions, origin: &Origin, batch: &mut Batch) -> Answer {
        let before = batch.mark();
        self.report.clear();
        let encoded = self.encoder.encode(body, origin, batch, &mut self.report);
        let key = |id, summary| RequestKey::new(id, body, summary);
        answer(encoded, options, &self.report, before, batch, key)
    }

    /// Encodes the next slice of a body into a batch of its own. The caller ends with [`Taken::conclude`],
    /// with the first refusal at once.
    ///
    /// # Errors
    ///
    /// The whole request is refused.
    pub fn take_slice(&mut self, slice: &[u8], taken: &mut Taken, batch: &mut Batch) -> Result<(), EncodeRefusal> {
        self.encoder.encode_slice(slice, &mut taken.progress, &taken.origin, batch, &mut taken.report)
    }

    /// The report of the last [`Api::take_events`].
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// The options in the query of a request; `None` when the query is malformed, a parameter comes twice, or
/// an option has an unknown value. Unknown parameters are ignored.
fn ingest_options(query: &str) -> Option<IngestOptions> {
    if has_repeated_name(query) {
        return None;
    }
    let mut options = IngestOptions::default();
    for pair in query_pairs(query) {
        let (name, value) = pair.ok()?;
        match (name.as_ref(), value.as_ref()) {
            ("dry_run", "1") => options.dry_run = true,
            ("dry_run", "0") => {}
            ("ack", "disk") => options.ack = Ack::Disk,
            ("ack", "inserted") => options.ack = Ack::Inserted,
            ("dry_run" | "ack", _) => return None,
            _ => {}
        }
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_comes_twice_and_an_option_with_an_unknown_value_are_refused_and_others_are_ignored() {
        assert_eq!(ingest_options("a=1&b=1&dry_run=0&ack=disk&key=x"), Some(IngestOptions::default()));
        let options = ingest_options("ack=inserted&dry_run=1").unwrap();
        assert!(options.ack == Ack::Inserted && options.dry_run);
        for wrong in [
            "a=1&a=1",
            "dry_run=1&dry_run=1",
            "ack=disk&x&ack=disk",
            "key=a&key=b",
            "k%65y=a&key=a",
            "ack=",
            "dry_run=2",
            "%",
        ] {
            assert_eq!(ingest_options(wrong), None, "{wrong}");
        }
    }
}
