//! Readiness: whether the server accepts events now. The server and the committer set its inputs;
//! every worker and the admin address read it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Schemas;
use crate::api::{Fault, Reply, Shed, TABLE_UNAVAILABLE};
use crate::batch::TableIndex;
use crate::handoff::Lifecycle;
use crate::http::Status;
use crate::spool::SpoolMetrics;

/// The readiness of the server, derived from its lifecycle and the state of the spool.
pub struct Health {
    lifecycle: Arc<Lifecycle>,
    spool: Arc<SpoolMetrics>,
    commit_timeout: Duration,
    /// Empty until the server knows them.
    schemas: OnceLock<Arc<Schemas>>,
}

impl Health {
    /// The readiness of a server with this lifecycle and this spool, where a commit may take so long.
    pub fn new(lifecycle: Arc<Lifecycle>, spool: Arc<SpoolMetrics>, commit_timeout: Duration) -> Self {
        Self { lifecycle, spool, commit_timeout, schemas: OnceLock::new() }
    }

    /// Looks at these schemas from now on: a server of which no table takes events is not ready.
    pub fn look_at(&self, schemas: Arc<Schemas>) {
        // Its only other caller would be a second start.
        let _ = self.schemas.set(schemas);
    }

    /// True once the columns of the tables are known, or that they are not there.
    pub fn knows_tables(&self) -> bool {
        self.schemas.get().is_some()
    }

    /// The tables that take no events now, because they are missing or can't be filled.
    pub fn unavailable(&self) -> Vec<TableIndex> {
        let tables = self.schemas.get().into_iter().flat_map(|schemas| (0..).zip(schemas.values()));
        tables.filter(|(_, schema)| schema.newest().is_none()).map(|(place, _)| TableIndex::new(place)).collect()
    }

    fn has_table(&self) -> bool {
        let is_available = |schemas: &Arc<Schemas>| schemas.values().iter().any(|schema| schema.newest().is_some());
        self.schemas.get().is_none_or(is_available)
    }

    /// True since a stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.lifecycle.is_stopping()
    }

    /// True while the committer has been at one thing for longer than a commit may take: the disk hangs,
    /// and nobody knows until when.
    pub fn is_stuck(&self) -> bool {
        self.spool.busy_for() > self.commit_timeout
    }

    /// Why events are not accepted now; `None` when they are.
    pub fn unready(&self) -> Option<Fault> {
        if self.lifecycle.is_stopping() || self.lifecycle.leaving_since().is_some() {
            return Some(STOPPING);
        }
        if self.lifecycle.is_starting() {
            return Some(STARTING);
        }
        if !self.has_table() {
            return Some(TABLE_UNAVAILABLE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Plan, SchemaVersion};

    #[test]
    fn the_server_is_ready_while_one_of_its_tables_takes_events_and_names_the_others() {
        let lifecycle = Arc::<Lifecycle>::default();
        lifecycle.serve();
        let health = Health::new(lifecycle, Arc::default(), Duration::from_secs(60));
        assert!(health.unready().is_none() && health.unavailable().is_empty());
        let schemas = Arc::new(Schemas::new([None, None, None]));
        health.look_at(schemas.clone());
        assert_eq!(health.unready(), Some(TABLE_UNAVAILABLE));
        assert_eq!(health.unavailable().len(), 3);
        schemas.values()[1].publish(Some(SchemaVersion::new(Plan::none(), Vec::new())));
        assert_eq!(health.unready(), None);
        assert_eq!(health.unavailable(), [TableIndex::new(0), TableIndex::new(2)]);
    }
}
