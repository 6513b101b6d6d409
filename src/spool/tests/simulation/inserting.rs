//! The steps of the inserters with sealed segments, in their real order, against the servers of the
//! model.

use super::super::chance::Chance;
use super::super::model::{Section, row_offsets};
use super::*;
use crate::batch::SegmentNumber;

impl Life {
    /// Processes a segment that is due, as an inserter does.
    pub(super) fn insert_one(&mut self) {
        let Some(process) = self.process.as_mut().filter(|process| !process.waiting.is_empty()) else { return };
        let place = self.chance.below(process.waiting.len() as u64) as usize;
        let mut segment = process.waiting.swap_remove(place);
        let (pool, newest) = (process.pool.clone(), process.metrics.newest());
        match self.attempt(&mut segment, &pool, newest.get()) {
            // The next start finds a segment that can't be removed.
            Ok(true) => drop(pool.retire(&segment)),
            Err(error) if self.kind.flips && error.kind() == io::ErrorKind::InvalidData => {
                let left = self.damaged(segment, &pool);
                self.process.as_mut().unwrap().waiting.extend(left);
            }
            Ok(false) | Err(_) => {
                if self.chance.one_in(8) {
                    let before = segment.path().to_owned();
                    pool.set_apart(&mut segment);
                    self.reach_if(segment.path() != before, "a block is moved out of its segment");
                }
                self.process.as_mut().unwrap().waiting.push(segment);
            }
        }
    }

    /// Salvages a segment that can't be read, and returns the copy.
    fn damaged(&mut self, mut segment: SealedSegment, pool: &SegmentPool) -> Option<SealedSegment> {
        assert!(self.model.is_damaged(segment.number().segment.get()), "nothing has hit it");
        let a_person_looks = !self.is_faulty || self.chance.one_in(3);
        if self.must_be_held(&segment) || segment.open_attempt().is_some() && !a_person_looks {
            return Some(segment);
        }
        self.reach_if(segment.number().index > 0, "a block of several in a segment is damaged");
        let readable = flips::readable(&self.disk, segment.path(), segment.number().index, segment.rows_waiting() > 0);
        match pool.salvage(&mut segment) {
            // Nothing can be looked up.
            Ok(Some(salvaged)) if self.disk.ended().is_some() => salvaged.segment,
            Ok(Some(salvaged)) => {
                let found = self.quietly(|life| salvaged.segment.as_ref().map(|left| life.look_at(left)));
                assert_eq!(found.unwrap_or_default().into_iter().collect::<BTreeSet<_>>(), readable, "it is salvaged");
                salvaged.segment
            }
            Ok(None) => panic!("what could not be read can be read"),
            Err(_) => Some(segment),
        }
    }

    /// True if ClickHouse has, or may get, a piece of the segment, so that no other INSERT of its
    /// rows is permitted.
    pub(super) fn must_be_held(&self, segment: &SealedSegment) -> bool {
        let token = segment.token();
        let is_there = |token: &str| self.model.server_of(token).is_some();
        let rows = segment.rows_waiting() > 0;
        rows && segment.cut().is_some()
            || segment.open_attempt().is_some() && (rows && is_there(&token) || is_there(&format!("{token}-q")))
    }

    /// True if the whole segment is proven.
    fn attempt(&mut self, segment: &mut SealedSegment, pool: &SegmentPool, newest: u64) -> io::Result<bool> {
        let token = segment.token();
        if segment.rows_waiting() > 0 {
            let proven = if segment.cut().is_some() {
                self.insert_pieces(segment, newest)?
            } else {
                self.insert_part(segment, Section::Rows, &token, newest)?
            };
            if !proven {
                return Ok(false);
            }
            if segment.rejected() > 0 {
                pool.rows_are_inserted(segment)?;
            }
        }
        if segment.rejected() > 0 {
            return self.insert_part(segment, Section::Rejected, &format!("{token}-q"), newest);
        }
        Ok(true)
    }

    fn insert_part(
        &mut self,
        segment: &mut SealedSegment,
        section: Section,
        token: &str,
        newest: u64,
    ) -> io::Result<bool> {
        let part = if section == Section::Rows { Part::Rows } else { Part::Rejected };
        if is_a_persons(segment) && self.model.finds(&read(segment, part)?) {
            return Ok(true);
        }
        let first_unknown = segment.open_attempt().is_none();
        let server = self.begin(segment, token, newest)?;
        let bytes = read(segment, part);
        if first_unknown && bytes.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            // The INSERT broke off.
            segment.attempt_answered();
        }
        let bytes = bytes?;
        match self.chance.below(7) {
            0..3 => {
                self.model.insert(server, token, section, &bytes);
                return self.is_there(segment, server, token);
            }
            // No answer: the rows are stored, or not, or only the token is.
            3 => self.model.insert(server, token, section, &bytes),
            4 => {}
            5 => self.model.know_only(server, token, &bytes),
            _ if first_unknown => {
                segment.attempt_answered();
                if section == Section::Rows && segment.rows() > 1 && self.chance.one_in(2) {
                    segment.cut_into(cut_in_two(segment, &bytes, &mut self.chance))?;
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn insert_pieces(&mut self, segment: &mut SealedSegment, newest: u64) -> io::Result<bool> {
        let whole = segment.token();
        let pieces = segment.cut().unwrap().pieces.clone();
        for (index, piece) in pieces.into_iter().enumerate() {
            if piece.state == PieceState::Inserted {
                continue;
            }
            let place = piece.offset as usize..(piece.offset + piece.bytes) as usize;
            if is_a_persons(segment) && self.model.finds(&read(segment, Part::Rows)?[place.clone()]) {
                segment.replace_piece(index, vec![Piece { state: PieceState::Inserted, ..piece }])?;
                continue;
            }
            let token = format!("{whole}-{}-{}", piece.first, piece.rows);
            let server = self.begin(segment, &token, newest)?;
            segment.replace_piece(index, vec![Piece { state: PieceState::Open, ..piece.clone() }])?;
            let rows = read(segment, Part::Rows)?;
            let bytes = &rows[place];
            let outcome = self.chance.below(6);
            match outcome {
                0..4 => self.model.insert(server, &token, Section::Rows, bytes),
                4 => self.model.know_only(server, &token, bytes),
                _ => {}
            }
            if outcome >= 3 || !self.is_there(segment, server, &token)? {
                return Ok(false);
            }
            segment.replace_piece(index, vec![Piece { state: PieceState::Inserted, ..piece }])?;
            segment.attempt_answered();
        }
        Ok(true)
    }

    /// After a success: if the token has no rows, it is used up.
    fn is_there(&mut self, segment: &mut SealedSegment, server: usize, token: &str) -> io::Result<bool> {
        let is_there = self.model.has_rows(server, token);
        if !is_there {
            segment.use_up_token()?;
        }
        Ok(is_there)
    }

    /// Chooses a server, as the inserters do, and notes that it may have the segment.
    fn begin(&mut self, segment: &mut SealedSegment, token: &str, newest: u64) -> io::Result<usize> {
        let any = self.chance.below(2) as usize;
        let server = match segment.open_attempt().map(|open| open.server.parse()) {
            None if !self.kind.flips => any,
            Some(Ok(window)) => window,
            // The segment is held. The operator looks up which server has it, and which parts.
            None | Some(Err(_)) => self.model.server_of(token).unwrap_or(any),
        };
        segment.begin_attempt(&server.to_string(), SegmentNumber::new(newest))?;
        Ok(server)
    }
}

/// The disk does not say to which server or under which token the segment was sent: the operator
/// looks its rows up.
fn is_a_persons(segment: &SealedSegment) -> bool {
    segment.open_attempt().is_some_and(OpenAttempt::is_unknown)
}

/// The bytes of a part of a segment.
pub(super) fn read(segment: &SealedSegment, part: Part) -> io::Result<Vec<u8>> {
    let (mut reader, mut bytes) = (segment.read(part)?, Vec::new());
    while let Some(piece) = reader.next_rows()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn cut_in_two(segment: &SealedSegment, rows: &[u8], chance: &mut Chance) -> Vec<Piece> {
    let offsets = row_offsets(rows);
    let at = 1 + chance.below(offsets.len() as u64 - 1);
    let (middle, end, state) = (offsets[at as usize], rows.len() as u64, PieceState::Waiting);
    vec![
        Piece { first: 0, rows: at, offset: 0, bytes: middle, state: state.clone() },
        Piece { first: at, rows: segment.rows() - at, offset: middle, bytes: end - middle, state },
    ]
}
