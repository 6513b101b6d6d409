//! `sluicegate check`: connects as `serve` would, and reports whether `serve` would work.

mod finding;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};

use crate::clickhouse::TableConfig;
use crate::clickhouse::arrival;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::delivery::{Delivery, shared_windows};
use crate::clickhouse::description::TableDescription;
use crate::clickhouse::guarantee::{Guarantee, Level};
use crate::clickhouse::tables;
use crate::config::{Settings, TableSettings};
use crate::net;
use crate::spool;

pub use finding::{Finding, Report, Severity};

/// Number of syncs that are timed.
const SYNCS: usize = 21;

/// Prints the report. True if `serve` would work.
///
/// # Errors
///
/// If `out` can't be written.
pub fn run(settings: &Settings, out: &mut impl Write) -> io::Result<bool> {
    let report = report(settings);
    report.print(out)?;
    Ok(report.works())
}

/// Runs all checks.
pub fn report(settings: &Settings) -> Report {
    let mut report = Report::default();
    match settings.clickhouse() {
        Ok(servers) => check_tables(&servers, settings, &mut report),
        Err(error) => report.add(Severity::Error, format!("configuration: {error}")),
    }
    for error in [
        settings.admin_password().err(),
        settings.tls(None).err(),
        settings.address_form().err().or(settings.address_key().err()),
    ]
    .into_iter()
    .flatten()
    {
        report.add(Severity::Error, format!("configuration: {error}"));
    }
    check_keys(settings, &mut report);
    check_addresses(settings, &mut report);
    check_owner(&settings.spool_dir, &mut report);
    check_spool(&settings.spool_dir, &mut report);
    check_files(settings, &mut report);
    report
}

/// Reads the key file.
fn check_keys(settings: &Settings, report: &mut Report) {
    match settings.write_keys(None) {
        Ok(keys) if keys.is_empty() => {}
        Ok(keys) => {
            report.add(Severity::Info, format!("write keys: {}", keys.len()));
            keys.warnings().for_each(|warning| report.add(Severity::Warning, warning));
        }
        Err(error) => report.add(Severity::Error, format!("configuration: {error}")),
    }
}

/// Checks the tables of `--only`, else all of them. With several tables `serve` works while one of them
/// takes events.
fn check_tables(servers: &[ClickHouse], settings: &Settings, report: &mut Report) {
    let tables = settings.selected_tables();
    if let ([table], [_]) = (tables.as_slice(), settings.tables().as_slice()) {
        return check_servers(servers, settings, table, report);
    }
    let mut is_there = false;
    for table in &tables {
        let mut about = Report::default();
        about.add(Severity::Info, format!("table {} at {}:", table.label, table.paths.join(" and ")));
        check_servers(servers, settings, table, &mut about);
        is_there |= about.works();
        report.add_table(&table.label, about);
    }
    if !is_there {
        report.add(Severity::Error, "none of these tables would take events");
    }
}

/// Checks the servers for a table. A server that is away does not prevent a start while another one answers.
fn check_servers(servers: &[ClickHouse], settings: &Settings, table: &TableSettings, report: &mut Report) {
    let (mut windows, mut is_there) = (Vec::new(), false);
    for server in servers {
        is_there |= check_server(server, settings, table, &mut windows, report);
    }
    if !is_there {
        report.add(Severity::Error, "no server of --clickhouse-url can be used");
    }
    if servers.len() > 1 {
        for sentence in shared_windows(&windows) {
            report.add(Severity::Info, sentence);
        }
    }
}

/// Checks a server. True if `serve` can use it.
fn check_server(
    server: &ClickHouse,
    settings: &Settings,
    table: &TableSettings,
    windows: &mut Vec<(String, String)>,
    report: &mut Report,
) -> bool {
    let config = settings.table_config(table);
    let name = &config.name;
    let described = match TableDescription::ask(server, &config) {
        Ok(described) => described,
        Err(error) if config.create && tables::is_created(name) && error.is_missing() => {
            report.add(Severity::Info, format!("{}: {name} is missing; `serve` would create it", server.url()));
            return true;
        }
        Err(error) => {
            let severity = if error.may_pass() { Severity::Warning } else { Severity::Error };
            report.add(severity, format!("{}: {error}", server.url()));
            return false;
        }
    };
    report.add(Severity::Info, format!("ClickHouse {} at {}", described.version, server.url()));
    let plan = match described.plan(&config) {
        Ok(plan) => plan,
        Err(error) => {
            report.add(Severity::Error, format!("{name}: {error}"));
            return false;
        }
    };
    report.add(Severity::Info, format!("columns of {name}:"));
    for column in plan.columns() {
        let default = match &column.default {
            Some(default) if default.ephemeral => format!(", else EPHEMERAL {}", default.expression),
            Some(default) => format!(", else DEFAULT {}", default.expression),
            None => String::new(),
        };
        report.add(Severity::Info, format!("  {} {}: {}{default}", column.name, column.type_name, column.source));
    }
    for column in plan.guessed_units() {
        let text = format!("  {column}: a bare number is a Unix time in the unit that its magnitude says");
        report.add(Severity::Info, text);
    }
    for left in plan.unfillable() {
        let text = format!("  {}: no client can fill it, so it gets its default: {}", left.column, left.reason);
        report.add(Severity::Warning, text);
    }
    if let Err(error) = table.dedup_field.as_ref().map_or(Ok(()), |field| plan.require_field(field)) {
        report.add(Severity::Error, error.to_string());
        return false;
    }
    check_settings(server, &config, report);
    for table in &[name.clone(), name.quarantine()] {
        match Delivery::ask(server, &config, table) {
            Ok(Some(delivery)) => {
                describe(&delivery, report);
                if table == name {
                    windows.push((server.url().to_owned(), delivery.facts.window_name));
                }
            }
            Ok(None) => {
                let text =
                    format!("{table}: missing; `serve` would create it, or rejected lines would wait in the spool");
                report.add(Severity::Info, text);
            }
            Err(error) => {
                report.add(Severity::Error, format!("{table}: {error}"));
                return false;
            }
        }
    }
    true
}

/// Checks that the settings of an INSERT arrive unchanged.
fn check_settings(server: &ClickHouse, config: &TableConfig, report: &mut Report) {
    match arrival::check(server, config) {
        Ok(None) => report.add(Severity::Info, "  the settings of an INSERT arrive unchanged"),
        Ok(Some(altered)) => report.add(Severity::Error, format!("{}: {altered}", server.url())),
        Err(error) => report.add_with_remedy(
            Severity::Error,
            format!("{}: the settings of an INSERT: {error}", server.url()),
            Some(
                "let this user change settings: `readonly` must not be 1, and no constraint may forbid one of them"
                    .into(),
            ),
        ),
    }
}

/// Checks that the addresses are free.
fn check_addresses(settings: &Settings, report: &mut Report) {
    for address in settings.listen.iter().chain([&settings.admin_listen.into()]) {
        match net::probe(address) {
            Ok(()) => report.add(Severity::Info, format!("address {address}: free")),
            Err(error) => report.add(Severity::Error, format!("address {error}")),
        }
    }
}

/// Checks that no other process owns the spool.
fn check_owner(folder: &Path, report: &mut Report) {
    match spool::is_owned(folder) {
        Ok(false) => {}
        Ok(true) => report.add(Severity::Error, format!("spool {}: another process owns it", folder.display())),
        Err(error) => report.add(Severity::Error, format!("spool {}: {error}", folder.display())),
    }
}

fn describe(delivery: &Delivery, report: &mut Report) {
    let Delivery { table, facts, guarantee, horizon, replicas, quorum } = delivery;
    report.add(Severity::Info, format!("{table}:"));
    report.add(Severity::Info, format!("  engine: {}", facts.engine));
    if *replicas > 0 {
        report.add(Severity::Info, format!("  replicas: {replicas}"));
    }
    let partition = if facts.partition_key.is_empty() { "none" } else { &facts.partition_key };
    report.add(Severity::Info, format!("  partition key: {partition}"));
    let window = match (facts.window, facts.window_seconds) {
        (Some(blocks), Some(seconds)) => format!("{blocks} blocks, {seconds} seconds"),
        (Some(blocks), None) => format!("{blocks} blocks"),
        (None, _) => "none".to_owned(),
    };
    report.add(Severity::Info, format!("  deduplication window: {window}"));
    let Guarantee { level, sentence, fix } = guarantee;
    let severity = match level {
        Level::ExactlyOnce => Severity::Info,
        Level::AtLeastOnce | Level::None => Severity::Warning,
        Level::Unfit => Severity::Error,
    };
    report.add_with_remedy(severity, format!("  guarantee: {level}: {sentence}"), fix.clone());
    if let Some(horizon) = horizon {
        let text = format!("  an INSERT without an answer can be repeated safely for: {horizon}");
        report.add(Severity::Info, text);
        if let Some(statement) = &horizon.widen {
            report.add(Severity::Info, format!("  to make that a day: {statement}"));
        }
    }
    if let Some(sentence) = quorum {
        report.add(Severity::Warning, format!("  quorum: {sentence}"));
    }
}

/// Measures how long the disk of the spool takes to write and sync 4 KiB.
fn check_spool(folder: &Path, report: &mut Report) {
    match time_syncs(folder) {
        Ok(mut times) => {
            times.sort_unstable();
            let middle = times.get(SYNCS / 2).copied().unwrap_or_default();
            let worst = times.last().copied().unwrap_or_default();
            let text =
                format!("spool {}: a sync takes {middle} µs (median of {SYNCS}, worst {worst} µs)", folder.display());
            report.add(Severity::Info, text);
        }
        Err(error) => report.add(Severity::Error, format!("spool {}: {error}", folder.display())),
    }
}

fn time_syncs(folder: &Path) -> io::Result<Vec<u128>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let times = (0..SYNCS)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            Ok(begun.elapsed().as_micros())
        })
        .collect();
    fs::remove_file(&path)?;
    times
}

/// Checks the limit of open files, which `serve` raises to the hard limit at its start.
fn check_files(settings: &Settings, report: &mut Report) {
    let Some(limit) = getrlimit(Resource::Nofile).maximum else {
        return report.add(Severity::Info, "open files: no limit");
    };
    let (kept, connections_max) = (settings.descriptors_kept(), settings.connections_max as u64);
    let left = limit.saturating_sub(kept);
    let what = format!("open files: the hard limit is {limit}, of which {kept} are not for connections");
    let (severity, consequence) = match left {
        0 => (Severity::Error, "serve does not start".to_owned()),
        _ if left < connections_max => {
            (Severity::Warning, format!("serve lowers --connections-max from {connections_max} to {left}"))
        }
        _ => return report.add(Severity::Info, format!("{what}; enough for --connections-max {connections_max}")),
    };
    let remedy = "raise it with `ulimit -Hn` or LimitNOFILE=".to_owned();
    report.add_with_remedy(severity, format!("{what}; {consequence}"), Some(remedy));
}
