//! `GET /api/<table>/live`: what is being accepted now, or with `rejected=1` what is being rejected, as server-sent
//! events.
//!
//! An event is a line that was stored, with what was stored of its client's address and the time of its request. At
//! most [`PER_SECOND`] a second are shown; how many were left out is said once a second at most
//! (`event: skipped`). A client that reads too slowly is left out of more, and one that reads nothing for a while
//! is closed.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{str, thread};

use chrono::{DateTime, SecondsFormat};
use rustix::net::RecvFlags;
use serde::Serialize;
use sonic_rs::LazyValue;

use super::{Admin, AdminTable, Page, routes};
use crate::batch::TableIndex;
use crate::http::{self, Head, Method, Status, query_pairs};
use crate::intake::live::{LiveLine, LiveRejection, PER_SECOND, Watched, Watcher};

/// Pause between two looks for lines.
const PAUSE: Duration = Duration::from_millis(50);

/// Time without a line after which a comment shows that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const SECOND: Duration = Duration::from_secs(1);

const CONTENT_TYPE: &str = "text/event-stream";

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                      X-Accel-Buffering: no\r\nConnection: close\r\n\r\n";

/// What a request wants to watch.
pub(super) struct Wanted {
    watcher: Watcher,
    table: TableIndex,
    watched: Watched,
}

/// An accepted line.
#[derive(Serialize)]
struct Accepted<'a> {
    line: Shown<'a>,
    ip: &'a str,
    server_time: String,
}

/// A rejected line.
#[derive(Serialize)]
struct Rejected<'a> {
    line: Cow<'a, str>,
    ip: &'a str,
    server_time: String,
    code: &'static str,
    message: &'a str,
    column: Option<&'a str>,
}

/// The JSON of an event as it was sent, or its text where that is not all of it.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(LazyValue<'a>),
    Text(Cow<'a, str>),
}

/// True for a path that is watched.
pub(super) fn is_path(tables: &[AdminTable], path: &str) -> bool {
    routes::find(tables, path).is_some_and(|(route, _)| route.is_live())
}

/// What the request watches, if it does; `None` for any other request, and while too many watch.
pub(super) fn wanted(admin: &Admin, head: &Head<'_>) -> Option<Wanted> {
    let path = http::plain_path(head.path);
    let (_, place) = routes::find(&admin.tables, &path).filter(|(route, _)| route.is_live())?;
    let watched = watched(head.query).filter(|_| head.method == Method::Get)?;
    let table = TableIndex::new(place);
    Some(Wanted { watcher: admin.live.watch(table, watched)?, table, watched })
}

/// The reply to a request of such a path that watches nothing.
pub(super) fn page(head: &Head<'_>) -> Page {
    match watched(head.query) {
        None => Page::fault(Status::BadRequest, "bad_query", "The query may have rejected=1, and nothing else."),
        Some(_) if head.method == Method::Head => {
            Page { status: Status::Ok, content_type: CONTENT_TYPE, body: String::new(), allow: None }
        }
        Some(_) => Page::fault(Status::ServiceUnavailable, "busy", "Too many watch already; try again later."),
    }
}

fn watched(query: &str) -> Option<Watched> {
    let mut watched = Watched::Accepted;
    for pair in query_pairs(query) {
        match pair.ok()? {
            (name, value) if name == "rejected" && value == "1" => watched = Watched::Rejected,
            _ => return None,
        }
    }
    Some(watched)
}

/// Sends lines until the client is gone or the server stops.
///
/// # Errors
///
/// If the client is gone, or reads nothing.
pub(super) fn serve(admin: &Admin, wanted: Wanted, stream: &mut TcpStream) -> io::Result<()> {
    let Wanted { watcher, table, watched } = wanted;
    stream.write_all(HEAD)?;
    let mut account = Account::new(counted(admin, table, watched), Instant::now());
    let mut out = Vec::new();
    while !admin.health.is_stopping() && !is_gone(stream)? {
        // In this order: a line is shown before it is counted.
        let counted = counted(admin, table, watched);
        let now = Instant::now();
        for line in watcher.take() {
            if account.permits(now) {
                put(&line, &mut out);
            }
        }
        if let Some(skipped) = account.skipped(counted, now) {
            // Writing to a vector can't fail.
            let _ = write!(out, "event: skipped\ndata: {{\"skipped\":{skipped}}}\n\n");
        }
        if out.is_empty() && now.duration_since(account.wrote) >= KEEP_ALIVE {
            out.extend_from_slice(b": keep-alive\n\n");
        }
        if !out.is_empty() {
            stream.write_all(&out)?;
            account.wrote = Instant::now();
            out.clear();
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Lines of the table that were accepted or rejected since the start.
fn counted(admin: &Admin, table: TableIndex, watched: Watched) -> u64 {
    let by_worker = admin.workers.iter().map(|worker| match watched {
        Watched::Accepted => worker.accepted_by_table.get(table),
        Watched::Rejected => worker.rejected_by_table.get(table),
    });
    by_worker.sum()
}

/// True once the client has closed its side.
fn is_gone(stream: &TcpStream) -> io::Result<bool> {
    match rustix::net::recv(stream, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Ok(true),
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a client was shown, and what was left out.
struct Account {
    /// Lines that had been counted before.
    before: u64,
    /// Lines that were shown, and those of which was said that they were left out.
    shown: u64,
    said: u64,
    /// When the running second began, and the lines that were shown in it.
    second: (Instant, u64),
    /// When it was last said that lines were left out.
    said_at: Instant,
    wrote: Instant,
}

impl Account {
    fn new(before: u64, now: Instant) -> Self {
        Self { before, shown: 0, said: 0, second: (now, 0), said_at: now, wrote: now }
    }

    /// True if another line may be shown now; it is counted.
    fn permits(&mut self, now: Instant) -> bool {
        let (began, count) = self.second;
        let count = if now.duration_since(began) >= SECOND { 0 } else { count };
        if count >= PER_SECOND {
            return false;
        }
        self.second = (if count == 0 { now } else { began }, count + 1);
        self.shown += 1;
        true
    }

    /// How many lines were left out since that was last said, if it is time to say so. `counted` are those that had
    /// been accepted or rejected before the last lines were shown.
    fn skipped(&mut self, counted: u64, now: Instant) -> Option<u64> {
        let left_out = counted.saturating_sub(self.before).saturating_sub(self.shown).saturating_sub(self.said);
        if left_out == 0 || now.duration_since(self.said_at) < SECOND {
            return None;
        }
        (self.said, self.said_at) = (self.said + left_out, now);
        Some(left_out)
    }
}

/// Appends the event of a line.
fn put(line: &LiveLine, out: &mut Vec<u8>) {
    let server_time = DateTime::from_timestamp_nanos(line.server_time_unix_ns);
    let (ip, server_time) = (line.ip.as_str(), server_time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let data = match &line.rejection {
        None => sonic_rs::to_string(&Accepted { line: shown(line), ip, server_time }),
        Some(LiveRejection { code, message, column }) => sonic_rs::to_string(&Rejected {
            line: String::from_utf8_lossy(&line.line),
            ip,
            server_time,
            code: code.as_str(),
            message,
            column: column.as_deref(),
        }),
    };
    let Ok(data) = data else { return };
    out.extend_from_slice(b"data: ");
    // Of a line's own JSON: between its parts, where a space means the same.
    out.extend(data.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

fn shown(line: &LiveLine) -> Shown<'_> {
    let text = str::from_utf8(&line.line).ok().filter(|_| !line.is_cut);
    match text.and_then(|text| sonic_rs::from_str::<LazyValue<'_>>(text).ok()) {
        Some(json) => Shown::Json(json),
        None => Shown::Text(String::from_utf8_lossy(&line.line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_rejected_lines_or_has_nothing() {
        assert_eq!((watched(""), watched("rejected=1")), (Some(Watched::Accepted), Some(Watched::Rejected)));
        for wrong in ["rejected=0", "rejected", "more=1", "%"] {
            assert_eq!(watched(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hundred_lines_a_second_are_shown_and_the_others_are_counted() {
        let start = Instant::now();
        let mut account = Account::new(1000, start);
        let shown = (0..150).filter(|_| account.permits(start)).count();
        assert_eq!(shown, 100);
        assert_eq!(account.skipped(1150, start), None, "it is said once a second");
        let later = start + SECOND;
        assert_eq!(account.skipped(1150, later), Some(50));
        assert!(account.permits(later));
        assert_eq!(account.skipped(1150, later + SECOND), None, "a line that is shown before it is counted");
        assert_eq!(account.skipped(1153, later + SECOND), Some(2));
        assert_eq!(account.skipped(1153, later + 2 * SECOND), None);
    }
}
