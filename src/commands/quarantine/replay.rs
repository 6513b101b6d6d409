//! `sluicegate quarantine replay`: refused lines go to the running server again.
//!
//! ```text
//! quarantine table ── stream, by code and second ──▶ request ──▶ server: accepted, or refused again
//!        ▲                                                          │ answered
//!        └──────────────────── DELETE of what was sent ◀────────────┘
//! ```
//!
//! A line is deleted only after the server has answered for it with its own promise; lines that it
//! refuses again it has put into the quarantine itself. When this program ends between answer and
//! delete, the next replay makes the same requests, under the same keys, and the server stores
//! nothing twice. That is why the rows of one second are deleted together, or not at all.
//!
//! Rows have no identity in the table, only their content, the second in which they came included.
//! So a line that is refused again must not come in the second of the row that it was read from: it
//! would be deleted as that row, and the next replay's request would be answered as a repeat of this
//! one. A replay therefore takes the rows of seconds that are over by the server's own clock. A row
//! of such a second that gets to the table only after its reading, and equals another in every
//! column, counts as the same.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use chrono::DateTime;
use reqwest::blocking::Client;
use serde::Deserialize;

use super::refused::{self, Request};
use super::{QuarantineTable, Since, places, since};
use crate::clickhouse::client::ClientError;
use crate::config::cli::ReplayArgs;
use crate::config::{ConfigError, Settings};
use crate::limits;

/// More bad lines than this refuse a request as a whole.
const LINES_MAX: usize = limits::BAD_LINES_MAX as usize;

const BODY_BYTES_MAX: u64 = 1 << 20;

/// Answered lines that are deleted with one statement, or more where one second has more.
const DELETE_AFTER: u64 = 1000;

/// Names in one statement at most: a replicated table's Keeper takes no more than 1 MiB of it.
const NAMES_MAX: usize = 10_000;

/// How long all of a table's lines may take.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A second passes within so many looks, a tenth of one apart.
const LOOKS_AT_THE_CLOCK: u32 = 50;

/// How long the server may take for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the refused lines to the running server, and says what has become of them.
///
/// # Errors
///
/// ClickHouse or the server does not answer, or not with a promise; what was answered until then
/// does not come again.
pub fn replay(arguments: &ReplayArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let since = since(arguments.since.as_deref());
    let places = places(settings, &since, out)?;
    let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
    let dry_run = if arguments.dry_run { "?dry_run=1" } else { "" };
    let address = format!("http://{}", reachable(settings));
    let url = format!("{address}/api/{}{dry_run}", settings.table);
    let until = if arguments.dry_run { u32::MAX } else { a_second_that_is_over(&http, &address)? };
    let mut total = Totals::default();
    for place in &places {
        let mut replay = Replay {
            place,
            http: &http,
            url: &url,
            dry_run: arguments.dry_run,
            until,
            lines_max: LINES_MAX.min(settings.events_max as usize),
            bytes_max: usize::try_from(settings.body_bytes_max.0.min(BODY_BYTES_MAX)).unwrap_or(usize::MAX),
            current: Answered::default(),
            answered: Answered::default(),
            total: Totals::default(),
        };
        let outcome = replay.run(&since, out);
        // What was answered is done with, whatever came then.
        let deleted = replay.delete(out);
        total.add(&replay.total);
        outcome?;
        deleted?;
    }
    let Totals { lines, accepted, rejected, cut } = total;
    let would = if arguments.dry_run { "would be " } else { "" };
    writeln!(out, "{lines} lines: {accepted} {would}accepted, {rejected} {would}refused again")?;
    if cut > 0 {
        writeln!(out, "{cut} lines were cut when they were stored and can't be sent; they stay in the quarantine")?;
    }
    Ok(())
}

/// One quarantine table's lines on their way.
struct Replay<'a> {
    place: &'a QuarantineTable,
    http: &'a Client,
    url: &'a str,
    dry_run: bool,
    /// The last second that is taken.
    until: u32,
    lines_max: usize,
    bytes_max: usize,
    /// Of the second that is under way. Forgotten when that fails: it is sent again as it was.
    current: Answered,
    /// Of seconds that are answered as a whole.
    answered: Answered,
    total: Totals,
}

/// Lines of one code that the server has answered for and that are still in the table.
#[derive(Default)]
struct Answered {
    code: String,
    names: BTreeSet<String>,
    seconds: Option<(u32, u32)>,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    lines: u64,
    accepted: u64,
    rejected: u64,
    cut: u64,
}

impl Totals {
    fn add(&mut self, more: &Self) {
        self.lines += more.lines;
        self.accepted += more.accepted;
        self.rejected += more.rejected;
        self.cut += more.cut;
    }
}

/// What the server says of a request.
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
        let QuarantineTable { server, table } = self.place;
        if !self.dry_run {
            // Before anything is sent: lines that can't be deleted would be sent again and again.
            server.query(&format!("DELETE FROM {table} WHERE 0"), &[]).map_err(|error| {
                ConfigError(format!("lines that are sent must be deleted from {table}, and can't be: {error}"))
            })?;
        }
        let statement = format!(
            "SELECT {} FROM {table} WHERE {} AND server_time <= toDateTime({}, 'UTC') ORDER BY {} FORMAT RowBinary",
            refused::COLUMNS,
            since.condition,
            self.until,
            refused::ORDER
        );
        let stream = server.stream(&statement, &since.parameters(), STREAM_TIMEOUT)?;
        let mut stream = BufReader::new(stream);
        let mut request = Request::default();
        let mut group: Option<(String, u32)> = None;
        while let Some(refused) = refused::read(&mut stream)? {
            let of = (refused.code.clone(), refused.second);
            if group.as_ref() != Some(&of) {
                self.send(&group, &mut request)?;
                self.finish_second();
                request = Request::default();
                let other_code = group.as_ref().is_some_and(|(code, _)| *code != refused.code);
                if other_code || self.answered.totals.lines >= DELETE_AFTER {
                    self.delete(out)?;
                }
                group = Some(of);
            }
            if refused.is_cut() {
                self.total.cut += 1;
                continue;
            }
            if request.is_full_for(&refused, self.lines_max, self.bytes_max) {
                self.send(&group, &mut request)?;
                request = Request { part: request.part + 1, ..Request::default() };
            }
            request.push(&refused);
        }
        self.send(&group, &mut request)?;
        self.finish_second();
        Ok(())
    }

    fn finish_second(&mut self) {
        let Answered { code, names, seconds, totals } = std::mem::take(&mut self.current);
        let Some((first, last)) = seconds else { return };
        self.answered.code = code;
        self.answered.names.extend(names);
        let (earliest, latest) = self.answered.seconds.unwrap_or((first, last));
        self.answered.seconds = Some((earliest.min(first), latest.max(last)));
        self.answered.totals.add(&totals);
    }

    fn send(&mut self, group: &Option<(String, u32)>, request: &mut Request) -> Result<(), Box<dyn std::error::Error>> {
        let Some((code, second)) = group.as_ref().filter(|_| request.lines() > 0) else { return Ok(()) };
        let lines = request.lines();
        let mut sent = self.http.post(self.url);
        if !self.dry_run {
            // A key that a dry run had used would be answered for and not be stored.
            sent = sent.header("Idempotency-Key", request.key());
        }
        let response = sent
            .body(std::mem::take(&mut request.body))
            .send()
            .map_err(|error| ConfigError(format!("the server does not answer at {}: {error}", self.url)))?;
        let (status, text) = (response.status().as_u16(), response.text()?);
        let reply: Reply = sonic_rs::from_str(&text).unwrap_or_default();
        // 422 without an error says that every line was bad, and that all of them are kept.
        let promised = matches!(status, 200 | 422) && reply.error.is_none();
        if !promised || reply.accepted + reply.rejected != lines {
            return Err(ConfigError(format!("the server answered {status}: {}", text.trim())).into());
        }
        let current = &mut self.current;
        current.code.clone_from(code);
        current.names.extend(request.names.drain(..));
        current.seconds = Some((*second, *second));
        current.totals.add(&Totals { lines, accepted: reply.accepted, rejected: reply.rejected, cut: 0 });
        Ok(())
    }

    /// Deletes what was answered, and says what it was.
    fn delete(&mut self, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let Answered { code, names, seconds, totals } = std::mem::take(&mut self.answered);
        let Some((first, last)) = seconds else { return Ok(()) };
        self.total.add(&totals);
        if !self.dry_run {
            let names: Vec<String> = names.into_iter().collect();
            for names in names.chunks(NAMES_MAX) {
                self.delete_named(names, first, last)?;
            }
        }
        let Totals { lines, accepted, rejected, .. } = totals;
        writeln!(out, "{code}: {lines} lines: {accepted} accepted, {rejected} refused again")?;
        Ok(())
    }

    fn delete_named(&self, names: &[String], first: u32, last: u32) -> Result<(), ClientError> {
        let QuarantineTable { server, table } = self.place;
        // Names are digits of ClickHouse's own.
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

/// A second of the server's clock, once that shows a later one.
fn a_second_that_is_over(http: &Client, address: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let first = server_second(http, address)?;
    for _ in 0..LOOKS_AT_THE_CLOCK {
        std::thread::sleep(Duration::from_millis(100));
        if server_second(http, address)? > first {
            return Ok(u32::try_from(first)?);
        }
    }
    Err(ConfigError(format!("the clock of the server at {address} stands still")).into())
}

/// The Unix second of a reply's `Date`.
fn server_second(http: &Client, address: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let reply = http.get(format!("{address}/health")).send();
    let reply = reply.map_err(|error| ConfigError(format!("the server does not answer at {address}: {error}")))?;
    let date = reply.headers().get("Date").and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    let date = date.ok_or_else(|| ConfigError(format!("what answers at {address} does not say what time it is")))?;
    Ok(date.timestamp())
}

/// Where this machine reaches the server's first public address.
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
