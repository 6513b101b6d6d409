//! Serving of one request: route, encode, join the batch.

use std::net::IpAddr;

use super::budget::{Charge, Size};
use super::metrics::WorkerMetrics;
use super::outbox::{Outbox, Waiter};
use super::quotas::{Debit, OverQuota};
use super::{Hop, Shared};
use crate::api::{Answer, Api, Reply, ReplyFields, Route, Shed};
use crate::clock::unix_ns;
use crate::connection::Service;
use crate::http::Head;
use crate::ndjson::Origin;

/// The state that serving one request uses, borrowed from its worker: API, batches and counters, and
/// the client's connection and who is in front of it.
pub(crate) struct RequestContext<'a> {
    pub(crate) api: &'a mut Api,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) shared: &'a Shared,
    pub(crate) metrics: &'a WorkerMetrics,
    pub(crate) waiter: Waiter,
    pub(crate) hop: Hop,
    /// What the waiting replies of the connection take of the budget.
    pub(crate) replies: &'a mut Charge,
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

    fn has_room(&self, bytes: usize) -> bool {
        // Who waits for a disk that hangs would wait as long as it does.
        self.outbox.has_room(Size::of(bytes)) || self.shared.health.is_stuck()
    }

    fn serve(&mut self, route: Route, client_ip: Option<IpAddr>, body: &[u8], fields: &mut ReplyFields) -> Answer {
        let options = match route {
            Route::Events(options) => options,
            Route::Health => return Answer::Now(self.shared.health.reply()),
            Route::Options(allow) => return Answer::Now(Reply::Allow(allow)),
            Route::Preflight(methods) => return Answer::Now(Reply::Preflight(methods)),
            Route::Refuse(fault) => return Answer::Now(Reply::Fault(fault)),
        };
        if self.shared.health.is_stuck() {
            self.metrics.shed(Shed::CommitTimeout, 1);
            return Answer::Now(Reply::Fault(Shed::CommitTimeout.into()));
        }
        let origin = Origin { client_ip, server_time_unix_ns: unix_ns() };
        if options.key.is_some() {
            // A request with a key has a batch of its own: the committer may find that it is a repeat.
            self.outbox.hand_over(&self.shared.handoff);
        }
        let Some(mut filling) = self.outbox.fill() else {
            return Answer::Now(Reply::Fault(Shed::InFlightBytes.into()));
        };
        let answer = self.api.take_events(body, options, &origin, filling.batch());
        let waits = match &answer {
            Answer::AfterCommit { reply, .. } if reply.bytes() > 0 => {
                if !self.replies.grow(reply.bytes(), Size::Large) {
                    // Nothing joined the batch: what was appended is rolled back.
                    self.metrics.shed(Shed::InFlightBytes, 1);
                    return Answer::Now(Reply::Fault(Shed::InFlightBytes.into()));
                }
                true
            }
            Answer::AfterCommit { .. } => true,
            Answer::Now(_) => false,
        };
        let report = self.api.report();
        let quotas = &self.shared.quotas;
        if !quotas.is_free(options.writer) && !matches!(answer, Answer::Now(Reply::Fault(_))) {
            let debit = Debit {
                writer: options.writer,
                address: client_ip,
                lines: report.accepted.saturating_add(report.rejected),
                accepted: report.accepted,
            };
            match quotas.charge(&debit) {
                Ok(quota) => {
                    fields.quota = quota;
                    if waits {
                        filling.note_debit(debit);
                    }
                }
                Err(over) => {
                    if let OverQuota::OverRate(quota) = over {
                        fields.quota = Some(quota);
                        if waits && options.key.is_some() {
                            // A repeat is free: the committer knows whether it is one.
                            filling.only_ask();
                            let _ = filling.join(self.waiter);
                            self.outbox.hand_over(&self.shared.handoff);
                            return answer;
                        }
                    }
                    return Answer::Now(Reply::Fault(over.fault()));
                }
            }
        }
        self.metrics.received.add(u64::from(report.accepted) + u64::from(report.rejected));
        if !options.dry_run && report.rejected > 0 {
            if waits && options.key.is_some() {
                // Only the committer knows whether the lines are those of a repeat.
                filling.note_rejected(report.rejected_by_code);
            } else {
                self.metrics.reject(&report.rejected_by_code);
            }
        }
        if waits && (filling.join(self.waiter) || options.key.is_some()) {
            self.outbox.hand_over(&self.shared.handoff);
        }
        answer
    }
}
