//! `sluicegate quarantine replay`: sends the lines of the quarantine table to the running server again.
//!
//! ```text
//! quarantine table ── stream, by code and second ──▶ request ──▶ server: accepted, or rejected again
//!        ▲                                                          │ acknowledged
//!        └──────────────────── DELETE of the sent rows ◀────────────┘
//! ```
//!
//! A line is deleted only after the server has acknowledged it. A line that the server rejects again
//! goes into the quarantine as a new row. If this program ends between reply and delete, the next
//! replay makes the same requests, under the same keys, and the server stores nothing twice. For that
//! the rows of one second are deleted together, or not at all.
//!
//! A row of the table is identified only by its content, which includes the second of its rejection. A
//! line that is rejected again must not get the second of its old row: it would be deleted as that
//! row, or the next replay would send it in the same request and get the reply of a repeat. A replay
//! therefore takes only rows of seconds that have passed on the server's clock. A row of such a second
//! that reaches the table after it was read, and equals another row in every column, is taken for that
//! row.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use chrono::DateTime;
use reqwest::blocking::Client;
use serde::Deserialize;

use super::row::{self, Request};
use super::{QuarantineTable, Since, quarantine_tables, since};
use crate::clickhouse::client::ClientError;
use crate::config::cli::ReplayArgs;
use crate::config::{ConfigError, Settings};
use crate::limits;

/// The most lines of a request. The server refuses a request with more bad lines as a whole.
const LINES_MAX: usize = limits::BAD_LINES_MAX as usize;

const BODY_BYTES_MAX: u64 = 1 << 20;

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
/// that were acknowledged before are not sent again.
pub fn replay(arguments: &ReplayArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let since = since(arguments.since.as_deref());
    let tables = quarantine_tables(settings, &since, out)?;
    let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
    let dry_run = if arguments.dry_run { "?dry_run=1" } else { "" };
    let address = format!("http://{}", reachable(settings));
    let url = format!("{address}/api/{}{dry_run}", settings.table);
    let until = if arguments.dry_run { u32::MAX } else { last_full_second(&http, &address)? };
    let mut total = Totals::default();
    for quarantine in &tables {
        let mut replay = Replay {
            quarantine,
            http: &http,
            url: &url,
            dry_run: arguments.dry_run,
            until,
            lines_max: LINES_MAX.min(settings.events_max as usize),
            bytes_max: usize::try_from(settings.body_bytes_max.0.min(BODY_BYTES_MAX)).unwrap_or(usize::MAX),
            current: Acknowledged::default(),
            acknowledged: Acknowledged::default(),
            total: Totals::default(),
        };
        let outcome = replay.run(&since, out);
        // Delete the acknowledged lines even if the replay failed afterwards.
        let deleted = replay.delete(out);
        total.add(&replay.total);
        outcome?;
        deleted?;
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
    http: &'a Client,
    url: &'a str,
    dry_run: bool,
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

/// The reply of the server to a request.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Reply {
    accepted: u64,
    rejected: u64,
    error: Option<String>,
}

impl Replay<'_> {
    fn run(&mut self, since: &Since<'_>, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let QuarantineTable { server, table } = self.quarantine;
        if !self.dry_run {
            // Check before the first request: lines that can't be deleted would be sent again and again.
            server.query(&format!("DELETE FROM {table} WHERE 0"), &[]).map_err(|error| {
                ConfigError(format!("lines that are sent must be deleted from {table}, which is not possible: {error}"))
            })?;
        }
        let statement = format!(
            "SELECT {} FROM {table} WHERE {} AND server_time <= toDateTime({}, 'UTC') ORDER BY {} FORMAT RowBinary",
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
        let mut sent = self.http.post(self.url);
        if !self.dry_run {
            // A dry run sends no key: a later replay with that key would be a repeat and store nothing.
            sent = sent.header("Idempotency-Key", request.key());
        }
        let response = sent
            .body(std::mem::take(&mut request.body))
            .send()
            .map_err(|error| ConfigError(format!("the server does not answer at {}: {error}", self.url)))?;
        let (status, text) = (response.status().as_u16(), response.text()?);
        let reply: Reply = sonic_rs::from_str(&text).unwrap_or_default();
        // 422 without an error means that every line was bad and is in the quarantine again.
        let is_acknowledged = matches!(status, 200 | 422) && reply.error.is_none();
        if !is_acknowledged || reply.accepted + reply.rejected != lines {
            return Err(ConfigError(format!("the server answered {status}: {}", text.trim())).into());
        }
        let current = &mut self.current;
        current.code.clone_from(code);
        current.names.extend(request.names.drain(..));
        current.seconds = Some((*second, *second));
        current.totals.add(&Totals { lines, accepted: reply.accepted, rejected: reply.rejected, truncated: 0 });
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

/// Waits until the server's clock shows a new second, and returns the one before.
fn last_full_second(http: &Client, address: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let first = server_second(http, address)?;
    for _ in 0..CLOCK_READS_MAX {
        std::thread::sleep(Duration::from_millis(100));
        if server_second(http, address)? > first {
            return Ok(u32::try_from(first)?);
        }
    }
    Err(ConfigError(format!("the clock of the server at {address} stands still")).into())
}

/// The server's clock in Unix seconds, from the `Date` of a reply.
fn server_second(http: &Client, address: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let reply = http.get(format!("{address}/health")).send();
    let reply = reply.map_err(|error| ConfigError(format!("the server does not answer at {address}: {error}")))?;
    let date = reply.headers().get("Date").and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    let date = date.ok_or_else(|| ConfigError(format!("the server at {address} sends no valid Date")))?;
    Ok(date.timestamp())
}

/// The first public address of the server, as this machine can reach it.
fn reachable(settings: &Settings) -> SocketAddr {
    let mut address = settings.listen.first().copied().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
