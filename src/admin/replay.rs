//! `/quarantine/replay`: rejected lines come back, with the addresses and times that they had.
//!
//! `GET` says the node's name, its table and its clock. `POST` takes lines one behind the other: the second in
//! four bytes, little-endian, then address and line, each behind its length in LEB128; and says which
//! of them are not stored, by their places from 0. Its `Idempotency-Key` names them: what comes again
//! under it is stored once. Query: `dry_run=1`, and `table=LABEL`, which may be left out where there is only
//! one table.

use super::{Admin, Page};
use crate::batch::TableIndex;
use crate::clock::unix_ms;
use crate::http::{Framing, Head, Method, Status, query_pairs};
use crate::intake::replay::{ReplayedClient, ReplayedLine};
use crate::limits;
use crate::ndjson::AddressHash;

pub(super) const PATH: &str = "/quarantine/replay";

/// Bytes of the body that belongs to a head of this path; `None` when it is too long, or its length
/// is not said.
pub(super) fn body_len(head: &Head<'_>) -> Option<usize> {
    match head.framing {
        Framing::Length(length) => usize::try_from(length).ok().filter(|length| *length <= limits::REPLAY_BYTES_MAX),
        Framing::Chunked => None,
    }
}

pub(super) fn page(admin: &Admin, head: &Head<'_>, body: &[u8]) -> Page {
    if body_len(head).is_none() {
        let message = "The body has no length, or is too long.";
        return Page::fault(Status::ContentTooLarge, "body_too_large", message);
    }
    let Some(replayer) = admin.replayer.get() else {
        return Page::fault(Status::ServiceUnavailable, "starting", "The server takes no events yet.");
    };
    let node = sonic_rs::to_string(&replayer.node).unwrap_or_default();
    let Some(options) = Options::read(head.query) else {
        return Page::fault(Status::BadRequest, "bad_query", "The query may have dry_run=1 and table=LABEL.");
    };
    let mut tables = (0..).zip(&admin.tables);
    let found = match &options.table {
        Some(label) => tables.find(|(_, table)| table.label == *label),
        None => tables.next().filter(|_| admin.tables.len() == 1),
    };
    let Some((place, table)) = found else {
        return Page::fault(Status::NotFound, "no_table", "There is no such table; table=LABEL names one.");
    };
    if head.method != Method::Post {
        let table = sonic_rs::to_string(&table.name.to_string()).unwrap_or_default();
        let second = unix_ms() / 1000;
        return Page::json(Status::Ok, format!("{{\"node\":{node},\"table\":{table},\"second\":{second}}}"));
    }
    let Some(lines) = lines(body) else {
        let message = "The body holds seconds, addresses and lines.";
        return Page::fault(Status::BadRequest, "bad_request", message);
    };
    let Some(key) = head.idempotency_key.filter(|key| !key.is_empty()) else {
        return Page::fault(Status::BadRequest, "bad_idempotency_key", "There must be one Idempotency-Key.");
    };
    match replayer.store(TableIndex::new(place), key, &lines, options.dry_run) {
        Ok(are_good) => {
            let rejected = (0usize..).zip(&are_good).filter(|(_, good)| !**good).map(|(place, _)| place.to_string());
            let rejected: Vec<String> = rejected.collect();
            let accepted = are_good.len() - rejected.len();
            let rejected = rejected.join(",");
            Page::json(Status::Ok, format!("{{\"node\":{node},\"accepted\":{accepted},\"rejected\":[{rejected}]}}"))
        }
        Err(fault) => Page::fault(fault.status, fault.code, fault.message),
    }
}

/// The options in the query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    dry_run: bool,
    /// The label of the table.
    table: Option<String>,
}

impl Options {
    /// `None` for a query with anything else.
    fn read(query: &str) -> Option<Self> {
        let mut options = Self::default();
        for pair in query_pairs(query) {
            let (name, value) = pair.ok()?;
            match (name.as_ref(), value.as_ref()) {
                ("dry_run", "1") => options.dry_run = true,
                ("table", label) => options.table = Some(label.to_owned()),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// The lines of a body; `None` when it is none.
pub(super) fn lines(mut body: &[u8]) -> Option<Vec<ReplayedLine<'_>>> {
    let mut lines = Vec::new();
    while !body.is_empty() {
        let (second, rest) = body.split_first_chunk::<4>()?;
        let (address, rest) = text(rest)?;
        let (line, rest) = text(rest)?;
        let client = match (address, AddressHash::read(address)) {
            ([], _) => ReplayedClient::Unknown,
            (_, Some(hash)) => ReplayedClient::Hash(hash),
            (address, None) => ReplayedClient::Address(std::str::from_utf8(address).ok()?.parse().ok()?),
        };
        lines.push(ReplayedLine { second: u32::from_le_bytes(*second), client, line });
        body = rest;
    }
    Some(lines)
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (place, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return bytes.get(place + 1..)?.split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_table_and_a_dry_run_and_nothing_else() {
        let options = |dry_run, table: Option<&str>| Some(Options { dry_run, table: table.map(str::to_owned) });
        assert_eq!(Options::read(""), options(false, None));
        assert_eq!(Options::read("table=web.hits&dry_run=1"), options(true, Some("web.hits")));
        for wrong in ["dry_run=2", "more=1", "%"] {
            assert_eq!(Options::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_body_is_lines_to_its_end_or_nothing() {
        let one = [&[7, 0, 0, 0, 7][..], b"8.8.8.8", &[2], b"{}"].concat();
        let other = [&[1, 2, 0, 0, 0, 0x83, 0x01][..], &[b'x'; 131]].concat();
        let body = [&one[..], &other].concat();
        assert_eq!(
            lines(&body).unwrap(),
            [
                ReplayedLine { second: 7, client: ReplayedClient::Address([8, 8, 8, 8].into()), line: b"{}" },
                ReplayedLine { second: 513, client: ReplayedClient::Unknown, line: &[b'x'; 131] },
            ]
        );
        for end in (1..body.len()).filter(|end| *end != one.len()) {
            assert_eq!(lines(&body[..end]), None, "{end}");
        }
        assert_eq!(lines(&[]), Some(Vec::new()));
        assert_eq!(lines(&[&[7, 0, 0, 0, 3][..], b"x.y", &[0]].concat()), None, "no address");
        assert_eq!(lines(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f]), None);
    }
}
