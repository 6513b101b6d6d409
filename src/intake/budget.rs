//! The budget of `--in-flight-bytes-max`: partly received requests and batches of all workers.
//! Touched when a buffer grows or is given back and once per batch, not per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number of bytes that all workers share.
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

    /// Takes `bytes` out of the budget; false, and nothing taken, when it has not so many.
    pub fn charge(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.max {
            self.bytes.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    /// Takes `bytes` out of the budget whatever it has: they are there already.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// True when everything is given out.
    pub fn is_used_up(&self) -> bool {
        self.bytes() >= self.max
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}
