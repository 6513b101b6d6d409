//! `sluicegate check`: connects as `serve` would, and says what will happen.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::delivery::{Delivery, shared_windows};
use crate::clickhouse::description::TableDescription;
use crate::clickhouse::guarantee::Guarantee;
use crate::config::Settings;
use crate::net;
use crate::spool;

/// Syncs that are timed.
const SYNCS: usize = 21;

/// Files that a connection, a segment or a thread needs, beside the connections themselves.
const FILES_BESIDE_CONNECTIONS: u64 = 200;

/// Prints what `serve` would find; true when it would work.
///
/// # Errors
///
/// Those of writing to `out`.
pub fn run(settings: &Settings, out: &mut impl Write) -> io::Result<bool> {
    let mut works = true;
    match settings.clickhouse() {
        Ok(servers) => {
            let (mut windows, mut is_there) = (Vec::new(), false);
            for server in &servers {
                let found = check_server(server, settings, &mut windows, out)?;
                works &= found != ServerVerdict::Wrong;
                is_there |= found == ServerVerdict::Right;
            }
            works &= is_there;
            if servers.len() > 1 {
                for sentence in shared_windows(&windows) {
                    writeln!(out, "{sentence}")?;
                }
            }
        }
        Err(error) => {
            works = false;
            writeln!(out, "configuration: {error}")?;
        }
    }
    works &= check_addresses(settings, out)?;
    works &= check_owner(&settings.spool_dir, out)?;
    works &= check_spool(&settings.spool_dir, out)?;
    check_files(settings, out)?;
    writeln!(out, "{}", if works { "serve would work" } else { "serve would NOT work" })?;
    Ok(works)
}

/// What a server of ClickHouse is like. One that is away keeps nobody from starting while another
/// is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerVerdict {
    Right,
    Wrong,
    Away,
}

fn check_server(
    server: &ClickHouse,
    settings: &Settings,
    windows: &mut Vec<(String, String)>,
    out: &mut impl Write,
) -> io::Result<ServerVerdict> {
    let (config, name) = (settings.table(), settings.table().name);
    let target = match TableDescription::look(server, &config) {
        Ok(target) => target,
        Err(error) => {
            writeln!(out, "{}: {error}", server.url())?;
            return Ok(if error.may_pass() { ServerVerdict::Away } else { ServerVerdict::Wrong });
        }
    };
    writeln!(out, "ClickHouse {} at {}", target.version, server.url())?;
    let plan = match target.plan() {
        Ok(plan) => plan,
        Err(error) => {
            writeln!(out, "{}: {error}", name)?;
            return Ok(ServerVerdict::Wrong);
        }
    };
    writeln!(out, "columns of {}:", name)?;
    for column in plan.columns() {
        writeln!(out, "  {} {}: {}", column.name, column.type_name, column.source)?;
    }
    if let Err(error) = settings.dedup_field.as_ref().map_or(Ok(()), |field| plan.require_field(field)) {
        writeln!(out, "{error}")?;
        return Ok(ServerVerdict::Wrong);
    }
    for table in [name.clone(), name.quarantine()] {
        match Delivery::ask(server, &config, &table) {
            Ok(Some(delivery)) => {
                describe(&delivery, out)?;
                if table == name {
                    windows.push((server.url().to_owned(), delivery.facts.window_name));
                }
            }
            Ok(None) => writeln!(out, "{table}: missing; `serve` would create it, or hold rejected lines")?,
            Err(error) => {
                writeln!(out, "{table}: {error}")?;
                return Ok(ServerVerdict::Wrong);
            }
        }
    }
    Ok(ServerVerdict::Right)
}

/// Whether somebody listens there already.
fn check_addresses(settings: &Settings, out: &mut impl Write) -> io::Result<bool> {
    let mut free = true;
    for address in settings.listen.iter().chain([&settings.admin_listen]) {
        match net::probe(*address) {
            Ok(_) => writeln!(out, "address {address}: free")?,
            Err(error) => {
                free = false;
                writeln!(out, "address {error}")?;
            }
        }
    }
    Ok(free)
}

/// Whether another process has the spool.
fn check_owner(folder: &Path, out: &mut impl Write) -> io::Result<bool> {
    match spool::is_owned(folder) {
        Ok(false) => Ok(true),
        Ok(true) => {
            writeln!(out, "spool {}: another process owns it", folder.display())?;
            Ok(false)
        }
        Err(error) => {
            writeln!(out, "spool {}: {error}", folder.display())?;
            Ok(false)
        }
    }
}

fn describe(delivery: &Delivery, out: &mut impl Write) -> io::Result<()> {
    let Delivery { table, facts, guarantee, horizon, replicas, quorum } = delivery;
    writeln!(out, "{table}:")?;
    writeln!(out, "  engine: {}", facts.engine)?;
    if *replicas > 0 {
        writeln!(out, "  replicas: {replicas}")?;
    }
    let partition = if facts.partition_key.is_empty() { "none" } else { &facts.partition_key };
    writeln!(out, "  partition key: {partition}")?;
    match (facts.window, facts.window_seconds) {
        (Some(blocks), Some(seconds)) => writeln!(out, "  deduplication window: {blocks} blocks, {seconds} seconds")?,
        (Some(blocks), None) => writeln!(out, "  deduplication window: {blocks} blocks")?,
        (None, _) => writeln!(out, "  deduplication window: none")?,
    }
    let Guarantee { level, sentence, mend } = guarantee;
    writeln!(out, "  guarantee: {level}: {sentence}")?;
    if let Some(statement) = mend {
        writeln!(out, "  to mend it: {statement}")?;
    }
    if let Some(horizon) = horizon {
        writeln!(out, "  an insert without an answer can be repeated safely for: {horizon}")?;
        if let Some(statement) = &horizon.widen {
            writeln!(out, "  to make that a day: {statement}")?;
        }
    }
    if let Some(sentence) = quorum {
        writeln!(out, "  quorum: {sentence}")?;
    }
    Ok(())
}

/// How long the spool's disk takes to make 4 KiB durable.
fn check_spool(folder: &Path, out: &mut impl Write) -> io::Result<bool> {
    let timed = || -> io::Result<Vec<u128>> {
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
    };
    match timed() {
        Ok(mut times) => {
            times.sort_unstable();
            let middle = times.get(SYNCS / 2).copied().unwrap_or_default();
            let worst = times.last().copied().unwrap_or_default();
            writeln!(
                out,
                "spool {}: a sync takes {middle} µs (median of {SYNCS}, worst {worst} µs)",
                folder.display()
            )?;
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "spool {}: {error}", folder.display())?;
            Ok(false)
        }
    }
}

fn check_files(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let needed = settings.connections_max as u64 + FILES_BESIDE_CONNECTIONS;
    match limit {
        Some(limit) if limit < needed => writeln!(
            out,
            "open files: {limit}, less than the {needed} that --connections-max {} needs; raise it with `ulimit -n` or LimitNOFILE=",
            settings.connections_max
        ),
        Some(limit) => writeln!(out, "open files: {limit}, enough for --connections-max {}", settings.connections_max),
        None => writeln!(out, "open files: no limit"),
    }
}
