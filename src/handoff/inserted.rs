//! The blocks that ClickHouse has confirmed recently, for the replies that wait for one of them.
//!
//! The inserters write to a ring that the workers read, without locks or allocations. An entry is
//! overwritten only after thousands of further blocks, when no reply waits for it any more.

use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use crate::batch::BlockNumber;
use crate::limits;

/// The ring of recently confirmed blocks, and the number of replies that wait for one.
#[derive(Debug)]
pub struct Inserted {
    ring: Box<[AtomicU64]>,
    waiting: AtomicUsize,
}

impl Default for Inserted {
    fn default() -> Self {
        let ring = std::iter::repeat_with(AtomicU64::default).take(limits::INSERTED_RING).collect();
        Self { ring, waiting: AtomicUsize::new(0) }
    }
}

impl Inserted {
    /// Called by an inserter: notes a block. True if a reply may wait for it, so that the workers
    /// must be woken.
    pub(super) fn note(&self, block: BlockNumber) -> bool {
        if let Some(place) = self.place(block) {
            place.store(block.packed(), SeqCst);
        }
        // A worker that increments `waiting` after this load reads the ring afterwards and finds the
        // block.
        self.waiting.load(SeqCst) > 0
    }

    /// Called by a worker: notes that a reply waits. Must precede [`Inserted::has`].
    pub fn wait(&self) {
        self.waiting.fetch_add(1, SeqCst);
    }

    /// Called by a worker: notes that a reply no longer waits.
    pub fn wait_no_more(&self) {
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// True if the block is among the recently confirmed ones.
    pub fn has(&self, block: BlockNumber) -> bool {
        self.place(block).is_some_and(|place| place.load(SeqCst) == block.packed())
    }

    fn place(&self, block: BlockNumber) -> Option<&AtomicU64> {
        let index =
            usize::try_from((block.segment.get() + u64::from(block.index)) % limits::INSERTED_RING as u64).ok()?;
        self.ring.get(index)
    }
}
