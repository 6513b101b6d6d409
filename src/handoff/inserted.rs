//! Which segments ClickHouse has confirmed lately, for the replies that wait for one of them.
//!
//! A ring, written by the inserters and read by the workers: no lock, no allocation, and nothing to
//! do while no reply waits. What is overwritten in it is thousands of segments old, older than any
//! reply waits.

use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use crate::batch::SegmentNumber;
use crate::limits;

/// The segments that were confirmed lately, and how many replies wait for one.
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
    /// Inserter: notes a segment; true when somebody may wait for it and has to be woken.
    pub(super) fn note(&self, segment: SegmentNumber) -> bool {
        if let Some(place) = self.place(segment) {
            place.store(segment.get(), SeqCst);
        }
        // Whoever begins to wait after this looks at the ring after that.
        self.waiting.load(SeqCst) > 0
    }

    /// Worker: one more, or one less, reply waits. Call it before looking.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, SeqCst);
    }

    /// Worker: a reply does not wait any more.
    pub fn wait_no_more(&self) {
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// True when the segment is among those that were confirmed lately.
    pub fn has(&self, segment: SegmentNumber) -> bool {
        self.place(segment).is_some_and(|place| place.load(SeqCst) == segment.get())
    }

    fn place(&self, segment: SegmentNumber) -> Option<&AtomicU64> {
        let index = usize::try_from(segment.get() % limits::INSERTED_RING as u64).ok()?;
        self.ring.get(index)
    }
}
