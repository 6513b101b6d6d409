//! The tables of the configuration as the start of the server deals with them.

use std::path::PathBuf;
use std::sync::Arc;

use super::discover::Known;
use super::threads::ServerError;
use crate::admin::AdminTable;
use crate::api::ApiTable;
use crate::batch::TableIndex;
use crate::clickhouse::TableConfig;
use crate::clickhouse::description::TableDescription;
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::settings::InsertFormat;
use crate::clickhouse::watcher::WatchedTable;
use crate::config::{Settings, TableSettings};
use crate::insert::native;
use crate::intake::Schemas;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::replay::ReplayTable;
use crate::ndjson::{AddressForm, AddressKey, FieldCounts, RowEncoder};
use crate::schema::{Plan, SchemaVersion, Unfillable};
use crate::spool::Spool;

/// The path of the public address that has no table's name.
const EVENTS_PATH: &str = "/api/events";

/// Tables whose columns with guessed units are named at the start.
const GUESSED_SHOWN_MAX: usize = 20;

/// A table of the configuration.
pub(super) struct Target {
    pub(super) settings: TableSettings,
    pub(super) config: TableConfig,
    /// The file that keeps its last known columns.
    pub(super) path: PathBuf,
}

impl Target {
    /// The tables of the settings, in their order.
    pub(super) fn all(settings: &Settings, spool: &Spool) -> Vec<Self> {
        let tables = settings.tables().into_iter().zip(0..);
        tables
            .map(|(table, place)| Self {
                config: settings.table_config(&table),
                path: spool.schema_path(TableIndex::new(place)),
                settings: table,
            })
            .collect()
    }

    /// The table on the admin address.
    pub(super) fn admin_table(table: TableSettings) -> AdminTable {
        let TableSettings { name, label, paths, spool_bytes_max, .. } = table;
        let is_default = paths.iter().any(|path| path == EVENTS_PATH);
        AdminTable { name, label, is_default, path: paths.into_iter().next().unwrap_or_default(), spool_bytes_max }
    }

    /// The first version of the schema.
    fn first_version(&self, table: &TableDescription) -> Result<SchemaVersion, ServerError> {
        let version = table.first_version(&self.config)?;
        for Unfillable { column, reason } in version.plan.unfillable() {
            tracing::warn!(
                table = self.settings.label,
                column,
                reason,
                "no client can fill this column; it gets its default"
            );
        }
        warn_of_format(&table.freeze(&version.plan, &self.config), &self.config);
        Ok(version)
    }
}

/// Names the columns whose bare numbers are times in a unit that is guessed, in one line.
fn say_guessed(targets: &[Target], versions: &[Option<SchemaVersion>]) {
    let of_table = |(target, version): (&Target, &Option<SchemaVersion>)| {
        let columns: Vec<&str> = version.as_ref()?.plan.guessed_units().collect();
        (!columns.is_empty()).then(|| format!("{}: {}", target.settings.label, columns.join(", ")))
    };
    let guessed: Vec<String> = targets.iter().zip(versions).filter_map(of_table).collect();
    let (shown, more) = guessed.split_at(guessed.len().min(GUESSED_SHOWN_MAX));
    if !shown.is_empty() {
        let more = (!more.is_empty()).then_some(more.len());
        tracing::info!(
            columns = shown.join("; "),
            more_tables = more,
            "bare numbers in these columns are Unix times in the unit that their magnitude says; `columns` may name the unit"
        );
    }
}

/// What is stored of clients' addresses.
pub(super) struct StoredAddresses {
    /// As a rule.
    pub(super) form: AddressForm,
    /// The key of hashes, if any column gets one.
    pub(super) key: Option<AddressKey>,
}

/// The tables, and what is known of each.
pub(super) struct Targets {
    pub(super) all: Vec<Target>,
    /// The descriptions that events are encoded for, by table; `None` for one that is unavailable.
    known: Vec<Option<TableDescription>>,
    pub(super) schemas: Arc<Schemas>,
}

impl Targets {
    /// The schemas of the tables. One of several that can't be filled is unavailable, and `metrics` says why.
    pub(super) fn new(all: Vec<Target>, known: Vec<Known>, metrics: &InsertMetrics) -> Result<Self, ServerError> {
        let is_alone = all.len() == 1;
        let (mut described, mut versions) = (Vec::new(), Vec::new());
        for (target, known) in all.iter().zip(known) {
            let found = match known {
                Known::Described(table) => match target.first_version(&table) {
                    Ok(version) => Ok((table, version)),
                    Err(error) if is_alone => return Err(error),
                    Err(error) => Err(error.to_string()),
                },
                Known::Unavailable(reason) if is_alone => return Err(ServerError(reason)),
                Known::Unavailable(reason) => Err(reason),
            };
            let label = &target.settings.label;
            let (table, version) = match found {
                Ok((table, version)) => (Some(table), Some(version)),
                Err(reason) => {
                    tracing::warn!(table = label, reason, "a table takes no events; they are answered with 503");
                    metrics.set_problem(label, Some(format!("{reason}; its events are answered with 503")));
                    (None, None)
                }
            };
            described.push(table);
            versions.push(version);
        }
        say_guessed(&all, &versions);
        Ok(Self { all, known: described, schemas: Arc::new(Schemas::new(versions)) })
    }

    /// The configurations of the tables.
    pub(super) fn configs(&self) -> Vec<TableConfig> {
        self.all.iter().map(|target| target.config.clone()).collect()
    }

    /// The tables as each worker needs them.
    pub(super) fn for_api(
        &self,
        settings: &Settings,
        addresses: &StoredAddresses,
        metrics: &WorkerMetrics,
    ) -> Vec<ApiTable> {
        let table = |((target, encoder), counts): ((&Target, RowEncoder), &Arc<FieldCounts>)| ApiTable {
            name: target.settings.label.clone(),
            paths: target.settings.paths.clone(),
            encoder: encoder
                .with_request_inputs(target.config.mapping.request_inputs().into())
                .hashing_addresses(addresses.key.clone())
                .counting(counts.clone()),
        };
        self.encoders(settings, addresses).zip(&metrics.fields).map(table).collect()
    }

    /// The tables whose rejected lines can be sent again.
    pub(super) fn for_replay(&self, settings: &Settings, addresses: &StoredAddresses) -> Vec<ReplayTable> {
        // The hash of a part of an address is not that of the address.
        let key = addresses.key.as_ref().filter(|_| matches!(addresses.form, AddressForm::Full));
        let table = |(target, encoder): (&Target, RowEncoder)| ReplayTable {
            name: target.settings.label.clone(),
            encoder: encoder.hashing_addresses(key.cloned()),
        };
        self.encoders(settings, addresses).map(table).collect()
    }

    /// The tables as the watcher follows them.
    pub(super) fn watched(self) -> Vec<WatchedTable> {
        let Self { all, known, schemas } = self;
        let tables = all.into_iter().zip(known).zip(schemas.values());
        tables
            .map(|((Target { settings, config, path }, known), schema)| WatchedTable {
                config,
                label: settings.label,
                schema: schema.clone(),
                path,
                known,
            })
            .collect()
    }

    fn encoders<'a>(
        &'a self,
        settings: &'a Settings,
        addresses: &'a StoredAddresses,
    ) -> impl Iterator<Item = (&'a Target, RowEncoder)> {
        // Workers follow the schemas: a table that is unavailable gets its plan when it is there.
        let none = Arc::new(Plan::none());
        self.all.iter().zip(self.schemas.values()).map(move |(target, schema)| {
            let plan = (*schema.newest()).as_ref().map_or_else(|| none.clone(), |version| version.plan.clone());
            let encoder = RowEncoder::new(plan, settings.encode_limits())
                .with_invalid_text(settings.invalid_text)
                .writing_addresses(addresses.form.clone());
            (target, encoder.identifying(target.settings.dedup_field.as_deref()))
        })
    }
}

fn warn_of_format(frozen: &Frozen, config: &TableConfig) {
    if config.insert_format != InsertFormat::Native {
        return;
    }
    if let Some(reason) = native::why_not(frozen) {
        tracing::warn!(
            table = %config.name,
            reason,
            "--insert-format native is not used for this table, and its rows are sent as RowBinary"
        );
    }
}
