//! What `check --json` says beside its findings.

use serde::Serialize;

use super::disk::Disk;
use super::memory::Memory;
use super::{Finding, Findings};
use crate::clickhouse::delivery::Delivery;
use crate::clickhouse::guarantee::Level;
use crate::config::TableSettings;
use crate::schema::{Plan, PlanColumn};

/// Everything that was found out.
#[derive(Debug, Default)]
pub struct Facts {
    /// A server runs on this configuration.
    pub running: bool,
    /// Each server of `--clickhouse-url`.
    pub servers: Vec<ServerFacts>,
    /// Each table.
    pub tables: Vec<TableFacts>,
    /// The disk of the spool.
    pub disk: Option<Disk>,
    /// The hard limit of open files; `None` without one.
    pub files_limit: Option<u64>,
    /// What may be in memory.
    pub memory: Option<Memory>,
}

/// A server of ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerFacts {
    url: String,
    /// `null` if it does not answer.
    version: Option<String>,
    /// What it answers instead.
    error: Option<String>,
}

/// A table, as the first server that has it describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableFacts {
    table: String,
    label: String,
    path: String,
    paths: Vec<String>,
    /// It would take events.
    pub works: bool,
    engine: Option<String>,
    columns: Vec<ColumnFacts>,
    /// Number of blocks whose tokens are remembered; `null` if none is.
    dedup_window: Option<u64>,
    dedup_window_seconds: Option<u64>,
    partition_key: Option<String>,
    replicas: u64,
    guarantee: Option<GuaranteeFacts>,
    /// For how long an INSERT without an answer can be repeated safely.
    horizon_seconds: Option<f64>,
    quarantine: Option<QuarantineFacts>,
}

/// A column, and where its values come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ColumnFacts {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    source: String,
    /// The expression that a missing value gets.
    default: Option<String>,
}

/// What a table promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct GuaranteeFacts {
    level: &'static str,
    text: &'static str,
    fix: Option<String>,
}

/// The quarantine of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct QuarantineFacts {
    table: String,
    engine: String,
    guarantee: GuaranteeFacts,
}

/// The whole of `check --json`.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    works: bool,
    running: bool,
    findings: Vec<Finding>,
    /// The first server that answers, else the first.
    clickhouse: Option<&'a ServerFacts>,
    servers: &'a [ServerFacts],
    tables: &'a [TableFacts],
    disk: &'a Option<Disk>,
    files_limit: Option<u64>,
    memory: &'a Option<Memory>,
}

impl Facts {
    /// All of it as JSON.
    ///
    /// # Errors
    ///
    /// If it can't be encoded.
    pub fn to_json(&self, findings: &Findings) -> Result<String, sonic_rs::Error> {
        let answers = self.servers.iter().find(|server| server.version.is_some());
        sonic_rs::to_string(&Document {
            version: env!("CARGO_PKG_VERSION"),
            works: findings.works(),
            running: self.running,
            findings: findings.listed(),
            clickhouse: answers.or(self.servers.first()),
            servers: &self.servers,
            tables: &self.tables,
            disk: &self.disk,
            files_limit: self.files_limit,
            memory: &self.memory,
        })
    }

    /// Notes how a server answers; the first time counts.
    pub fn note_server(&mut self, url: &str, answer: Result<&str, String>) {
        if self.servers.iter().all(|server| server.url != url) {
            let (version, error) = match answer {
                Ok(version) => (Some(version.to_owned()), None),
                Err(error) => (None, Some(error)),
            };
            self.servers.push(ServerFacts { url: url.to_owned(), version, error });
        }
    }
}

impl TableFacts {
    /// A table of which nothing is known but its settings.
    pub fn new(table: &TableSettings) -> Self {
        Self {
            table: format!("{}.{}", table.name.database, table.name.table),
            label: table.label.clone(),
            path: table.paths.first().cloned().unwrap_or_default(),
            paths: table.paths.clone(),
            works: false,
            engine: None,
            columns: Vec::new(),
            dedup_window: None,
            dedup_window_seconds: None,
            partition_key: None,
            replicas: 0,
            guarantee: None,
            horizon_seconds: None,
            quarantine: None,
        }
    }

    /// Notes the columns; the first server counts.
    pub fn note_columns(&mut self, plan: &Plan) {
        if self.columns.is_empty() {
            self.columns = plan.columns().iter().map(ColumnFacts::new).collect();
        }
    }

    /// Notes what the table, or its quarantine, promises; the first server counts.
    pub fn note_delivery(&mut self, delivery: &Delivery, is_quarantine: bool) {
        let Delivery { table, facts, horizon, replicas, .. } = delivery;
        let guarantee = GuaranteeFacts::new(delivery);
        if is_quarantine {
            let table = format!("{}.{}", table.database, table.table);
            let engine = facts.engine.clone();
            self.quarantine.get_or_insert(QuarantineFacts { table, engine, guarantee });
        } else if self.engine.is_none() {
            self.engine = Some(facts.engine.clone());
            (self.dedup_window, self.dedup_window_seconds) = (facts.window, facts.window_seconds);
            self.partition_key = Some(facts.partition_key.clone());
            self.replicas = *replicas;
            self.guarantee = Some(guarantee);
            self.horizon_seconds = horizon.as_ref().map(|horizon| horizon.duration.as_secs_f64());
        }
    }
}

impl ColumnFacts {
    fn new(column: &PlanColumn) -> Self {
        Self {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            source: column.source.to_string(),
            default: column.default.as_ref().map(|default| default.expression.clone()),
        }
    }
}

impl GuaranteeFacts {
    fn new(delivery: &Delivery) -> Self {
        let level = match delivery.guarantee.level {
            Level::ExactlyOnce => "exactly_once",
            Level::AtLeastOnce => "at_least_once",
            Level::None => "none",
            Level::Unfit => "unfit",
        };
        Self { level, text: delivery.guarantee.sentence, fix: delivery.guarantee.fix.clone() }
    }
}
