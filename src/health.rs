//! Would an event be taken now? Written by the server and the committer, read by every worker and
//! by the admin address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::api::{Fault, Reply};
use crate::http::Status;
use crate::spool::SpoolFigures;

/// See the module.
pub struct Health {
    serving: AtomicBool,
    stopping: AtomicBool,
    spool: Arc<SpoolFigures>,
}

/// Why no event would be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unready {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: &'static str,
}

impl Health {
    /// Not serving yet.
    pub fn new(spool: Arc<SpoolFigures>) -> Self {
        Self { serving: AtomicBool::new(false), stopping: AtomicBool::new(false), spool }
    }

    /// The workers listen.
    pub fn serving(&self) {
        self.serving.store(true, Relaxed);
    }

    /// The server stops.
    pub fn stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Why no event would be taken; `None` when it would.
    pub fn unready(&self) -> Option<Unready> {
        if self.stopping.load(Relaxed) {
            return Some(Unready { code: "stopping", message: "The server is stopping." });
        }
        if !self.serving.load(Relaxed) {
            return Some(Unready {
                code: "starting",
                message: "The server waits for ClickHouse: it has never seen the table's columns.",
            });
        }
        self.spool.refusal().map(|refusal| {
            let reason = crate::figures::Shed::from(refusal);
            Unready { code: reason.code(), message: reason.message() }
        })
    }

    /// The reply of `GET /health` on the public address: no details.
    pub fn reply(&self) -> Reply {
        match self.unready() {
            None => Reply::Json(Status::Ok, "{\"status\":\"ok\"}".into()),
            Some(Unready { code, message }) => Reply::Fault(Fault::new(Status::ServiceUnavailable, code, message)),
        }
    }
}
