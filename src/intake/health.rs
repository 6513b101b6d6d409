//! Readiness: whether the server accepts events now. The server and the committer set its inputs;
//! every worker and the admin address read it.

use std::sync::Arc;

use crate::api::{Fault, Reply, Shed};
use crate::handoff::Lifecycle;
use crate::http::Status;
use crate::spool::SpoolMetrics;

/// The readiness of the server, derived from its lifecycle and the state of the spool.
pub struct Health {
    lifecycle: Arc<Lifecycle>,
    spool: Arc<SpoolMetrics>,
}

impl Health {
    /// The readiness of a server with this lifecycle and this spool.
    pub fn new(lifecycle: Arc<Lifecycle>, spool: Arc<SpoolMetrics>) -> Self {
        Self { lifecycle, spool }
    }

    /// Why events are not accepted now; `None` when they are.
    pub fn unready(&self) -> Option<Fault> {
        if self.lifecycle.is_stopping() {
            return Some(STOPPING);
        }
        if self.lifecycle.is_starting() {
            return Some(STARTING);
        }
        self.spool.refusal().map(|refusal| Shed::Commit(refusal).into())
    }

    /// The reply to `GET /health` on the public address, without details.
    pub fn reply(&self) -> Reply {
        match self.unready() {
            None => Reply::Json(Status::Ok, "{\"status\":\"ok\"}".into()),
            Some(fault) => Reply::Fault(fault),
        }
    }
}

const STOPPING: Fault = Fault::new(Status::ServiceUnavailable, "stopping", "The server is stopping.");
const STARTING: Fault = Fault::new(
    Status::ServiceUnavailable,
    "starting",
    "The server waits for ClickHouse, because it does not know the columns of the table yet.",
);
