//! Cuts a segment whose rows ClickHouse refuses: the good ones go in, the bad ones into quarantine.
//!
//! Where ClickHouse names the row, the cut goes around it, else through the middle; a single row
//! that is refused alone is a bad one. Each piece has a token of its own. What is known of the
//! pieces is on the disk before anything of them is sent, so a piece is only ever cut further when
//! every attempt of it was answered, and nothing is sent as part of two pieces.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use clickhouse_rowbinary::Value;

use super::due::Work;
use super::failure::{Failure, describe};
use super::inserter::{Insert, Inserts, rejected_part_failed};
use super::outcome::{Class, row_named_by};
use super::presence::Repeat;
use super::rows::{self, Rows};
use super::stream::{InsertClient, SegmentBody};
use super::target::Frozen;
use crate::ndjson::quarantine;
use crate::spool::{Cut, Part, Piece, PieceState, SealedSegment};

/// More pieces than this, and a person should look at the table or the events.
const PIECES_MAX: usize = 64;

/// The code of a row that ClickHouse refuses.
const CODE: &str = "refused_by_clickhouse";

impl Inserts {
    /// Writes down the first cut of a segment. Always a failure: the pieces are the next attempt.
    pub(super) fn begin_cut(&self, work: &mut Work, frozen: &Frozen, failure: Failure) -> Result<(), Failure> {
        let segment = &mut work.segment;
        let whole = Piece {
            first: 0,
            rows: segment.rows(),
            offset: 0,
            bytes: segment.rows_bytes(),
            state: PieceState::Waiting,
        };
        let pieces = divide(segment, frozen, &whole, &failure)?;
        let cut = Cut { token: segment.name(), pieces, refused_are_sent: false, refused_are_stored: false };
        segment.save_cut(cut).map_err(Failure::on_disk)?;
        Err(failure)
    }

    /// Sends the pieces of a cut segment that are not decided, then its refused rows.
    pub(super) fn insert_pieces(&self, client: &InsertClient, work: &mut Work, frozen: &Frozen) -> Result<(), Failure> {
        let whole_token = work.segment.token();
        loop {
            let mut cut = work.segment.cut().cloned().ok_or_else(|| Failure::hold("the segment is not cut"))?;
            if cut.is_unreadable() {
                return Err(Failure::hold("the segment was cut, and how can't be read any more"));
            }
            let undecided = |piece: &Piece| matches!(piece.state, PieceState::Waiting | PieceState::Open);
            let Some(index) = cut.pieces.iter().position(undecided) else {
                return self.insert_refused(client, work, frozen, cut);
            };
            let Some(piece) = cut.pieces.get_mut(index) else {
                return Err(Failure::hold("the segment has no such piece"));
            };
            let first_unknown = piece.state == PieceState::Waiting;
            let since_ms = work.segment.open_attempt().filter(|_| !first_unknown).map(|open| open.since_ms);
            piece.state = PieceState::Open;
            let sent = piece.clone();
            let place = self.begin(work, Part::Rows)?;
            work.segment.save_cut(cut.clone()).map_err(Failure::on_disk)?;
            let token = format!("{whole_token}-{}-{}", sent.first, sent.rows);
            let (forced, convert) = (work.orders.force, work.orders.convert);
            let again = || {
                let mut rows = Rows::new(work.segment.read(Part::Rows)?, &frozen.columns)?;
                (0..sent.first).try_for_each(|_| rows.next_row().map(drop))?;
                Ok(rows)
            };
            let repeat = since_ms.map(|since_ms| Repeat { since_ms, forced, rows: &again, bytes: sent.bytes });
            let insert = Insert {
                place,
                part: Part::Rows,
                frozen,
                token: &token,
                rows: sent.rows,
                bytes: sent.bytes,
                convert,
                repeat,
            };
            let reader = work.segment.read(Part::Rows).map_err(Failure::on_disk)?;
            let outcome = self
                .send(client, &insert, work.attempts, |shape| SegmentBody::new(shape, reader, sent.offset, sent.bytes));
            let (decided, failure) = decide(&work.segment, frozen, &sent, first_unknown, outcome)?;
            let is_open = decided.iter().any(|piece| piece.state == PieceState::Open);
            cut.pieces.splice(index..=index, decided);
            let too_many = cut.pieces.len() > PIECES_MAX;
            if !too_many {
                work.segment.save_cut(cut).map_err(Failure::on_disk)?;
            }
            if failure.is_none() {
                self.spool.inserted(work.segment.number(), sent.rows, 0);
            }
            if !is_open {
                work.segment.attempt_answered().map_err(Failure::on_disk)?;
            }
            match failure {
                None => {}
                Some(failure) if failure.class != Class::Cut => return Err(failure),
                Some(failure) if too_many => {
                    return Err(Failure::hold(format!(
                        "ClickHouse refuses so many rows that more than {PIECES_MAX} pieces would be needed: {}",
                        failure.reason
                    )));
                }
                Some(_) => {}
            }
        }
    }

    /// Puts the refused rows into the quarantine table, under a token of their own.
    fn insert_refused(
        &self,
        client: &InsertClient,
        work: &mut Work,
        frozen: &Frozen,
        mut cut: Cut,
    ) -> Result<(), Failure> {
        let refused = cut.refused();
        if refused == 0 || cut.refused_are_stored {
            return Ok(());
        }
        let token = format!("{}-r", work.segment.token());
        let quarantine = frozen.of_quarantine();
        let rows = refused_rows(&work.segment, frozen, &cut).map_err(Failure::on_disk)?;
        if !cut.refused_are_sent {
            // An attempt that is still open was that of a piece, and a crash came between its proof and
            // the note of it: another table than the quarantine need not know its token.
            if work.segment.open_attempt().is_some() {
                work.segment.attempt_answered().map_err(Failure::on_disk)?;
            }
            cut.refused_are_sent = true;
            work.segment.save_cut(cut.clone()).map_err(Failure::on_disk)?;
        }
        let since_ms = work.segment.open_attempt().map(|open| open.since_ms);
        let first_unknown = since_ms.is_none();
        let place = self.begin(work, Part::Rejected)?;
        let rows = Bytes::from(rows);
        let again = || Rows::of_bytes(rows.clone(), &quarantine.columns);
        let (forced, bytes) = (work.orders.force, rows.len() as u64);
        let repeat = since_ms.map(|since_ms| Repeat { since_ms, forced, rows: &again, bytes });
        let (part, frozen) = (Part::Rejected, &quarantine);
        let insert = Insert { place, part, frozen, token: &token, rows: refused, bytes, convert: false, repeat };
        let outcome = self.send(client, &insert, work.attempts, |shape| SegmentBody::of_bytes(shape, rows.clone()));
        if let Err(failure) = outcome {
            return Err(rejected_part_failed(work, failure, first_unknown));
        }
        cut.refused_are_stored = true;
        work.segment.save_cut(cut).map_err(Failure::on_disk)?;
        self.spool.set_aside(work.segment.number(), refused);
        Ok(())
    }
}

/// What has become of a piece: itself in another state, or the pieces it is cut into.
fn decide(
    segment: &SealedSegment,
    frozen: &Frozen,
    sent: &Piece,
    first_unknown: bool,
    outcome: Result<(), Failure>,
) -> Result<(Vec<Piece>, Option<Failure>), Failure> {
    let turned = |state| vec![Piece { state, ..sent.clone() }];
    Ok(match outcome {
        Ok(()) => (turned(PieceState::Inserted), None),
        Err(failure) if !failure.answered || !first_unknown => {
            let class = if failure.class == Class::Cut { Class::Hold } else { failure.class };
            (turned(PieceState::Open), Some(Failure { class, ..failure }))
        }
        Err(failure) if failure.class != Class::Cut => (turned(PieceState::Waiting), Some(failure)),
        Err(failure) if sent.rows == 1 => {
            let reason = failure.error.as_ref().map_or_else(|| failure.reason.clone(), describe);
            (turned(PieceState::Refused(reason)), Some(failure))
        }
        Err(failure) => (divide(segment, frozen, sent, &failure)?, Some(failure)),
    })
}

/// Cuts a piece around the row that is to blame, or through the middle.
fn divide(segment: &SealedSegment, frozen: &Frozen, piece: &Piece, failure: &Failure) -> Result<Vec<Piece>, Failure> {
    let named = failure.error.as_ref().and_then(row_named_by).filter(|row| *row < piece.rows && piece.rows > 1);
    let mut starts = match named {
        Some(row) => vec![piece.first, piece.first + row, piece.first + row + 1],
        None => vec![piece.first, piece.first + piece.rows / 2],
    };
    let end = piece.first + piece.rows;
    starts.dedup();
    starts.retain(|start| *start < end);
    let offsets = offsets_of(segment, frozen, &starts).map_err(Failure::on_disk)?;
    let places: Vec<(u64, u64)> = starts.into_iter().zip(offsets).collect();
    let ends = places.iter().copied().skip(1).chain([(end, piece.offset + piece.bytes)]);
    Ok(places
        .iter()
        .zip(ends)
        .map(|(&(first, offset), (next, next_offset))| Piece {
            first,
            rows: next - first,
            offset,
            bytes: next_offset - offset,
            state: PieceState::Waiting,
        })
        .collect())
}

/// Where these rows, in order, begin.
fn offsets_of(segment: &SealedSegment, frozen: &Frozen, wanted: &[u64]) -> std::io::Result<Vec<u64>> {
    let mut rows = Rows::new(segment.read(Part::Rows)?, &frozen.columns)?;
    let mut offsets = Vec::with_capacity(wanted.len());
    for row in 0.. {
        if wanted.get(offsets.len()) == Some(&row) {
            offsets.push(rows.offset());
        }
        if offsets.len() == wanted.len() || rows.next_row()?.is_none() {
            break;
        }
    }
    if offsets.len() == wanted.len() {
        Ok(offsets)
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a segment has fewer rows than its seal says"))
    }
}

/// The refused rows as rows of the quarantine table. The same bytes every time: what is in them
/// comes from the segment and from the cut, both on the disk.
fn refused_rows(segment: &SealedSegment, frozen: &Frozen, cut: &Cut) -> std::io::Result<Vec<u8>> {
    let mut rows = Rows::new(segment.read(Part::Rows)?, &frozen.columns)?;
    let mut out = Vec::new();
    let mut next = 0;
    for piece in &cut.pieces {
        let PieceState::Refused(reason) = &piece.state else { continue };
        while next < piece.first {
            rows.next_row()?;
            next += 1;
        }
        for row in 0..piece.rows {
            let Some(bytes) = rows.next_row()? else { break };
            next = piece.first + row + 1;
            let values = rows::values(&frozen.columns, &bytes)?;
            let of = |name: &str| {
                frozen.columns.iter().zip(&values).find(|((column, _), _)| column == name).map(|(_, value)| value)
            };
            let ip = of("ip").map(text).unwrap_or_default();
            let sealed = i64::try_from(segment.sealed_ms()).unwrap_or_default();
            let time = of("server_time").and_then(seconds).unwrap_or(sealed / 1000);
            let json = rows::to_json(&frozen.columns, &values);
            quarantine::put_row_of(&ip, time.saturating_mul(1_000_000_000), CODE, reason, json.as_bytes(), &mut out);
        }
    }
    Ok(out)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Ipv4(address) => address.to_string(),
        Value::Ipv6(address) => address.to_canonical().to_string(),
        Value::Nullable(Some(value)) => self::text(value),
        _ => String::new(),
    }
}

/// The Unix second of a time, if it is one that the quarantine table can hold.
fn seconds(value: &Value) -> Option<i64> {
    match value {
        Value::DateTime(seconds) => {
            DateTime::<Utc>::from_timestamp(i64::from(*seconds), 0).map(|time| time.timestamp())
        }
        Value::Nullable(Some(value)) => seconds(value),
        _ => None,
    }
}
