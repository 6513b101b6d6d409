//! What `/stats` says besides the metrics: the tables, the held blocks, the servers, the spool and its disk.

use serde::Serialize;

use super::snapshot::Snapshot;
use super::{Admin, AdminTable};
use crate::batch::TableIndex;
use crate::clickhouse::guarantee::Guarantee;
use crate::clickhouse::metrics::OTHER_TABLES;
use crate::clickhouse::name::TableName;
use crate::limits;
use crate::spool::{HeldBlock, Orders};

/// The state of the server at one moment.
pub(super) struct State {
    pub(super) spool: SpoolState,
    pub(super) tables: Vec<TableLine>,
    pub(super) held: Vec<HeldLine>,
    pub(super) servers: Vec<ServerLine>,
    pub(super) inserters: Inserters,
}

/// The spool and its disk.
#[derive(Serialize)]
pub(super) struct SpoolState {
    bytes: u64,
    /// `--spool-bytes-max`.
    bytes_max: u64,
    /// Age of the oldest block that is not inserted; 0 without one.
    oldest_seconds: f64,
    /// Free bytes of the disk; `None` where the system does not say.
    disk_free_bytes: Option<u64>,
    /// `--disk-free-min`.
    disk_free_min_bytes: u64,
}

/// A table of the configuration.
#[derive(Serialize)]
pub(super) struct TableLine {
    label: String,
    table: String,
    /// Its path on the public address.
    path: String,
    /// False while its events are answered with 503.
    available: bool,
    /// Why it is not available, or can't be followed.
    reason: Option<String>,
    /// The lowest of all servers; `None` where none is known yet.
    guarantee: Option<GuaranteeLine>,
    /// Events that are committed and not yet inserted.
    spooled: u64,
    /// Bytes of their frames.
    spool_bytes: u64,
    /// The table's `spool-bytes-max`.
    spool_bytes_max: u64,
    /// Number of held blocks.
    held: u64,
    /// The table of its rejected lines.
    quarantine: String,
}

#[derive(Serialize)]
struct GuaranteeLine {
    level: &'static str,
    text: &'static str,
    fix: Option<String>,
}

impl From<Guarantee> for GuaranteeLine {
    fn from(Guarantee { level, sentence, fix }: Guarantee) -> Self {
        Self { level: level.code(), text: sentence, fix }
    }
}

/// A held block.
#[derive(Serialize)]
pub(super) struct HeldLine {
    block: String,
    /// The label of its table.
    table: String,
    /// Rows that are not decided, and rejected lines that wait with them.
    rows: u64,
    rejected: u64,
    bytes: u64,
    since_unix_ms: u64,
    reason: String,
    /// The command that sends it again, with the orders that it needs.
    command: String,
}

/// A server of `--clickhouse-url`.
#[derive(Serialize)]
pub(super) struct ServerLine {
    url: String,
    answers: Option<bool>,
    version: Option<String>,
    error: Option<String>,
}

/// The inserters.
#[derive(Serialize)]
pub(super) struct Inserters {
    /// `--inserters`.
    count: u64,
    /// Those that work on a block now; more than `count` while INSERTs are silent, which leave their places to
    /// spare ones.
    busy: u64,
}

impl State {
    /// The state now; what waits is that of the snapshot.
    pub(super) fn of(admin: &Admin, snapshot: &Snapshot) -> Self {
        let servers = admin.survey.servers().into_iter();
        Self {
            spool: SpoolState {
                bytes: admin.spool.spool_bytes(),
                bytes_max: admin.spool_limits.bytes_max,
                oldest_seconds: snapshot.oldest_seconds,
                disk_free_bytes: admin.series.disk_free(),
                disk_free_min_bytes: admin.spool_limits.disk_free_min,
            },
            tables: tables(admin, snapshot),
            held: held(admin),
            servers: servers
                .map(|(url, state)| ServerLine {
                    url,
                    answers: state.answers,
                    version: state.version,
                    error: state.error,
                })
                .collect(),
            inserters: Inserters { count: admin.inserters, busy: admin.inserts.busy() },
        }
    }
}

fn tables(admin: &Admin, snapshot: &Snapshot) -> Vec<TableLine> {
    let unavailable = admin.health.unavailable();
    let problems = admin.inserts.problems();
    let held = admin.spool.held.by_table();
    let line = |((place, table), guarantee): ((u16, &AdminTable), Option<Guarantee>)| {
        let index = TableIndex::new(place);
        let available = admin.health.knows_tables() && !unavailable.contains(&index);
        let reason = problems.get(&table.label).cloned();
        let spooled = snapshot.ledger_tables.iter().find(|(label, _)| *label == table.label);
        TableLine {
            label: table.label.clone(),
            table: plain(&table.name),
            path: table.path.clone(),
            available,
            reason: reason.or_else(|| (!available).then(|| "its columns are not known yet".to_owned())),
            guarantee: guarantee.map(GuaranteeLine::from),
            spooled: spooled.map_or(0, |(_, accounts)| accounts.spooled),
            spool_bytes: admin.spool.spooled_bytes(index),
            spool_bytes_max: table.spool_bytes_max,
            held: held.get(&index).copied().unwrap_or(0),
            quarantine: plain(&table.name.quarantine()),
        }
    };
    (0..).zip(&admin.tables).zip(admin.survey.guarantees()).map(line).collect()
}

fn held(admin: &Admin) -> Vec<HeldLine> {
    let line = |HeldBlock { number, table, reason, since_unix_ms }: HeldBlock| {
        // One that is inserted in between has nothing left.
        let (events, bytes) = admin.spool.block(number).unwrap_or_default();
        let label = admin.tables.get(table.get()).map_or(OTHER_TABLES, |table| &table.label);
        HeldLine {
            block: number.to_string(),
            table: label.to_owned(),
            rows: events.rows,
            rejected: events.rejected,
            bytes,
            since_unix_ms,
            reason: reason.text,
            command: command(&number.to_string(), reason.remedy),
        }
    };
    admin.spool.held.blocks(limits::SHOWN_HELD_MAX).into_iter().map(line).collect()
}

/// The command that sends a held block again.
fn command(block: &str, remedy: Orders) -> String {
    let force = if remedy.force { " --force" } else { "" };
    let convert = if remedy.convert { " --convert" } else { "" };
    format!("sluicegate spool requeue --block {block}{force}{convert}")
}

/// A table's name for people.
fn plain(name: &TableName) -> String {
    format!("{}.{}", name.database, name.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_held_block_has_the_orders_that_help() {
        let of = |force, convert| command("7.3", Orders { force, convert });
        assert_eq!(of(false, false), "sluicegate spool requeue --block 7.3");
        assert_eq!(of(true, false), "sluicegate spool requeue --block 7.3 --force");
        assert_eq!(of(false, true), "sluicegate spool requeue --block 7.3 --convert");
    }
}
