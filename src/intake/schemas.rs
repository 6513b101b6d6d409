//! The schema of each table: published by who asks ClickHouse for it, and followed by each worker.

use super::outbox::Outbox;
use crate::api::Api;
use crate::batch::TableIndex;
use crate::handoff::{Handoff, ListSubscription, PublishedList};
use crate::schema::SchemaVersion;

/// The schema of each table, in the order of the tables; `None` while a table is unavailable, because it
/// is missing or can't be filled.
pub type Schemas = PublishedList<Option<SchemaVersion>>;

/// A worker's view of the schemas.
pub(crate) struct SchemaFollower(ListSubscription<Option<SchemaVersion>>);

impl SchemaFollower {
    /// A view that has taken no schema yet. What `api` knows of the tables is replaced by the first look.
    pub(crate) fn new(schemas: &Schemas) -> Self {
        Self(ListSubscription::new(schemas))
    }

    /// Encodes all further events for the newest schemas, and calls `changed` with each table whose schema
    /// is another one. Costs one atomic load when there is none.
    #[inline]
    pub(crate) fn follow(
        &mut self,
        api: &mut Api,
        outbox: &mut Outbox,
        handoff: &Handoff,
        mut changed: impl FnMut(TableIndex),
    ) {
        self.0.take_changed(|table, version| {
            if let Some(version) = &*version {
                outbox.change_schema(table, version.frozen.clone(), handoff);
            }
            api.follow(table, version.as_ref().as_ref().map(|version| version.plan.clone()));
            changed(table);
        });
    }
}
