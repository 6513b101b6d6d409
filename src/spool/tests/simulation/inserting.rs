//! The steps of the inserters with sealed blocks, in their real order, against the servers of the
//! model.

use super::super::chance::Chance;
use super::super::model::{Section, row_offsets};
use super::*;
use crate::batch::SegmentNumber;

impl Life {
    /// Processes a block that is due, as an inserter does.
    pub(super) fn insert_one(&mut self) {
        let Some(process) = self.process.as_mut().filter(|process| !process.waiting.is_empty()) else { return };
        let place = self.chance.below(process.waiting.len() as u64) as usize;
        let mut block = process.waiting.swap_remove(place);
        let (pool, newest) = (process.pool.clone(), process.metrics.newest());
        match self.attempt(&mut block, &pool, newest.get()) {
            // The next start finds a block that can't be retired.
            Ok(true) => drop(pool.retire(&block)),
            Err(error) if self.kind.flips && error.kind() == io::ErrorKind::InvalidData => {
                let left = self.damaged(block, &pool);
                self.process.as_mut().unwrap().waiting.extend(left);
            }
            Ok(false) | Err(_) => {
                if self.chance.one_in(8) {
                    let before = block.path().to_owned();
                    pool.set_apart(&mut block);
                    self.reach_if(block.path() != before, "a block is moved out of its segment");
                }
                self.process.as_mut().unwrap().waiting.push(block);
            }
        }
    }

    /// Salvages a block that can't be read, and returns the copy.
    fn damaged(&mut self, mut block: SealedBlock, pool: &SegmentPool) -> Option<SealedBlock> {
        assert!(self.model.is_damaged(block.number().segment.get()), "nothing has hit it");
        let a_person_looks = !self.is_faulty || self.chance.one_in(3);
        if self.must_be_held(&block) || block.open_attempt().is_some() && !a_person_looks {
            return Some(block);
        }
        self.reach_if(block.number().index > 0, "a block of several in a segment is damaged");
        let readable = flips::readable(&self.disk, block.path(), block.number().index, block.rows_waiting() > 0);
        match pool.salvage(&mut block) {
            // Nothing can be looked up.
            Ok(Some(salvaged)) if self.disk.ended().is_some() => salvaged.block,
            Ok(Some(salvaged)) => {
                let found = self.quietly(|life| salvaged.block.as_ref().map(|left| life.look_at(left)));
                assert_eq!(found.unwrap_or_default().into_iter().collect::<BTreeSet<_>>(), readable, "it is salvaged");
                salvaged.block
            }
            Ok(None) => panic!("what could not be read can be read"),
            Err(_) => Some(block),
        }
    }

    /// True if ClickHouse has, or may get, a piece of the block, so that no other INSERT of its
    /// rows is permitted.
    pub(super) fn must_be_held(&self, block: &SealedBlock) -> bool {
        let token = block.token();
        let is_there = |token: &str| self.model.server_of(token).is_some();
        let rows = block.rows_waiting() > 0;
        rows && block.cut().is_some()
            || block.open_attempt().is_some() && (rows && is_there(&token) || is_there(&format!("{token}-q")))
    }

    /// True if the whole block is proven.
    fn attempt(&mut self, block: &mut SealedBlock, pool: &SegmentPool, newest: u64) -> io::Result<bool> {
        let token = block.token();
        if block.rows_waiting() > 0 {
            let proven = if block.cut().is_some() {
                self.insert_pieces(block, newest)?
            } else {
                self.insert_part(block, Section::Rows, &token, newest)?
            };
            if !proven {
                return Ok(false);
            }
            if block.rejected() > 0 {
                pool.rows_are_inserted(block)?;
            }
        }
        if block.rejected() > 0 {
            return self.insert_part(block, Section::Rejected, &format!("{token}-q"), newest);
        }
        Ok(true)
    }

    fn insert_part(&mut self, block: &mut SealedBlock, section: Section, token: &str, newest: u64) -> io::Result<bool> {
        let part = if section == Section::Rows { Part::Rows } else { Part::Rejected };
        if is_a_persons(block) && self.model.finds(&read(block, part)?) {
            return Ok(true);
        }
        let first_unknown = block.open_attempt().is_none();
        let server = self.begin(block, token, newest)?;
        let bytes = read(block, part);
        if first_unknown && bytes.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            // The INSERT broke off.
            block.attempt_answered();
        }
        let bytes = bytes?;
        match self.chance.below(7) {
            0..3 => {
                self.model.insert(server, token, section, &bytes);
                return self.is_there(block, server, token);
            }
            // No answer: the rows are stored, or not, or only the token is.
            3 => self.model.insert(server, token, section, &bytes),
            4 => {}
            5 => self.model.know_only(server, token, &bytes),
            _ if first_unknown => {
                block.attempt_answered();
                // ClickHouse would refuse the block of a copy for the same reason, at the same rows.
                let may_cut = !self.kind.copies && section == Section::Rows && block.rows() > 1;
                if may_cut && self.chance.one_in(2) {
                    block.cut_into(cut_in_two(block, &bytes, &mut self.chance))?;
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn insert_pieces(&mut self, block: &mut SealedBlock, newest: u64) -> io::Result<bool> {
        let whole = block.token();
        let pieces = block.cut().unwrap().pieces.clone();
        for (index, piece) in pieces.into_iter().enumerate() {
            if piece.state == PieceState::Inserted {
                continue;
            }
            let place = piece.offset as usize..(piece.offset + piece.bytes) as usize;
            if is_a_persons(block) && self.model.finds(&read(block, Part::Rows)?[place.clone()]) {
                block.replace_piece(index, vec![Piece { state: PieceState::Inserted, ..piece }])?;
                continue;
            }
            let token = format!("{whole}-{}-{}", piece.first, piece.rows);
            let server = self.begin(block, &token, newest)?;
            block.replace_piece(index, vec![Piece { state: PieceState::Open, ..piece.clone() }])?;
            let rows = read(block, Part::Rows)?;
            let bytes = &rows[place];
            let outcome = self.chance.below(6);
            match outcome {
                0..4 => self.model.insert(server, &token, Section::Rows, bytes),
                4 => self.model.know_only(server, &token, bytes),
                _ => {}
            }
            if outcome >= 3 || !self.is_there(block, server, &token)? {
                return Ok(false);
            }
            block.replace_piece(index, vec![Piece { state: PieceState::Inserted, ..piece }])?;
            block.attempt_answered();
        }
        Ok(true)
    }

    /// After a success: if the token has no rows, it is used up.
    fn is_there(&mut self, block: &mut SealedBlock, server: usize, token: &str) -> io::Result<bool> {
        let is_there = self.model.has_rows(server, token);
        if !is_there {
            block.use_up_token()?;
        }
        Ok(is_there)
    }

    /// Chooses a server, as the inserters do, and notes that it may have the block.
    fn begin(&mut self, block: &mut SealedBlock, token: &str, newest: u64) -> io::Result<usize> {
        let any = self.first_server(token);
        let server = match block.open_attempt().map(|open| open.server.parse()) {
            None if !self.kind.flips => any,
            Some(Ok(window)) => window,
            // The block is held. The operator looks up which server has it, and which parts.
            None | Some(Err(_)) => self.model.server_of(token).unwrap_or(any),
        };
        block.begin_attempt(&server.to_string(), SegmentNumber::new(newest))?;
        Ok(server)
    }
}

/// The disk does not say to which server or under which token the block was sent: the operator
/// looks its rows up.
fn is_a_persons(block: &SealedBlock) -> bool {
    block.open_attempt().is_some_and(OpenAttempt::is_unknown)
}

/// The bytes of a part of a block.
pub(super) fn read(block: &SealedBlock, part: Part) -> io::Result<Vec<u8>> {
    let (mut reader, mut bytes) = (block.read(part)?, Vec::new());
    while let Some(piece) = reader.next_rows()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn cut_in_two(block: &SealedBlock, rows: &[u8], chance: &mut Chance) -> Vec<Piece> {
    let offsets = row_offsets(rows);
    let at = 1 + chance.below(offsets.len() as u64 - 1);
    let (middle, end, state) = (offsets[at as usize], rows.len() as u64, PieceState::Waiting);
    vec![
        Piece { first: 0, rows: at, offset: 0, bytes: middle, state: state.clone() },
        Piece { first: at, rows: block.rows() - at, offset: middle, bytes: end - middle, state },
    ]
}
