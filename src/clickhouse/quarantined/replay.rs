//! Lines of a quarantine table are taken again, each that is good now exactly once.
//!
//! ```text
//! quarantine table ── stream, by code and second ──▶ request ──▶ server: which lines are good now
//!        ▲                                                          │ acknowledged
//!        └──────────────── DELETE of the good ones ◀────────────────┘
//! ```
//!
//! A request has the address and the time of each line. A line is deleted only after the server has
//! acknowledged it. A line that is rejected again stays as it is. If a replay ends between reply and
//! delete, the next one makes the same requests, under the same keys, and the server stores nothing
//! twice. For that the rows of one second are deleted together, or not at all.
//!
//! A key is known only to the node that took the request, and for a day. Before the first request a
//! row with the code [`MARK`] in the quarantine table therefore names the node; the end of the replay
//! deletes the row. A replay through another node, or a day later, finds the row and reports that it
//! may store lines twice. So does one with another text in its filter: of the same second it would take
//! other lines, in requests under other keys. A filter by code or time takes whole requests.
//!
//! A row of the table is identified only by its content, which includes the second of its rejection. A
//! row that arrives while an equal row is replayed would be deleted with that row. A replay therefore
//! takes only rows of seconds that have passed on the server's clock. A row of such a second that
//! reaches the table after it was read, and equals another row in every column, is taken for that row.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::time::Duration;

use super::row::{self, Request};
use super::{Filter, MARK, QuarantineError, QuarantineTable, escaped};
use crate::clickhouse::client::ClientError;
use crate::limits;

/// The most lines of a request. The server refuses a request with more bad lines as a whole.
const LINES_MAX: usize = limits::BAD_LINES_MAX as usize;

const BODY_BYTES_MAX: usize = 1 << 20;

/// The server remembers keys for a day; this leaves an hour for the replay itself.
const KEYS_KEPT_SECONDS: u32 = 23 * 3600;

/// Number of acknowledged lines after which they are deleted, at the end of their second.
const DELETE_AFTER: u64 = 1000;

/// The most names in one DELETE. For a replicated table, Keeper takes at most 1 MiB.
const NAMES_MAX: usize = 10_000;

/// Time limit for the stream of a table's lines.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The server that takes lines again.
pub trait Taker {
    /// Stores the lines of a request that are good now. `body` has them one behind the other, each with its second
    /// and address. `None` if the key came before with other good lines.
    ///
    /// # Errors
    ///
    /// If nothing was promised.
    fn take(&self, key: &str, body: Vec<u8>) -> Result<Option<Stored>, QuarantineError>;
}

/// What became of the lines of a request.
#[derive(Debug, Default)]
pub struct Stored {
    /// The number of lines that are stored.
    pub accepted: u64,
    /// The places of the others, from 0.
    pub rejected: Vec<usize>,
}

/// A replay of one quarantine table.
pub struct Replay<'a> {
    /// The table.
    pub quarantine: &'a QuarantineTable,
    /// The server that takes the lines.
    pub taker: &'a dyn Taker,
    /// The server's name in tokens.
    pub node: &'a str,
    /// Only these lines.
    pub filter: &'a Filter,
    /// Nothing is stored and nothing is deleted.
    pub dry_run: bool,
    /// Store lines again that may be stored already.
    pub force: bool,
    /// The last second whose rows are taken.
    pub until: u32,
    /// The server's clock at the start, Unix seconds.
    pub second: u32,
    /// The most lines of a request that the server takes.
    pub events_max: usize,
    /// The most bytes of a body that the server takes.
    pub body_bytes_max: usize,
}

/// Numbers of lines by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Lines that were sent.
    pub lines: u64,
    /// Those that are stored.
    pub accepted: u64,
    /// Those that are rejected again.
    pub rejected: u64,
    /// Lines that were truncated when they were stored, and can't be sent.
    pub truncated: u64,
}

impl Totals {
    /// Counts these as well.
    pub fn add(&mut self, more: &Self) {
        self.lines += more.lines;
        self.accepted += more.accepted;
        self.rejected += more.rejected;
        self.truncated += more.truncated;
    }
}

impl Replay<'_> {
    /// Takes the lines, and adds them to `total`. Calls `progress` with the code and the numbers of lines that are
    /// deleted, or in a dry run would be.
    ///
    /// # Errors
    ///
    /// If ClickHouse or the server fails. Lines that were acknowledged before are not sent again. Also if another
    /// replay may have stored some of the lines.
    pub fn run(&self, total: &mut Totals, progress: &mut dyn FnMut(&str, &Totals)) -> Result<(), QuarantineError> {
        if !self.dry_run {
            self.begin()?;
        }
        let mut running =
            Running { replay: self, current: Acknowledged::default(), acknowledged: Acknowledged::default(), total };
        let outcome = running.run(progress);
        // Delete the acknowledged lines even if the replay failed afterwards.
        let deleted = running.delete(progress);
        outcome?;
        deleted?;
        if self.dry_run { Ok(()) } else { self.end() }
    }

    /// Makes sure that no other replay may have stored some of the lines, and notes that this one may.
    fn begin(&self) -> Result<(), QuarantineError> {
        let QuarantineTable { server, table } = self.quarantine;
        // Before anything is sent: lines that can't be deleted would be sent again and again.
        server.query(&format!("DELETE FROM {table} WHERE 0"), &[]).map_err(|error| {
            QuarantineError::Refused(format!(
                "lines that are sent must be deleted from {table}, which is not possible: {error}"
            ))
        })?;
        if self.is_marked()? {
            return Ok(());
        }
        let statement = format!(
            "INSERT INTO {table} (server_time, ip, code, message, line) \
             SELECT toDateTime({{second:UInt32}}, 'UTC'), '', '{MARK}', {{node:String}}, {{text:String}}"
        );
        // Not dropped as a repeat of one that was there before.
        let settings = [("insert_deduplicate", "0"), ("async_insert", "0")];
        let (second, text) = (self.second.to_string(), escaped(self.text()));
        let parameters = [("param_second", second.as_str()), ("param_node", self.node), ("param_text", &text)];
        server.query(&statement, &[&settings[..], &parameters].concat())?;
        // Another one may have begun at the same moment.
        let Err(error) = self.is_marked() else { return Ok(()) };
        let statement = format!(
            "DELETE FROM {table} WHERE code = '{MARK}' AND message = {{node:String}} AND line = {{text:String}} \
             AND server_time = toDateTime({{second:UInt32}}, 'UTC')"
        );
        server.query(&statement, &[&[("lightweight_deletes_sync", "1")], &parameters[..]].concat())?;
        Err(error)
    }

    /// True if the table has the mark of an earlier replay that this one goes on with.
    fn is_marked(&self) -> Result<bool, QuarantineError> {
        let QuarantineTable { server, table } = self.quarantine;
        let statement = format!(
            "SELECT message, line, toUInt32(min(server_time)) FROM {table} WHERE code = '{MARK}' \
             GROUP BY message, line ORDER BY message, line FORMAT JSONCompactEachRow"
        );
        let mut is_marked = false;
        for line in server.query(&statement, &[])?.lines() {
            let (other, text, since) = sonic_rs::from_str::<(String, String, u32)>(line)
                .map_err(|_| QuarantineError::Refused(format!("the marks of {table} can't be read: {line}")))?;
            let is_late = since.saturating_add(KEYS_KEPT_SECONDS) < self.second;
            let is_ours = other == self.node && text == self.text();
            if !self.force && (!is_ours || is_late) {
                return Err(QuarantineError::Undecided(undecided(table, &other, &text, is_late, other == self.node)));
            }
            is_marked |= is_ours && !is_late;
        }
        Ok(is_marked)
    }

    /// The replay is at its end: nothing is stored that is still in the quarantine.
    fn end(&self) -> Result<(), QuarantineError> {
        let QuarantineTable { server, table } = self.quarantine;
        let statement = format!("DELETE FROM {table} WHERE code = '{MARK}'");
        server.query(&statement, &[("lightweight_deletes_sync", "1")])?;
        Ok(())
    }

    fn text(&self) -> &str {
        self.filter.text.as_deref().unwrap_or_default()
    }

    fn lines_max(&self) -> usize {
        LINES_MAX.min(self.events_max)
    }

    fn bytes_max(&self) -> usize {
        BODY_BYTES_MAX.min(self.body_bytes_max)
    }
}

/// The sentence about the mark of another replay.
fn undecided(table: &str, node: &str, text: &str, is_late: bool, is_same_node: bool) -> String {
    if is_same_node && !is_late {
        let which = if text.is_empty() { "without a text".to_owned() } else { format!("of the text {text:?}") };
        return format!(
            "a replay {which} did not come to its end, or is under way: lines of {table} may be stored that are still \
             there. Let it end with the same filter; or replay by force, which may store some lines twice"
        );
    }
    let again = if is_late { "its server may have forgotten by now which" } else { "that node alone knows which" };
    format!(
        "a replay through the node {node} did not come to its end: lines of {table} may be stored that are still \
         there, and {again}. Let it end through that node within a day; or replay with --force, which may store some \
         lines twice"
    )
}

/// A replay under way.
struct Running<'a> {
    replay: &'a Replay<'a>,
    /// Acknowledged lines of the second that is being sent. Dropped on a failure, so that the next
    /// replay sends the whole second again.
    current: Acknowledged,
    /// Acknowledged lines of complete seconds.
    acknowledged: Acknowledged,
    total: &'a mut Totals,
}

/// Lines of one code that the server has acknowledged and that are still in the table.
#[derive(Default)]
struct Acknowledged {
    code: String,
    names: BTreeSet<String>,
    seconds: Option<(u32, u32)>,
    totals: Totals,
}

impl Running<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(&str, &Totals)) -> Result<(), QuarantineError> {
        let Replay { quarantine: QuarantineTable { server, table }, filter, until, .. } = self.replay;
        let statement = format!(
            "SELECT {} FROM {table} WHERE {} AND server_time <= toDateTime({until}, 'UTC') ORDER BY {} FORMAT RowBinary",
            row::COLUMNS,
            filter.condition(),
            row::ORDER
        );
        let parameters = filter.parameters();
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut stream = BufReader::new(server.stream(&statement, &parameters, STREAM_TIMEOUT)?);
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
                    self.delete(progress)?;
                }
                group = Some(of);
            }
            if row.is_truncated() {
                self.total.truncated += 1;
                continue;
            }
            if request.is_full_for(&row, self.replay.lines_max(), self.replay.bytes_max()) {
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

    fn send(&mut self, group: &Option<(String, u32)>, request: &mut Request) -> Result<(), QuarantineError> {
        let Some((code, second)) = group.as_ref().filter(|_| request.lines() > 0) else { return Ok(()) };
        let lines = request.lines();
        let key = request.key() + if self.replay.force { "-forced" } else { "" };
        let body = std::mem::take(&mut request.body).written().to_vec();
        let Some(stored) = self.replay.taker.take(&key, body)? else {
            return Err(QuarantineError::Undecided(format!(
                "{code}: a replay of the lines of second {second} was interrupted, and other ones of them are good \
                 since; which are stored is not known. Replay them with --force, which may store some lines twice"
            )));
        };
        if stored.accepted + stored.rejected.len() as u64 != lines {
            return Err(QuarantineError::Refused("the server did not answer for all lines of a request".to_owned()));
        }
        let current = &mut self.current;
        current.code.clone_from(code);
        let rejected: BTreeSet<usize> = stored.rejected.iter().copied().collect();
        let names = request.names.drain(..).enumerate().filter(|(place, _)| !rejected.contains(place));
        current.names.extend(names.map(|(_, name)| name));
        current.seconds = Some((*second, *second));
        current.totals.add(&Totals { lines, accepted: stored.accepted, rejected: rejected.len() as u64, truncated: 0 });
        Ok(())
    }

    /// Deletes the acknowledged lines from the table, and reports their numbers.
    fn delete(&mut self, progress: &mut dyn FnMut(&str, &Totals)) -> Result<(), QuarantineError> {
        let Acknowledged { code, names, seconds, totals } = std::mem::take(&mut self.acknowledged);
        let Some((first, last)) = seconds else { return Ok(()) };
        self.total.add(&totals);
        if !self.replay.dry_run {
            let names: Vec<String> = names.into_iter().collect();
            for names in names.chunks(NAMES_MAX) {
                self.delete_named(names, first, last)?;
            }
        }
        progress(&code, &totals);
        Ok(())
    }

    fn delete_named(&self, names: &[String], first: u32, last: u32) -> Result<(), ClientError> {
        let QuarantineTable { server, table } = self.replay.quarantine;
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
