//! The public HTTP API: routes, replies and errors. It uses no sockets; both engines serve it.

pub mod cors;
mod fault;
pub mod keys;
pub mod rate;
mod reply;
mod reply_fields;
mod request_id;
mod tables;
mod taken;

use std::sync::Arc;

pub use fault::{Fault, KEY_REUSED, OVER_BURST, OVER_RATE, Shed, TABLE_UNAVAILABLE, TOO_MANY_OF_ADDRESS};
pub use reply::{Ack, Answer, Reply};
pub use reply_fields::{Rendering, ReplyFields};
pub use request_id::RequestIds;
pub use tables::ApiTable;
pub use taken::Taken;

pub use crate::ndjson::RequestValues;

use fault::{
    BAD_KEY, BAD_QUERY, CODINGS, EVENTS_ALLOW, HEALTH_ALLOW, METHOD_NOT_ALLOWED, NOT_FOUND, UNSUPPORTED_CODING,
};
use tables::Tables;
use taken::answer;

use self::keys::{Keys, Writer};
use crate::batch::identity::{self, BodyHashing, Id, RequestKey};
use crate::batch::{Batch, TableIndex};
use crate::http::{Coding, ContentCoding, Head, Method, has_repeated_name, plain_path, query_pairs};
use crate::limits;
use crate::ndjson::{AddressForm, EncodeRefusal, Origin, Report};
use crate::schema::{Plan, RequestInput};

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
    /// The table at whose path the request came.
    pub table: TableIndex,
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

/// One worker's implementation of the API, with the row encoders and their reused report.
pub struct Api {
    tables: Tables,
    report: Report,
    keys: Arc<Keys>,
    /// For columns that get the identity of a request without one.
    ids: RequestIds,
    /// Coded bodies are decoded by who serves them; else they are refused.
    decodes: bool,
    bodies: Arc<BodyHashing>,
}

impl Api {
    /// The API of these tables, which all take events from everyone.
    pub fn new(tables: Vec<ApiTable>) -> Self {
        Self {
            tables: Tables::new(tables),
            report: Report::default(),
            keys: Arc::new(Keys::open(None)),
            ids: RequestIds::default(),
            decodes: cfg!(feature = "codings"),
            bodies: Arc::default(),
        }
    }

    /// Changes what the bodies of requests with a key are hashed with.
    #[must_use]
    pub fn hashing_bodies(mut self, bodies: Arc<BodyHashing>) -> Self {
        self.bodies = bodies;
        self
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

    /// Changes the plan that the events of a table are encoded by, because its columns have changed.
    /// Without a plan the table takes no events: it is missing, or can't be filled.
    pub fn follow(&mut self, table: TableIndex, plan: Option<Arc<Plan>>) {
        self.tables.follow(table, plan);
    }

    /// True when the table takes events.
    pub fn is_available(&self, table: TableIndex) -> bool {
        self.tables.is_available(table)
    }

    /// Selects the operation of a request by its head.
    pub fn route(&self, head: &Head<'_>) -> Route {
        let path = plain_path(head.path);
        let table = self.tables.at(&path);
        let allow = if table.is_some() {
            EVENTS_ALLOW
        } else if path == "/health" {
            HEALTH_ALLOW
        } else if head.path == "*" && head.method == Method::Options {
            return Route::Options(EVENTS_ALLOW);
        } else {
            return Route::Refuse(NOT_FOUND);
        };
        match (head.method, table) {
            (Method::Options, _) => Route::Options(allow),
            (Method::Post, Some(table)) => self.route_events(head, table),
            (Method::Get | Method::Head, None) => Route::Health,
            _ => Route::Refuse(METHOD_NOT_ALLOWED.with_allow(allow)),
        }
    }

    fn route_events(&self, head: &Head<'_>, table: TableIndex) -> Route {
        let name = self.tables.name(table);
        let writer = match self.keys.authorize(head, name) {
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
        let options = IngestOptions { table, writer, coding, ..options };
        match head.idempotency_key {
            Some(key) if !(1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => Route::Refuse(BAD_KEY),
            _ if !self.is_available(table) => Route::Refuse(TABLE_UNAVAILABLE),
            None => Route::Events(options),
            Some(key) => {
                let owner = writer.and_then(|writer| self.keys.owners().get(writer.owner).identity.as_ref());
                let id = identity::of_request_by(owner, name, key);
                Route::Events(IngestOptions { key: Some(id), ..options })
            }
        }
    }

    /// What the columns of the route's table get of a head; `None` if that is nothing. Header fields count if
    /// the sender `is_believed`; a repeated one is none. The reply's `fields` get the request's identity if a
    /// column gets it.
    pub fn values(
        &self,
        route: Route,
        head: &Head<'_>,
        is_believed: bool,
        fields: &mut ReplyFields,
    ) -> Option<Arc<RequestValues>> {
        let Route::Events(options) = route else { return None };
        let inputs = self.tables.request_inputs(options.table);
        if inputs.is_empty() {
            return None;
        }
        let only = |name: &str| {
            let mut lines = head.header_lines(name);
            let value = lines.next().filter(|_| lines.next().is_none())?;
            Some(String::from_utf8_lossy(value).into())
        };
        let value = |input: &RequestInput| match input {
            RequestInput::Header(name) => only(name).filter(|_| is_believed),
            RequestInput::UserAgent => only("user-agent"),
            RequestInput::RequestId => Some(fields.identify(&self.ids).into()),
            RequestInput::KeyName => options.writer.map(|writer| self.keys.owners().get(writer.owner).name.clone()),
        };
        Some(Arc::new(RequestValues::new(inputs.iter().map(value))))
    }

    /// Sets what the columns of a table get of the head of the next bodies' request.
    #[inline]
    pub fn set_request(&mut self, table: TableIndex, values: Option<&Arc<RequestValues>>) {
        if let Some(values) = values
            && let Some(encoder) = self.tables.encoder(table)
        {
            encoder.set_request(values.clone());
        }
    }

    /// Encodes the events of a complete body into `batch`, a batch of the table.
    ///
    /// With [`Answer::Now`] the caller rolls back what was appended. A refused request's rows are
    /// rolled back here; a keyed request joins the batch all the same, because only the committer
    /// knows whether the key was used before.
    pub fn take_events(&mut self, body: &[u8], options: IngestOptions, origin: &Origin, batch: &mut Batch) -> Answer {
        let before = batch.mark();
        self.report.clear();
        // It may have become unavailable since the head of the request came.
        let Some(encoder) = self.tables.encoder(options.table) else {
            return Answer::Now(Reply::Fault(TABLE_UNAVAILABLE));
        };
        let encoded = encoder.encode(body, origin, batch, &mut self.report);
        let key = |id, summary| RequestKey { id, body: self.bodies.hash(body), summary };
        answer(encoded, options, &self.report, before, batch, key)
    }

    /// Begins a request whose body is encoded in slices.
    pub fn begin(&self, options: IngestOptions, origin: Origin) -> Taken {
        Taken::new(options, origin, self.bodies.hasher())
    }

    /// Encodes the next slice of a body, of about `bytes` bytes, into a batch of its own: true after the last
    /// one. The caller ends with [`Taken::conclude`], with the first refusal at once. `None` when the table
    /// takes no events any more.
    ///
    /// # Errors
    ///
    /// The whole request is refused.
    pub fn take_slice(
        &mut self,
        body: &[u8],
        bytes: usize,
        taken: &mut Taken,
        batch: &mut Batch,
    ) -> Option<Result<bool, EncodeRefusal>> {
        let encoder = self.tables.encoder(taken.options.table)?;
        Some(encoder.encode_slice(body, bytes, &mut taken.progress, &taken.origin, batch, &mut taken.report))
    }

    /// What is stored of addresses in a table; `None` if it takes no events now.
    pub fn address_form(&mut self, table: TableIndex) -> Option<AddressForm> {
        Some(self.tables.encoder(table)?.address_form().clone())
    }

    /// The report of the last [`Api::take_events`].
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// The paths of the public address, each with its methods. A table may have another path.
pub const PATHS: [(&str, &str); 2] = [("/api/{table}", EVENTS_ALLOW), ("/health", HEALTH_ALLOW)];

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
