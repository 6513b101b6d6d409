//! The content of one coded body, decoded into a buffer in steps of bounded work.

use super::{Coding, CodingRefusal, Decoder};
use crate::limits::SLICE_BYTES;

/// What one member or frame costs beside its bytes: an empty one has 9 bytes.
const CALL_COST: usize = 256;

/// Bytes of the coded body that are decoded in one call, so that the work of a call is bounded where they
/// have no content.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// How far [`ContentDecoder::advance`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// The content is complete.
    Done,
    /// The work that was allowed is done; more is left.
    More,
    /// The buffer is full; there may be more content.
    Full,
}

/// A decoder and the buffer of the content. The buffer has [`SLICE_BYTES`] and is kept for the next body;
/// its owner makes it larger for a body that needs more.
#[derive(Default)]
pub struct ContentDecoder {
    decoder: Decoder,
    /// The buffer; the first `len` bytes are content.
    bytes: Vec<u8>,
    len: usize,
    /// Bytes of the coded body that are decoded.
    consumed: usize,
    /// The longest content.
    content_bytes_max: usize,
}

impl ContentDecoder {
    /// Begins a body. Returns false when there is no memory for its decoder.
    #[must_use]
    pub fn begin(&mut self, coding: Coding, content_bytes_max: u64) -> bool {
        // One byte more than the content may have shows that it has too many.
        self.content_bytes_max = usize::try_from(content_bytes_max).unwrap_or(usize::MAX).min(usize::MAX - 1);
        (self.len, self.consumed) = (0, 0);
        if self.bytes.len() < SLICE_BYTES {
            self.bytes.resize(SLICE_BYTES, 0);
        }
        self.decoder.begin(coding)
    }

    /// Continues with `body`, the whole coded body, for `work` bytes of it or of its content and a call
    /// more.
    ///
    /// # Errors
    ///
    /// The body is refused.
    pub fn advance(&mut self, body: &[u8], work: usize) -> Result<Advanced, CodingRefusal> {
        let mut done = 0;
        while done < work {
            let rest = body.get(self.consumed..).unwrap_or_default();
            let input = rest.get(..INPUT_BYTES_MAX).unwrap_or(rest);
            let end = self.bytes.len().min(self.content_bytes_max + 1);
            let Some(space) = self.bytes.get_mut(self.len..end).filter(|space| !space.is_empty()) else {
                return Ok(Advanced::Full);
            };
            // A few bytes of the body may become as much content as there is space.
            let most = space.len().min(work - done);
            let space = space.get_mut(..most).unwrap_or_default();
            let room = space.len();
            let step = self.decoder.decode(input, space)?;
            self.consumed += step.consumed;
            self.len += step.written;
            if self.len > self.content_bytes_max {
                return Err(CodingRefusal::TooLarge);
            }
            if self.consumed == body.len() && step.written < room {
                self.decoder.finish()?;
                return Ok(Advanced::Done);
            }
            if step.consumed == 0 && step.written == 0 {
                // No decoder stops with input and space left; a loop without an end would stop the worker.
                return Err(CodingRefusal::Broken);
            }
            done += step.consumed.max(step.written) + CALL_COST;
        }
        Ok(Advanced::More)
    }

    /// The content, as far as it is decoded.
    pub fn content(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The memory of the buffer after [`ContentDecoder::grow`].
    pub fn grown_capacity(&self) -> usize {
        let needed = self.bytes.len().saturating_add(SLICE_BYTES);
        let capacity = self.bytes.capacity();
        if needed <= capacity {
            return capacity;
        }
        let doubled = capacity.saturating_mul(2).min(self.content_bytes_max.saturating_add(1));
        doubled.max(needed)
    }

    /// Makes the buffer larger by [`SLICE_BYTES`], with memory for as much again as it has.
    pub fn grow(&mut self) {
        let capacity = self.grown_capacity();
        self.bytes.reserve_exact(capacity - self.bytes.len());
        self.bytes.resize(self.bytes.len() + SLICE_BYTES, 0);
    }

    /// The memory of the buffer.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets the body, and gives back what is not kept for the next one.
    pub fn rest(&mut self) {
        (self.len, self.consumed) = (0, 0);
        if self.bytes.len() > SLICE_BYTES {
            self.bytes = Vec::new();
        }
        self.decoder.rest();
    }
}
