//! Serving of one request: route, decode, encode, join the batch.

use std::net::IpAddr;

use super::Shared;
use super::budget::{Charge, Size};
use super::large::LargeRequests;
use super::metrics::WorkerMetrics;
use super::outbox::{Filling, Outbox, Waiter};
use crate::api::{Answer, Api, IngestOptions, Reply, Route, Shed};
use crate::clock::unix_ns;
use crate::connection::{Served, Service};
use crate::http::Head;
use crate::limits;
use crate::ndjson::{Origin, Report};

/// The state that serving one request uses, borrowed from its worker: API, batches and counters, and
/// the client's connection and address.
pub(crate) struct RequestContext<'a> {
    pub(crate) api: &'a mut Api,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) large: &'a mut LargeRequests,
    pub(crate) shared: &'a Shared,
    pub(crate) metrics: &'a WorkerMetrics,
    pub(crate) waiter: Waiter,
    pub(crate) client_ip: IpAddr,
    /// What the waiting replies of the connection take of the budget.
    pub(crate) replies: &'a mut Charge,
    /// Bytes of content that may still be decoded in this visit of the connection.
    pub(crate) decoded_left: usize,
}

impl Service for RequestContext<'_> {
    fn route(&self, head: &Head<'_>) -> Route {
        self.api.route(head)
    }

    fn has_room(&self, bytes: usize) -> bool {
        // Who waits for a disk that hangs would wait as long as it does. A large request that is under way
        // has a batch.
        self.outbox.has_room(Size::of(bytes)) || self.shared.health.is_stuck() || self.large.is_of(self.waiter)
    }

    fn serve(&mut self, route: Route, body: &[u8]) -> Served {
        let Route::Events(options) = route else {
            return Served::Answered(self.serve_at_once(route, body));
        };
        if self.large.is_of(self.waiter) {
            return self.continue_large(body);
        }
        if let Some(coding) = options.coding {
            return self.serve_coded(options, coding, body);
        }
        if body.len() > limits::SLICE_BYTES && !self.shared.health.is_stuck() {
            return self.begin_large(options, body, None);
        }
        Served::Answered(self.serve_at_once(route, body))
    }
}

impl RequestContext<'_> {
    /// Serves a request in one go, however long its body is. A coded body is decoded already.
    pub(crate) fn serve_at_once(&mut self, route: Route, body: &[u8]) -> Answer {
        let options = match route {
            Route::Events(options) => options,
            Route::Health => return Answer::Now(self.shared.health.reply()),
            Route::Options(allow) => return Answer::Now(Reply::Allow(allow)),
            Route::Refuse(fault) => return Answer::Now(Reply::Fault(fault)),
        };
        if self.shared.health.is_stuck() {
            return self.shed(Shed::CommitTimeout);
        }
        let origin = self.origin();
        if options.key.is_some() {
            // A request with a key has a batch of its own: the committer may find that it is a repeat.
            self.outbox.hand_over(&self.shared.handoff);
        }
        let Some(mut filling) = self.outbox.fill() else {
            return Answer::Now(Reply::Fault(Shed::InFlightBytes.into()));
        };
        let answer = self.api.take_events(body, options, &origin, filling.batch());
        let joining = Joining { options, replies: self.replies, metrics: self.metrics, waiter: self.waiter };
        let (answer, is_full) = joining.join(answer, self.api.report(), filling);
        if is_full {
            self.outbox.hand_over(&self.shared.handoff);
        }
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

/// What is left to do with a request whose events are encoded.
pub(super) struct Joining<'a> {
    pub(super) options: IngestOptions,
    pub(super) replies: &'a mut Charge,
    pub(super) metrics: &'a WorkerMetrics,
    pub(super) waiter: Waiter,
}

impl Joining<'_> {
    /// Counts the events, and joins the batch if the answer waits for it. Also returns true when the batch
    /// has to be handed over before another request is served.
    pub(super) fn join(self, answer: Answer, report: &Report, mut filling: Filling<'_>) -> (Answer, bool) {
        let Self { options, replies, metrics, waiter } = self;
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
        let is_keyed = waits && options.key.is_some();
        count(report, options, metrics, is_keyed);
        if is_keyed {
            // Only the committer knows whether the lines are those of a repeat.
            filling.note_rejected(report.rejected_by_code);
        }
        let is_full = waits && (filling.join(waiter) || is_keyed);
        (answer, is_full)
    }
}

/// Counts the lines of a request. The rejected lines of one with a key are counted when its batch is
/// committed.
pub(super) fn count(report: &Report, options: IngestOptions, metrics: &WorkerMetrics, is_keyed: bool) {
    metrics.received.add(u64::from(report.accepted) + u64::from(report.rejected));
    if !options.dry_run && report.rejected > 0 && !is_keyed {
        metrics.reject(&report.rejected_by_code);
    }
}
