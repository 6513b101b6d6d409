//! `sluicegate quarantine replay`: sends the lines of the quarantine table to the running server again.
//!
//! ```text
//! quarantine table ── stream, by code and second ──▶ request ──▶ server: which lines are good now
//!        ▲                                                          │ acknowledged
//!        └──────────────── DELETE of the good ones ◀────────────────┘
//! ```
//!
//! The requests go to the admin address, with the address and the time of each line. A line is deleted
//! only after the server has acknowledged it. A line that is rejected again stays as it is. If this
//! program ends between reply and delete, the next replay makes the same requests, under the same
//! keys, and the server stores nothing twice. For that the rows of one second are deleted together, or
//! not at all.
//!
//! A key is known only to the node that took the request, and for a day. Before the first request a
//! row with the code `replay` in the quarantine table therefore names the node; the end of the replay
//! deletes the row. A replay through another node, or a day later, finds the row and reports that it
//! may store lines twice.
//!
//! A row of the table is identified only by its content, which includes the second of its rejection. A
//! row that arrives while an equal row is replayed would be deleted with that row. A replay therefore
//! takes only rows of seconds that have passed on the server's clock. A row of such a second that
//! reaches the table after it was read, and equals another row in every column, is taken for that row.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::time::Duration;

use serde::Deserialize;

use super::row::{self, Request};
use super::{MARK, QuarantineTable, Since, missing, quarantine_tables, since};
use crate::clickhouse::client::ClientError;
use crate::commands::running::RunningServer;
use crate::config::cli::ReplayArgs;
use crate::config::{ConfigError, TableSettings};
use crate::limits;

/// The most lines of a request. The server refuses a request with more bad lines as a whole.
const LINES_MAX: usize = limits::BAD_LINES_MAX as usize;

const BODY_BYTES_MAX: u64 = 1 << 20;

/// The path of the admin address that takes lines again.
const PATH: &str = "/quarantine/replay";

/// The server remembers keys for a day; this leaves an hour for the replay itself.
const KEYS_KEPT_SECONDS: u32 = 23 * 3600;

/// The server's error for a key that came before with other good lines.
const KEY_REUSED: &str = "idempotency_key_reused";

/// Number of acknowledged lines after which they are deleted, at the end of their second.
const DELETE_AFTER: u64 = 1000;

/// The most names in one DELETE. For a replicated table, Keeper takes at most 1 MiB.
const NAMES_MAX: usize = 10_000;

/// Time limit for the stream of a table's lines.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The most times that the server's clock is read, every 100 ms, until a second has passed.
const CLOCK_READS_MAX: u32 = 50;

/// Time limit for one request to the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the lines of the quarantine to the running server, and prints the result.
///
/// # Errors
///
/// If ClickHouse or the server does not answer, or the server does not acknowledge a request. Lines
/// that were acknowledged before are not sent again. Also if another node may have stored some of the
/// lines.
pub fn replay(arguments: &ReplayArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let since = since(arguments.since.as_deref());
    let (selected, has_several) = (settings.selected_tables(), settings.tables().len() > 1);
    for table in &selected {
        let quarantines = match quarantine_tables(settings, &table.name, &since, out)? {
            Some(quarantines) => quarantines,
            None if selected.len() > 1 => {
                writeln!(out, "there is no table {}", table.name.quarantine())?;
                continue;
            }
            None => return Err(missing(&table.name)),
        };
        if has_several {
            writeln!(out, "table {}:", table.label)?;
        }
        replay_table(arguments, table, &since, &quarantines, out)?;
    }
    Ok(())
}

fn replay_table(
    arguments: &ReplayArgs,
    table: &TableSettings,
    since: &Since<'_>,
    quarantines: &[QuarantineTable],
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let server = RunningServer::new(settings, REQUEST_TIMEOUT)?;
    let has_several = settings.tables().len() > 1;
    let path = if has_several { format!("{PATH}?table={}", table.label) } else { PATH.to_owned() };
    let target = match (arguments.dry_run, has_several) {
        (false, _) => path.clone(),
        (true, false) => format!("{path}?dry_run=1"),
        (true, true) => format!("{path}&dry_run=1"),
    };
    let node = Node::ask(&server, &path)?;
    let name = table.name.to_string();
    if node.table != name {
        let url = server.url(PATH);
        return Err(ConfigError(format!("the server at {url} takes lines for {}, not for {name}", node.table)).into());
    }
    let until = if arguments.dry_run { u32::MAX } else { node.last_full_second(&server, &path)? };
    let mut total = Totals::default();
    for quarantine in quarantines {
        if !arguments.dry_run {
            begin(quarantine, &node, arguments.force)?;
        }
        let mut replay = Replay {
            quarantine,
            server: &server,
            target: &target,
            dry_run: arguments.dry_run,
            force: arguments.force,
            until,
            lines_max: LINES_MAX.min(settings.events_max as usize),
            bytes_max: usize::try_from(settings.body_bytes_max.0.min(BODY_BYTES_MAX)).unwrap_or(usize::MAX),
            current: Acknowledged::default(),
            acknowledged: Acknowledged::default(),
            total: Totals::default(),
        };
        let outcome = replay.run(since, out);
        // Delete the acknowledged lines even if the replay failed afterwards.
        let deleted = replay.delete(out);
        total.add(&replay.total);
        outcome?;
        deleted?;
        if !arguments.dry_run {
            end(quarantine)?;
        }
    }
    let Totals { lines, accepted, rejected, truncated } = total;
    let would = if arguments.dry_run { "would be " } else { "" };
    writeln!(out, "{lines} lines: {accepted} {would}accepted, {rejected} {would}rejected again")?;
    if truncated > 0 {
        writeln!(
            out,
            "{truncated} lines were truncated when they were stored and can't be sent; they stay in the quarantine"
        )?;
    }
    Ok(())
}

/// The replay of one quarantine table.
struct Replay<'a> {
    quarantine: &'a QuarantineTable,
    server: &'a RunningServer,
    /// Path and query of a request.
    target: &'a str,
    dry_run: bool,
    /// Store lines again that may be stored already.
    force: bool,
    /// The last second whose rows are taken.
    until: u32,
    lines_max: usize,
    bytes_max: usize,
    /// Acknowledged lines of the second that is being sent. Dropped on a failure, so that the next
    /// replay sends the whole second again.
    current: Acknowledged,
    /// Acknowledged lines of complete seconds.
    acknowledged: Acknowledged,
    total: Totals,
}

/// Lines of one code that the server has acknowledged and that are still in the table.
#[derive(Default)]
struct Acknowledged {
    code: String,
    names: BTreeSet<String>,
    seconds: Option<(u32, u32)>,
    totals: Totals,
}

/// Numbers of lines by result.
#[derive(Default)]
struct Totals {
    lines: u64,
    accepted: u64,
    rejected: u64,
    truncated: u64,
}

impl Totals {
    fn add(&mut self, more: &Self) {
        self.lines += more.lines;
        self.accepted += more.accepted;
        self.rejected += more.rejected;
        self.truncated += more.truncated;
    }
}

/// The reply of the server to a request: the number of stored lines, and the indexes of the others.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    accepted: u64,
    rejected: Vec<usize>,
    error: Option<String>,
}

impl Replay<'_> {
    fn run(&mut self, since: &Since<'_>, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let QuarantineTable { server, table } = self.quarantine;
        let statement = format!(
            "SELECT {} FROM {table} WHERE {} AND code != '{MARK}' AND server_time <= toDateTime({}, 'UTC') ORDER BY {} FORMAT RowBinary",
            row::COLUMNS,
            since.condition,
            self.until,
            row::ORDER
        );
        let stream = server.stream(&statement, &since.parameters(), STREAM_TIMEOUT)?;
        let mut stream = BufReader::new(stream);
        let mut request = Request::default();
        let mut group: Option<(String, u32)> = None;
        while let Some(row) = row::read(&mut stream)? {
            let of = (row.code.clone(), row.second);
            if group.as_ref() != Some(&of) {
                self.send(&group, &mut request)?;
                self.finish_second();
                request = Request::default();
                let other_code = group.as_ref().is_some_and(|(code, _)| *code != row.code);
                if other_code || self.acknowledged.totals.lines >= DELETE_AFTER {
                    self.delete(out)?;
                }
                group = Some(of);
            }
            if row.is_truncated() {
                self.total.truncated += 1;
                continue;
            }
            if request.is_full_for(&row, self.lines_max, self.bytes_max) {
                self.send(&group, &mut request)?;
                request = Request { part: request.part + 1, ..Request::default() };
            }
            request.push(&row);
        }
        self.send(&group, &mut request)?;
        self.finish_second();
        Ok(())
    }

    fn finish_second(&mut self) {
        let Acknowledged { code, names, seconds, totals } = std::mem::take(&mut self.current);
        let Some((first, last)) = seconds else { return };
        self.acknowledged.code = code;
        self.acknowledged.names.extend(names);
        let (earliest, latest) = self.acknowledged.seconds.unwrap_or((first, last));
        self.acknowledged.seconds = Some((earliest.min(first), latest.max(last)));
        self.acknowledged.totals.add(&totals);
    }

    fn send(&mut self, group: &Option<(String, u32)>, request: &mut Request) -> Result<(), Box<dyn std::error::Error>> {
        let Some((code, second)) = group.as_ref().filter(|_| request.lines() > 0) else { return Ok(()) };
        let lines = request.lines();
        let url = self.server.url(self.target);
        let response = self
            .server
            .post(self.target)
            .header("Idempotency-Key", request.key() + if self.force { "-forced" } else { "" })
            .body(std::mem::take(&mut request.body).written().to_vec())
            .send()
            .map_err(|error| ConfigError(format!("the server does not answer at {url}: {error}")))?;
        let (status, text) = (response.status().as_u16(), response.text()?);
        let reply: Reply = sonic_rs::from_str(&text).unwrap_or_default();
        if reply.error.as_deref() == Some(KEY_REUSED) {
            return Err(ConfigError(format!(
                "{code}: a replay of the lines of second {second} was interrupted, and other ones of them are good \
                 since; which are stored is not known. Replay them with --force, which may store some lines twice"
            ))
            .into());
        }
        if status != 200 || reply.error.is_some() || reply.accepted + reply.rejected.len() as u64 != lines {
            return Err(ConfigError(format!("the server answered {status}: {}", text.trim())).into());
        }
        let current = &mut self.current;
        current.code.clone_from(code);
        let rejected: BTreeSet<usize> = reply.rejected.iter().copied().collect();
        let names = request.names.drain(..).enumerate().filter(|(place, _)| !rejected.contains(place));
        current.names.extend(names.map(|(_, name)| name));
        current.seconds = Some((*second, *second));
        current.totals.add(&Totals { lines, accepted: reply.accepted, rejected: rejected.len() as u64, truncated: 0 });
        Ok(())
    }

    /// Deletes the acknowledged lines from the table, and prints their numbers.
    fn delete(&mut self, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let Acknowledged { code, names, seconds, totals } = std::mem::take(&mut self.acknowledged);
        let Some((first, last)) = seconds else { return Ok(()) };
        self.total.add(&totals);
        if !self.dry_run {
            let names: Vec<String> = names.into_iter().collect();
            for names in names.chunks(NAMES_MAX) {
                self.delete_named(names, first, last)?;
            }
        }
        let Totals { lines, accepted, rejected, .. } = totals;
        writeln!(out, "{code}: {lines} lines: {accepted} accepted, {rejected} rejected again")?;
        Ok(())
    }

    fn delete_named(&self, names: &[String], first: u32, last: u32) -> Result<(), ClientError> {
        let QuarantineTable { server, table } = self.quarantine;
        // Names consist of hexadecimal digits, so they need no escaping.
        let statement = format!(
            "DELETE FROM {table} WHERE server_time >= toDateTime({first}, 'UTC') \
             AND server_time <= toDateTime({last}, 'UTC') \
             AND hex(sipHash128(server_time, ip, code, message, line)) IN ('{}')",
            names.join("','")
        );
        let parameters = [("max_query_size", "1048576"), ("lightweight_deletes_sync", "1")];
        server.query(&statement, &parameters).map(|_| ())
    }
}

/// The node that takes the lines, as it says itself.
#[derive(Deserialize)]
struct Node {
    /// Its name in tokens.
    node: String,
    /// The quoted name of the table that the lines go to.
    table: String,
    /// Its clock, in Unix seconds.
    second: u32,
}

impl Node {
    fn ask(server: &RunningServer, path: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let url = server.url(path);
        let reply = server.get(path).send().and_then(reqwest::blocking::Response::text);
        let text = reply.map_err(|error| ConfigError(format!("the server does not answer at {url}: {error}")))?;
        let node = sonic_rs::from_str(&text);
        Ok(node.map_err(|_| {
            ConfigError(format!("what answers at {url} is no server that takes events: {}", text.trim()))
        })?)
    }

    /// The second of its clock that is shown now, once that is over.
    fn last_full_second(&self, server: &RunningServer, path: &str) -> Result<u32, Box<dyn std::error::Error>> {
        for _ in 0..CLOCK_READS_MAX {
            std::thread::sleep(Duration::from_millis(100));
            if Self::ask(server, path)?.second > self.second {
                return Ok(self.second);
            }
        }
        Err(ConfigError(format!("the clock of the server at {} stands still", server.url(PATH))).into())
    }
}

/// Makes sure that no other replay may have stored some of the lines, and notes that this one may.
fn begin(quarantine: &QuarantineTable, node: &Node, force: bool) -> Result<(), Box<dyn std::error::Error>> {
    let QuarantineTable { server, table } = quarantine;
    // Before anything is sent: lines that can't be deleted would be sent again and again.
    server.query(&format!("DELETE FROM {table} WHERE 0"), &[]).map_err(|error| {
        ConfigError(format!("lines that are sent must be deleted from {table}, which is not possible: {error}"))
    })?;
    let statement = format!(
        "SELECT message, toUInt32(min(server_time)) FROM {table} WHERE code = '{MARK}' GROUP BY message \
         ORDER BY message FORMAT JSONCompactEachRow"
    );
    let mut is_marked = false;
    for line in server.query(&statement, &[])?.lines() {
        let (other, since) = sonic_rs::from_str::<(String, u32)>(line)?;
        let is_late = since.saturating_add(KEYS_KEPT_SECONDS) < node.second;
        if !force && (other != node.node || is_late) {
            let again =
                if is_late { "its server may have forgotten by now which" } else { "that node alone knows which" };
            return Err(ConfigError(format!(
                "a replay through the node {other} did not come to its end: lines of {table} may be stored that are \
                 still there, and {again}. Let it end through that node within a day; or replay with --force, \
                 which may store some lines twice"
            ))
            .into());
        }
        is_marked |= other == node.node && !is_late;
    }
    if !is_marked {
        let statement = format!(
            "INSERT INTO {table} (server_time, ip, code, message, line) \
             SELECT toDateTime({{second:UInt32}}, 'UTC'), '', '{MARK}', {{node:String}}, ''"
        );
        let second = node.second.to_string();
        // Not dropped as a repeat of one that was there before.
        let settings = [("insert_deduplicate", "0"), ("async_insert", "0")];
        server
            .query(&statement, &[&settings[..], &[("param_second", &second), ("param_node", &node.node)]].concat())?;
    }
    Ok(())
}

/// The replay is at its end: nothing is stored that is still in the quarantine.
fn end(quarantine: &QuarantineTable) -> Result<(), ClientError> {
    let statement = format!("DELETE FROM {} WHERE code = '{MARK}'", quarantine.table);
    quarantine.server.query(&statement, &[("lightweight_deletes_sync", "1")]).map(|_| ())
}
