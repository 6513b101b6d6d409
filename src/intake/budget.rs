//! The budget of `--in-flight-bytes-max`: bytes of partly received requests and of batches, of all
//! workers. It changes when a buffer grows or is released and once per batch, not per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A limit of bytes shared by all workers.
#[derive(Debug)]
pub struct ByteBudget {
    bytes: AtomicU64,
    max: u64,
}

impl ByteBudget {
    /// A budget of `max` bytes.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), max })
    }

    /// Charges `bytes` to the budget. Returns false, and charges nothing, when they exceed it.
    pub fn charge(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.max {
            self.bytes.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    /// Charges `bytes` that are already allocated, even when they exceed the budget.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Releases `bytes` that were charged.
    pub fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// True when the whole budget is charged.
    pub fn is_used_up(&self) -> bool {
        self.bytes() >= self.max
    }

    /// The bytes that are charged now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}
