//! Readiness: whether the server accepts events now. The server and the committer set its inputs;
//! every worker and the admin address read it.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{Fault, Reply, Shed};
use crate::handoff::Lifecycle;
use crate::http::Status;
use crate::spool::SpoolMetrics;

/// The readiness of the server, derived from its lifecycle and the state of the spool.
pub struct Health {
    lifecycle: Arc<Lifecycle>,
    spool: Arc<SpoolMetrics>,
    commit_timeout: Duration,
}

impl Health {
    /// The readiness of a server with this lifecycle and this spool, where a commit may take so long.
    pub fn new(lifecycle: Arc<Lifecycle>, spool: Arc<SpoolMetrics>, commit_timeout: Duration) -> Self {
        Self { lifecycle, spool, commit_timeout }
    }

    /// True while the committer has been at one thing for longer than a commit may take: the disk hangs,
    /// and nobody knows until when.
    pub fn is_stuck(&self) -> bool {
        self.spool.busy_for() > self.commit_timeout
    }

    /// Why events are not accepted now; `None` when they are.
    pub fn unready(&self) -> Option<Fault> {
        if self.lifecycle.is_stopping() {
            return Some(STOPPING);
        }
        if self.lifecycle.is_starting() {
            return Some(STARTING);
        }
        if self.is_stuck() {
            return Some(Shed::CommitTimeout.into());
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
