//! What a connection sees of its worker while a request of it is served; with either engine.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use crate::api::{Answer, Api, Reply, Route};
use crate::connection::Service;
use crate::figures::{Shed, WorkerFigures};
use crate::http::Head;
use crate::ndjson::Origin;
use crate::outbox::{Outbox, Waiter};

/// See the module.
pub(crate) struct Desk<'a> {
    pub(crate) api: &'a mut Api,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) shared: &'a Shared,
    pub(crate) figures: &'a WorkerFigures,
    pub(crate) waiter: Waiter,
    pub(crate) client_ip: IpAddr,
}

impl Service for Desk<'_> {
    fn route(&self, head: &Head<'_>) -> Route {
        self.api.route(head)
    }

    fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    fn serve(&mut self, route: Route, body: &[u8]) -> (Answer, u64) {
        let take = match route {
            Route::Events(take) => take,
            Route::Health => return (Answer::now(self.shared.health.reply()), 0),
            Route::Options(allow) => return (Answer::now(Reply::Allow(allow)), 0),
            Route::Refuse(fault) => return (Answer::now(Reply::Fault(fault)), 0),
        };
        let origin = Origin { client_ip: self.client_ip, server_time_unix_ns: unix_ns() };
        if take.key.is_some() {
            // A request with a key is a batch of its own: it may turn out not to be stored.
            self.outbox.hand_over(&self.shared.handoff);
        }
        let Some((batch, sequence)) = self.outbox.filling() else {
            return (Answer::now(Reply::Fault(Shed::InFlightBytes.into())), 0);
        };
        let answer = self.api.take_events(body, take, &origin, batch);
        let report = self.api.report();
        self.figures.received.add(u64::from(report.accepted) + u64::from(report.rejected));
        if !take.dry_run && report.rejected > 0 {
            if answer.after_commit && take.key.is_some() {
                // Only the committer knows whether they were refused before.
                self.outbox.note_rejected(report.rejected_by_code);
            } else {
                self.figures.reject(&report.rejected_by_code);
            }
        }
        if answer.after_commit {
            self.outbox.wait_for_filling(self.waiter, &self.shared.handoff);
            if take.key.is_some() {
                self.outbox.hand_over(&self.shared.handoff);
            }
        }
        (answer, sequence)
    }
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
