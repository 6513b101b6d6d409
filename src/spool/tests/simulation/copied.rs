//! A disk that is copied while its machine is off, and both are started: what one of them and the other
//! insert from before goes to ClickHouse under the same tokens.

use super::super::chance::Chance;
use super::*;

/// A copy of the disk.
pub(super) struct Copied {
    disk: FaultyDisk,
    /// The name that is on it; without one, each finds a name of its own.
    node_id: Option<String>,
}

impl Life {
    /// Copies the disk. The copy is started at once, or when the life is over.
    pub(super) fn copy_the_disk(&mut self) {
        let copy = Copied { disk: self.disk.copy(), node_id: self.node_id.clone() };
        if self.chance.one_in(2) {
            self.live_on(copy);
        } else {
            self.copy = Some(copy);
        }
    }

    /// Starts a copy, which takes new requests, and inserts all that it has.
    pub(super) fn live_on(&mut self, copy: Copied) {
        let original = std::mem::replace(&mut self.disk, copy.disk);
        let node_id = std::mem::replace(&mut self.node_id, copy.node_id);
        let (process, newest, is_faulty) = (self.process.take(), self.newest, self.is_faulty);
        (self.is_copy, self.is_faulty, self.newest) = (true, false, SegmentNumber::default());
        self.disk.heal();
        self.start();
        let found = self.process.as_ref().is_some_and(|process| !process.waiting.is_empty());
        self.reach_if(found, "a copy of the disk has something to insert");
        for _ in 0..self.chance.below(3) {
            self.submit();
        }
        self.drain();
        (self.disk, self.process, self.newest, self.node_id) = (original, process, newest, node_id);
        (self.is_copy, self.is_faulty) = (false, is_faulty);
    }

    /// The server that a block is sent to first. Where the disk is copied, both send it to the same: servers that
    /// do not share what they know are no replicas, and no tokens help between them.
    pub(super) fn first_server(&mut self, token: &str) -> usize {
        let mut chance = match self.kind.copies {
            true => Chance::new(token.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte))),
            false => Chance::new(self.chance.next()),
        };
        chance.below(2) as usize
    }
}
