//! Would an event be taken now? Written by the server and the committer, read by every worker and
//! by the admin address.

use std::sync::Arc;

use crate::api::{Fault, Reply, Shed};
use crate::handoff::Lifecycle;
use crate::http::Status;
use crate::spool::SpoolMetrics;

/// Whether an event would be taken: from where the server is in its life, and what the spool says.
pub struct Health {
    lifecycle: Arc<Lifecycle>,
    spool: Arc<SpoolMetrics>,
}

impl Health {
    /// The health of a server in this phase, with this spool.
    pub fn new(lifecycle: Arc<Lifecycle>, spool: Arc<SpoolMetrics>) -> Self {
        Self { lifecycle, spool }
    }

    /// Why no event would be taken; `None` when it would.
    pub fn unready(&self) -> Option<Fault> {
        if self.lifecycle.is_stopping() {
            return Some(STOPPING);
        }
        if self.lifecycle.is_starting() {
            return Some(STARTING);
        }
        self.spool.refusal().map(|refusal| Shed::Commit(refusal).into())
    }

    /// The reply of `GET /health` on the public address: no details.
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
    "The server waits for ClickHouse: it has never seen the table's columns.",
);
