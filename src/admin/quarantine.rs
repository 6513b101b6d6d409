//! `/api/<table>/quarantine`: the rejected lines of a table.
//!
//! `GET` shows the newest as NDJSON, with the columns of the quarantine table. `POST` with the same query takes
//! them again, as `sluicegate quarantine replay` does: each line that is good now is stored once, and deleted from
//! the quarantine table. With a `limit` it takes the newest lines, and all of the last one's second.

use std::sync::TryLockError;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Admin, AdminTable, Page, replay};
use crate::api::KEY_REUSED;
use crate::batch::TableIndex;
use crate::clickhouse::quarantined::{
    Filter, Found, QuarantineError, QuarantineTable, Replay, Stored, Taker, Totals, quarantine_tables,
};
use crate::clock::unix_ms;
use crate::http::{Head, Method, Status, query_pairs};
use crate::intake::replay::Replayer;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 10_000;

/// Pause between two looks at the clock.
const CLOCK_PAUSE: Duration = Duration::from_millis(20);

/// The options in the query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    filter: Filter,
    limit: Option<u32>,
    /// Report what would be stored; store nothing and delete nothing.
    dry_run: bool,
    /// Take lines again that may be stored already.
    force: bool,
}

/// What became of the lines.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// Lines that are stored, or in a dry run would be.
    replayed: u64,
    /// Lines that are rejected again, and stay.
    rejected: u64,
    /// Lines that were truncated when they were stored, and stay.
    truncated: u64,
    dry_run: bool,
}

/// The page of the table at this place.
pub(super) fn page(admin: &Admin, place: u16, head: &Head<'_>) -> Page {
    let Some(table) = admin.tables.get(usize::from(place)) else {
        return Page::fault(Status::NotFound, "no_table", "There is no such table.");
    };
    let takes = head.method == Method::Post;
    let options = match Options::read(head.query, takes) {
        Ok(options) => options,
        Err(message) => return Page::fault(Status::BadRequest, "bad_query", &message),
    };
    let found = match quarantine_tables(&admin.clickhouse, &table.name, &options.filter) {
        Ok(Found { tables, .. }) if tables.is_empty() => {
            let message = format!("There is no table {}.", table.name.quarantine());
            return Page::fault(Status::NotFound, "no_quarantine", &message);
        }
        Ok(Found { tables, .. }) => tables,
        Err(error) => return fault(&error),
    };
    if takes {
        return take_again(admin, (place, table), &options, &found);
    }
    match newest(&options, &found) {
        Ok(body) => Page { status: Status::Ok, content_type: "application/x-ndjson", body, allow: None },
        Err(error) => fault(&error),
    }
}

fn fault(error: &QuarantineError) -> Page {
    let (status, code) = status_of(error);
    Page::fault(status, code, &error.to_string())
}

fn status_of(error: &QuarantineError) -> (Status, &'static str) {
    match error {
        QuarantineError::ClickHouse(_) | QuarantineError::Stream(_) => {
            (Status::ServiceUnavailable, "clickhouse_failed")
        }
        QuarantineError::Filter(_) => (Status::BadRequest, "bad_query"),
        QuarantineError::Undecided(_) => (Status::Conflict, "replay_undecided"),
        QuarantineError::Refused(_) => (Status::ServiceUnavailable, "replay_failed"),
    }
}

impl Options {
    fn read(query: &str, takes: bool) -> Result<Self, String> {
        let mut options = Self::default();
        let Filter { code, since, until, text } = &mut options.filter;
        for pair in query_pairs(query) {
            let (name, value) = pair.map_err(|refusal| refusal.message().to_owned())?;
            let filter = match (name.as_ref(), value.as_ref()) {
                ("code", _) => &mut *code,
                ("since", _) => &mut *since,
                ("until", _) => &mut *until,
                ("text", _) => &mut *text,
                ("limit", value) if options.limit.is_none() => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    options.limit = Some(limit.ok_or_else(|| format!("limit must be from 1 to {LIMIT_MAX}"))?);
                    continue;
                }
                ("dry_run", "1") if takes => {
                    options.dry_run = true;
                    continue;
                }
                ("force", "1") if takes => {
                    options.force = true;
                    continue;
                }
                _ => {
                    let more = if takes { ", dry_run=1 and force=1" } else { "" };
                    return Err(format!("The query may have code, since, until, text and limit{more}, each once."));
                }
            };
            if filter.replace(value.into_owned()).is_some() {
                return Err(format!("{name} comes twice"));
            }
        }
        // An empty text is in every line.
        options.filter.text = options.filter.text.take().filter(|text| !text.is_empty());
        Ok(options)
    }
}

/// The time of a line, as ClickHouse writes it: texts of the same length, which sort by time.
#[derive(Deserialize)]
struct Dated {
    server_time: String,
}

/// The newest lines of these tables, as NDJSON.
fn newest(options: &Options, tables: &[QuarantineTable]) -> Result<String, QuarantineError> {
    let limit = options.limit.unwrap_or(LIMIT_DEFAULT);
    let mut parameters = options.filter.parameters();
    parameters.push(("readonly", "2".to_owned()));
    let mut bodies = Vec::new();
    for QuarantineTable { server, table } in tables {
        // A line need not be UTF-8, and its condition is about what it is, not about what is shown.
        let statement = format!(
            "SELECT server_time, ip, code, message, toValidUTF8(line) AS line FROM \
             (SELECT * FROM {table} WHERE {} ORDER BY server_time DESC LIMIT {limit}) \
             ORDER BY server_time DESC FORMAT JSONEachRow",
            options.filter.condition()
        );
        bodies.push(server.query(&statement, &borrowed(&parameters))?);
    }
    if let [only] = &bodies[..] {
        return Ok(only.clone());
    }
    let dated = |line: &str| Some((sonic_rs::from_str::<Dated>(line).ok()?.server_time, format!("{line}\n")));
    let mut lines: Vec<(String, String)> = bodies.iter().flat_map(|body| body.lines()).filter_map(dated).collect();
    lines.sort_by(|(a, _), (b, _)| b.cmp(a));
    Ok(lines.into_iter().take(limit as usize).map(|(_, line)| line).collect())
}

fn borrowed<'a>(parameters: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    parameters.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn take_again(admin: &Admin, table: (u16, &AdminTable), options: &Options, tables: &[QuarantineTable]) -> Page {
    let Some(replayer) = admin.replayer.get() else {
        return Page::fault(Status::ServiceUnavailable, "starting", "The server takes no events yet.");
    };
    let _alone = match admin.replay_limits.under_way.try_lock() {
        Ok(alone) => alone,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Page::fault(Status::ServiceUnavailable, "busy", "Other lines are being replayed; try again later.");
        }
    };
    let mut totals = Totals::default();
    let outcome = take_from(admin, replayer, table, options, tables, &mut totals);
    let message = outcome.as_ref().err().map(ToString::to_string);
    let (status, error) = match &outcome {
        Ok(()) => (Status::Ok, None),
        Err(error) => {
            let (status, code) = status_of(error);
            (status, Some(code))
        }
    };
    let Totals { accepted, rejected, truncated, .. } = totals;
    let message = message.as_deref();
    let outcome = Outcome { error, message, replayed: accepted, rejected, truncated, dry_run: options.dry_run };
    Page::json(status, sonic_rs::to_string(&outcome).unwrap_or_default())
}

fn take_from(
    admin: &Admin,
    replayer: &Replayer,
    (place, _): (u16, &AdminTable),
    options: &Options,
    tables: &[QuarantineTable],
    totals: &mut Totals,
) -> Result<(), QuarantineError> {
    let taker = Local { replayer, table: TableIndex::new(place), dry_run: options.dry_run };
    let second = unix_second();
    while !options.dry_run && unix_second() <= second {
        thread::sleep(CLOCK_PAUSE);
    }
    for quarantine in tables {
        let filter = newest_only(quarantine, options)?;
        let replay = Replay {
            quarantine,
            taker: &taker,
            node: &replayer.node,
            filter: &filter,
            dry_run: options.dry_run,
            force: options.force,
            until: if options.dry_run { u32::MAX } else { second },
            second,
            events_max: admin.replay_limits.events_max,
            body_bytes_max: admin.replay_limits.body_bytes_max,
        };
        replay.run(totals, &mut |_, _| {})?;
    }
    Ok(())
}

/// The filter of the newest lines, if there is a limit: those since the second of the last one. Lines of one
/// second are taken together, or not at all.
fn newest_only(quarantine: &QuarantineTable, options: &Options) -> Result<Filter, QuarantineError> {
    let Some(limit) = options.limit else { return Ok(options.filter.clone()) };
    let QuarantineTable { server, table } = quarantine;
    let statement = format!(
        "SELECT toUInt32(min(server_time)) FROM \
         (SELECT server_time FROM {table} WHERE {} ORDER BY server_time DESC LIMIT {limit})",
        options.filter.condition()
    );
    let oldest = server.query(&statement, &borrowed(&options.filter.parameters()))?;
    // Without a line it is 0, which no line is older than.
    Ok(Filter { since: Some(format!("{:0>10}", oldest.trim())), ..options.filter.clone() })
}

fn unix_second() -> u32 {
    u32::try_from(unix_ms() / 1000).unwrap_or(u32::MAX)
}

/// This server, which takes the lines.
struct Local<'a> {
    replayer: &'a Replayer,
    table: TableIndex,
    dry_run: bool,
}

impl Taker for Local<'_> {
    fn take(&self, key: &str, body: Vec<u8>) -> Result<Option<Stored>, QuarantineError> {
        let malformed = || QuarantineError::Refused("a line has an address that is none".to_owned());
        let lines = replay::lines(&body).ok_or_else(malformed)?;
        match self.replayer.store(self.table, key.as_bytes(), &lines, self.dry_run) {
            Ok(are_good) => {
                let rejected = (0..).zip(&are_good).filter(|(_, good)| !**good).map(|(place, _)| place);
                let rejected: Vec<usize> = rejected.collect();
                Ok(Some(Stored { accepted: (are_good.len() - rejected.len()) as u64, rejected }))
            }
            Err(fault) if fault.code == KEY_REUSED.code => Ok(None),
            Err(fault) => Err(QuarantineError::Refused(fault.message.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_filters_and_orders_only_where_lines_are_taken() {
        let value = |text: &str| Some(text.to_owned());
        let read = |query: &str, takes| Options::read(query, takes).ok();
        assert_eq!(read("", false), Some(Options::default()));
        let filter = Filter { code: value("a b"), since: value("1"), until: value("2"), text: value("t&") };
        let all = "code=a+b&since=1&until=2&text=t%26&limit=10000";
        let expected = Options { filter, limit: Some(10_000), ..Options::default() };
        assert_eq!(read(all, false), Some(expected));
        let orders = Options { dry_run: true, force: true, ..Options::default() };
        assert_eq!(read("dry_run=1&force=1&text=", true), Some(orders));
        for wrong in ["limit=0", "limit=10001", "limit=1&limit=2", "code=a&code=b", "text=a&text=", "more=1", "%"] {
            assert_eq!((read(wrong, true), read(wrong, false)), (None, None), "{wrong}");
        }
        for order in ["dry_run=1", "force=1"] {
            assert_eq!(read(order, false), None, "{order}");
        }
        assert_eq!(read("dry_run=0", true), None);
    }
}
