//! The tables that events come for: which one has which path, and the encoder of each.

use std::sync::Arc;

use crate::batch::TableIndex;
use crate::ndjson::RowEncoder;
use crate::schema::{Plan, RequestInput};

/// A table that events come for.
#[derive(Debug)]
pub struct ApiTable {
    /// Its name among all tables, for the keys that are for some tables only (`tables=`), and in the
    /// identities of requests.
    pub name: String,
    /// The paths that its events come at, without percent escapes.
    pub paths: Vec<String>,
    /// Encodes its rows, and identifies its events.
    pub encoder: RowEncoder,
}

/// All tables, in the order of their indexes.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Box<[Table]>,
    /// Sorted by path.
    paths: Box<[(Box<str>, TableIndex)]>,
}

#[derive(Debug)]
struct Table {
    name: Box<str>,
    encoder: RowEncoder,
    is_available: bool,
}

impl Tables {
    /// These tables. A path that two of them have belongs to the first.
    pub(super) fn new(tables: Vec<ApiTable>) -> Self {
        let mut paths = Vec::new();
        for (place, table) in (0..).zip(&tables) {
            paths.extend(table.paths.iter().map(|path| (path.clone().into_boxed_str(), TableIndex::new(place))));
        }
        paths.sort();
        paths.dedup_by(|(path, _), (former, _)| path == former);
        let tables = tables.into_iter().map(|ApiTable { name, encoder, .. }| Table {
            name: name.into(),
            encoder,
            is_available: true,
        });
        Self { tables: tables.collect(), paths: paths.into() }
    }

    /// The table at a path.
    #[inline]
    pub(super) fn at(&self, path: &str) -> Option<TableIndex> {
        let place = self.paths.binary_search_by(|(of_table, _)| (**of_table).cmp(path)).ok()?;
        self.paths.get(place).map(|(_, table)| *table)
    }

    /// The name of a table; empty for one that is not there.
    pub(super) fn name(&self, table: TableIndex) -> &str {
        self.tables.get(table.get()).map_or("", |table| &table.name)
    }

    /// True when the table takes events.
    pub(super) fn is_available(&self, table: TableIndex) -> bool {
        self.tables.get(table.get()).is_some_and(|table| table.is_available)
    }

    /// The encoder of a table that takes events.
    pub(super) fn encoder(&mut self, table: TableIndex) -> Option<&mut RowEncoder> {
        let table = self.tables.get_mut(table.get())?;
        table.is_available.then_some(&mut table.encoder)
    }

    /// What the columns of a table get of a request's head.
    pub(super) fn request_inputs(&self, table: TableIndex) -> &[RequestInput] {
        self.tables.get(table.get()).map_or(&[], |table| table.encoder.request_inputs())
    }

    /// See [`super::Api::follow`].
    pub(super) fn follow(&mut self, table: TableIndex, plan: Option<Arc<Plan>>) {
        if let Some(table) = self.tables.get_mut(table.get()) {
            table.is_available = plan.is_some();
            if let Some(plan) = plan {
                table.encoder.follow(plan);
            }
        }
    }
}

#[cfg(test)]
mod tests;
