//! Serving of one request: route, decode, encode, charge, join the batch.

use std::net::IpAddr;
use std::sync::Arc;

use super::budget::{Charge, Size};
use super::large::LargeRequests;
use super::live::{Live, LiveLine, Shown};
use super::metrics::WorkerMetrics;
use super::outbox::{Filling, Outbox, Waiter};
use super::quotas::{Debit, OverQuota, Quotas};
use super::{Hop, Shared};
use crate::api::rate::Quota;
use crate::api::{Answer, Api, IngestOptions, Reply, ReplyFields, RequestValues, Route, Shed};
use crate::clock::unix_ns;
use crate::connection::{Client, Served, Service};
use crate::http::Head;
use crate::limits;
use crate::ndjson::{Origin, Report};

/// The state that serving one request uses, borrowed from its worker: API, batches and counters, and
/// the client's connection and who is in front of it.
pub(crate) struct RequestContext<'a> {
    pub(crate) api: &'a mut Api,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) large: &'a mut LargeRequests,
    pub(crate) shared: &'a Shared,
    pub(crate) metrics: &'a WorkerMetrics,
    pub(crate) waiter: Waiter,
    pub(crate) hop: Hop,
    /// The client's address, of the request that is served.
    pub(crate) client_ip: Option<IpAddr>,
    /// What is left of the rate that the request was charged to.
    pub(crate) quota: Option<Quota>,
    /// What the waiting replies of the connection take of the budget.
    pub(crate) replies: &'a mut Charge,
    /// Bytes of content that may still be decoded, or taken in slices, in this visit of the connection.
    pub(crate) decoded_left: usize,
}

impl Service for RequestContext<'_> {
    fn route(&self, head: &Head<'_>) -> Route {
        match self.api.route(head) {
            Route::Options(methods) if self.shared.cors.is_preflight(head) => Route::Preflight(methods),
            route => route,
        }
    }

    fn fields(&self, origin: Option<&[u8]>, request_id: Option<&[u8]>) -> ReplyFields {
        ReplyFields::new(&self.shared.cors, origin, request_id)
    }

    fn client_address(&self, head: &Head<'_>) -> Option<IpAddr> {
        self.hop.client_address(head, &self.shared.trusted)
    }

    fn values(&self, route: Route, head: &Head<'_>, fields: &mut ReplyFields) -> Option<Arc<RequestValues>> {
        let is_believed = self.hop.is_trusted() || self.shared.trusted.is_empty();
        self.api.values(route, head, is_believed, fields)
    }

    fn has_room(&self, bytes: usize) -> bool {
        // Who waits for a disk that hangs would wait as long as it does. A large request that is under way
        // has a batch.
        self.outbox.has_room(Size::of(bytes)) || self.shared.health.is_stuck() || self.large.is_of(self.waiter)
    }

    fn serve(&mut self, route: Route, client: Client<'_>, body: &[u8], fields: &mut ReplyFields) -> Served {
        self.client_ip = client.address;
        let served = match route {
            Route::Events(options) => {
                self.api.set_request(options.table, client.values);
                self.serve_events(options, body)
            }
            route => Served::Answered(self.serve_at_once(route, body)),
        };
        if let Some(quota) = self.quota.take() {
            fields.quota = Some(quota);
        }
        served
    }
}

impl RequestContext<'_> {
    fn serve_events(&mut self, options: IngestOptions, body: &[u8]) -> Served {
        if self.large.is_of(self.waiter) {
            return self.continue_large(body);
        }
        if let Some(coding) = options.coding {
            return self.serve_coded(options, coding, body);
        }
        if body.len() > limits::SLICE_BYTES && !self.shared.health.is_stuck() {
            return self.begin_large(options, body, None);
        }
        Served::Answered(self.serve_at_once(Route::Events(options), body))
    }

    /// Serves a request in one go, however long its body is. A coded body is decoded already.
    pub(crate) fn serve_at_once(&mut self, route: Route, body: &[u8]) -> Answer {
        let options = match route {
            Route::Events(options) => options,
            Route::Health => return Answer::Now(self.shared.health.reply()),
            Route::Options(allow) => return Answer::Now(Reply::Allow(allow)),
            Route::Preflight(methods) => return Answer::Now(Reply::Preflight(methods)),
            Route::Refuse(fault) => return Answer::Now(Reply::Fault(fault)),
        };
        if self.shared.health.is_stuck() {
            return self.shed(Shed::CommitTimeout);
        }
        let origin = self.origin();
        let Some(mut filling) = self.outbox.fill(options.table) else {
            return Answer::Now(Reply::Fault(Shed::InFlightBytes.into()));
        };
        let answer = self.api.take_events(body, options, &origin, filling.batch());
        let samples = if self.shared.live.is_watched() {
            sample(self.api, &self.shared.live, options, body, None, &origin)
        } else {
            Vec::new()
        };
        let charging = Charging { quotas: &self.shared.quotas, address: self.client_ip, quota: &mut self.quota };
        let joining =
            Joining { options, replies: self.replies, metrics: self.metrics, waiter: self.waiter, samples, charging };
        let (answer, is_full) = joining.join(answer, self.api.report(), filling);
        self.outbox.hand_over_full(options.table, is_full, &self.shared.handoff);
        answer
    }

    /// The origin of a request whose body is complete now.
    pub(super) fn origin(&self) -> Origin {
        Origin { client_ip: self.client_ip, server_time_unix_ns: unix_ns() }
    }

    /// Answers 503.
    pub(super) fn shed(&self, reason: Shed) -> Answer {
        self.metrics.shed(reason, 1);
        Answer::Now(Reply::Fault(reason.into()))
    }
}

/// The rates that a request is charged to.
pub(super) struct Charging<'a> {
    pub(super) quotas: &'a Quotas,
    /// The client's address.
    pub(super) address: Option<IpAddr>,
    /// Gets what is left of the rate.
    pub(super) quota: &'a mut Option<Quota>,
}

impl Charging<'_> {
    /// Charges the lines of a request, unless it is refused anyway. `None` when nothing is charged.
    ///
    /// # Errors
    ///
    /// If the request does not pass; nothing is charged then.
    pub(super) fn charge(
        self,
        answer: &Answer,
        options: IngestOptions,
        report: &Report,
    ) -> Result<Option<Debit>, OverQuota> {
        if self.quotas.is_free(options) || matches!(answer, Answer::Now(Reply::Fault(_))) {
            return Ok(None);
        }
        let debit = Debit {
            table: options.table,
            writer: options.writer,
            address: self.address,
            lines: report.accepted.saturating_add(report.rejected),
            accepted: report.accepted,
            keyed: None,
        };
        match self.quotas.charge(&debit) {
            Ok(quota) => {
                *self.quota = quota;
                Ok(Some(debit))
            }
            Err(over) => {
                if let OverQuota::OverRate(quota) = over {
                    *self.quota = Some(quota);
                }
                Err(over)
            }
        }
    }
}

/// What is left to do with a request whose events are encoded.
pub(super) struct Joining<'a> {
    pub(super) options: IngestOptions,
    pub(super) replies: &'a mut Charge,
    pub(super) metrics: &'a WorkerMetrics,
    pub(super) waiter: Waiter,
    /// Lines for those who watch.
    pub(super) samples: Vec<LiveLine>,
    pub(super) charging: Charging<'a>,
}

impl Joining<'_> {
    /// Charges and counts the events, and joins the batch if the answer waits for it. Also returns true
    /// when the batch has to be handed over before another request is served.
    pub(super) fn join(self, answer: Answer, report: &Report, mut filling: Filling<'_>) -> (Answer, bool) {
        let Self { options, replies, metrics, waiter, samples, charging } = self;
        let keyed = match &answer {
            Answer::AfterCommit { keyed, .. } => *keyed,
            Answer::Now(_) => None,
        };
        let waits = match &answer {
            Answer::AfterCommit { reply, .. } if reply.bytes() > 0 => {
                if !replies.grow(reply.bytes(), Size::Large) {
                    // Nothing joined the batch: what was appended is rolled back.
                    metrics.shed(Shed::InFlightBytes, 1);
                    return (Answer::Now(Reply::Fault(Shed::InFlightBytes.into())), false);
                }
                true
            }
            Answer::AfterCommit { .. } => true,
            Answer::Now(_) => false,
        };
        let is_keyed = keyed.is_some();
        match charging.charge(&answer, options, report) {
            Ok(debit) => {
                let debit = debit.filter(|_| waits).map(|debit| Debit { keyed, ..debit });
                debit.into_iter().for_each(|debit| filling.note_debit(debit));
            }
            Err(over) if is_keyed => {
                // A repeat is free: the committer knows whether it is one.
                filling.only_ask(over.fault());
                return (answer, filling.join(waiter));
            }
            Err(over) => return (Answer::Now(Reply::Fault(over.fault())), false),
        }
        count(report, options, metrics, is_keyed);
        if is_keyed {
            // Only the committer knows whether the lines are those of a repeat.
            filling.note_keyed(report.rejected_by_code);
        }
        if waits && !samples.is_empty() {
            filling.note_samples(samples, keyed);
        }
        let is_full = waits && filling.join(waiter);
        (answer, is_full)
    }
}

/// Copies lines of a request for those who watch. `report` is that of a request that was encoded in slices.
#[cold]
pub(super) fn sample(
    api: &mut Api,
    live: &Live,
    options: IngestOptions,
    body: &[u8],
    report: Option<&Report>,
    origin: &Origin,
) -> Vec<LiveLine> {
    let Some(form) = api.address_form(options.table).filter(|_| !options.dry_run) else { return Vec::new() };
    live.sample(&Shown {
        table: options.table,
        body,
        report: report.unwrap_or(api.report()),
        client_ip: origin.client_ip,
        server_time_unix_ns: origin.server_time_unix_ns,
        form: &form,
    })
}

/// Counts the lines of a request. The rejected lines of one with a key are counted when its batch is
/// committed.
pub(super) fn count(report: &Report, options: IngestOptions, metrics: &WorkerMetrics, is_keyed: bool) {
    metrics.received.add(u64::from(report.accepted) + u64::from(report.rejected));
    if !options.dry_run && report.rejected > 0 && !is_keyed {
        metrics.reject(options.table, &report.rejected_by_code);
    }
}
