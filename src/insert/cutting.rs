//! Cutting of a block in which ClickHouse refuses some rows: the good rows are inserted, the
//! refused ones go into the quarantine table.
//!
//! If ClickHouse names the refused row, the cut goes around that row, otherwise through the middle.
//! A piece of a single row that is refused is a refused row. Each piece has its own token. The state
//! of the pieces is on the disk before any piece is sent. A piece is cut further only if every
//! attempt of it was answered, so no row is ever sent as part of two pieces.

use bytes::Bytes;

use super::attempt::{Insert, Source};
use super::due::Work;
use super::failure::{FORCE, Failure, describe};
use super::outcome::{Class, row_named_by};
use super::row_json::{self, CellBytes};
use super::rows::RowReader;
use super::step::Sent;
use crate::clickhouse::frozen::Frozen;
use crate::quarantine::RejectedLine;
use crate::spool::{Cut, Part, Piece, PieceState, SealedBlock};

/// A block that would need more pieces than this is held, so that an operator checks the table and
/// the events.
const PIECES_MAX: usize = 256;

/// The error code of refused rows in the quarantine table.
const CODE: &str = "refused_by_clickhouse";

impl Work {
    /// Notes the first cut of the block. From then on only pieces are sent.
    pub(super) fn cut_whole(&mut self, frozen: &Frozen, failure: &Failure) -> Result<(), Failure> {
        let block = &mut self.block;
        let whole =
            Piece { first: 0, rows: block.rows(), offset: 0, bytes: block.rows_bytes(), state: PieceState::Waiting };
        let pieces = divide(block, frozen, &whole, failure)?;
        block.cut_into(pieces).map_err(Failure::on_disk)
    }

    /// Notes that ClickHouse refuses a piece: marks a single row as refused, and cuts a longer piece into
    /// smaller ones.
    pub(super) fn cut_piece(&mut self, index: usize, frozen: &Frozen, failure: &Failure) -> Result<(), Failure> {
        let (cut, piece) = self.piece(index)?;
        let pieces = if piece.rows == 1 && failure.class == Class::Split {
            return Err(Failure::hold(format!("a single row exceeds a limit: {}", failure.reason)));
        } else if piece.rows == 1 {
            let reason = failure.error.as_ref().map_or_else(|| failure.reason.clone(), describe);
            vec![Piece { state: PieceState::Refused(reason), ..piece }]
        } else {
            divide(&self.block, frozen, &piece, failure)?
        };
        if cut.pieces.len() - 1 + pieces.len() > PIECES_MAX && failure.class == Class::Cut && !self.orders.force {
            return Err(Failure::hold(format!(
                "ClickHouse refuses so many rows that more than {PIECES_MAX} pieces would be needed; once the table \
                 takes them they go in by themselves, and `sluicegate spool requeue --force` cuts every one of them out \
                 into the quarantine: {}",
                failure.reason
            ))
            .helped_by(FORCE));
        }
        self.block.replace_piece(index, pieces).map_err(Failure::on_disk)
    }

    /// Notes the new state of a piece durably, and returns the number of its rows.
    pub(super) fn turn_piece(&mut self, index: usize, state: PieceState) -> Result<u64, Failure> {
        let (_, piece) = self.piece(index)?;
        let rows = piece.rows;
        self.block.replace_piece(index, vec![Piece { state, ..piece }]).map_err(Failure::on_disk)?;
        Ok(rows)
    }

    /// The INSERT of a piece.
    pub(super) fn prepare_piece(&mut self, index: usize, frozen: Frozen) -> Result<Insert, Failure> {
        let (_, piece) = self.piece(index)?;
        let Piece { first, rows, offset, bytes, state } = piece;
        let is_repeat = state == PieceState::Open;
        let open = self.block.open_attempt().filter(|_| is_repeat);
        Ok(Insert {
            sent: Sent::Piece(index),
            token: format!("{}-{first}-{rows}", self.block.token()),
            rows,
            bytes,
            source: Source::Block { part: Part::Rows, first, offset },
            convert: self.orders.convert,
            is_repeat,
            open_since_ms: open.map(|open| open.since_ms),
            frozen,
        })
    }

    /// The INSERT of the refused rows into the quarantine table, under a token of their own.
    pub(super) fn prepare_refused(&mut self, frozen: &Frozen) -> Result<Insert, Failure> {
        let cut = self.cut()?;
        let bytes = Bytes::from(refused_rows(&self.block, frozen, &cut).map_err(Failure::on_disk)?);
        let rows = cut.refused();
        if !cut.refused_are_sent {
            // An attempt that is still open belongs to a proven piece: a crash came between the proof
            // and its note. It must not keep this INSERT, into another table, to the piece's server.
            if self.block.open_attempt().is_some() {
                self.block.attempt_answered();
            }
            self.block.refused_are_sent().map_err(Failure::on_disk)?;
        }
        let open_since_ms = self.block.open_attempt().map(|open| open.since_ms);
        Ok(Insert {
            sent: Sent::Refused,
            frozen: frozen.of_quarantine(),
            token: format!("{}-r", self.block.token()),
            rows,
            bytes: bytes.len() as u64,
            source: Source::Memory(bytes),
            convert: false,
            is_repeat: open_since_ms.is_some(),
            open_since_ms,
        })
    }

    /// Notes durably that the refused rows are in the quarantine table, and returns their number.
    pub(super) fn refused_are_stored(&mut self) -> Result<u64, Failure> {
        let refused = self.cut()?.refused();
        self.block.refused_are_stored().map_err(Failure::on_disk)?;
        Ok(refused)
    }

    fn cut(&self) -> Result<Cut, Failure> {
        self.block.cut().cloned().ok_or_else(|| Failure::hold("the block is not cut"))
    }

    fn piece(&self, index: usize) -> Result<(Cut, Piece), Failure> {
        let cut = self.cut()?;
        let piece = cut.pieces.get(index).cloned();
        Ok((cut, piece.ok_or_else(|| Failure::hold("the block has no such piece"))?))
    }
}

/// Cuts a piece around the refused row that the error names, or through the middle.
fn divide(block: &SealedBlock, frozen: &Frozen, piece: &Piece, failure: &Failure) -> Result<Vec<Piece>, Failure> {
    let named = failure.error.as_ref().and_then(row_named_by).filter(|row| *row < piece.rows && piece.rows > 1);
    let mut starts = match named {
        Some(row) => vec![piece.first, piece.first + row, piece.first + row + 1],
        None => vec![piece.first, piece.first + piece.rows / 2],
    };
    let end = piece.first + piece.rows;
    starts.dedup();
    starts.retain(|start| *start < end);
    let offsets = offsets_of(block, frozen, &starts).map_err(Failure::on_disk)?;
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

/// The offsets of the rows with these indices, which must ascend.
fn offsets_of(block: &SealedBlock, frozen: &Frozen, wanted: &[u64]) -> std::io::Result<Vec<u64>> {
    let mut rows = RowReader::new(block.read(Part::Rows)?, &frozen.parts())?;
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
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the block has fewer rows than its seal says"))
    }
}

/// Encodes the refused rows as rows of the quarantine table. The result is always the same, because
/// it depends only on the block and the cut, which are on the disk.
fn refused_rows(block: &SealedBlock, frozen: &Frozen, cut: &Cut) -> std::io::Result<Vec<u8>> {
    let mut rows = RowReader::new(block.read(Part::Rows)?, &frozen.parts())?;
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
            let cells = row_json::cells(frozen, &bytes)?;
            let of = |name: &str| cells.iter().find(|cell| cell.name == name);
            let ip = of("ip").map(CellBytes::text).unwrap_or_default();
            let sealed = i64::try_from(block.sealed_ms()).unwrap_or_default();
            let time = of("server_time").and_then(CellBytes::seconds).unwrap_or(sealed / 1000);
            let json = row_json::to_json(&cells);
            let server_time_unix_ns = time.saturating_mul(1_000_000_000);
            RejectedLine { server_time_unix_ns, ip, code: CODE, message: reason, line: json.as_bytes() }
                .put_row(&mut out);
        }
    }
    Ok(out)
}
