//! Brotli (RFC 7932).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{CodingRefusal, Step};

/// A decoder of one stream.
pub(super) struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    begun: bool,
    done: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        let allocator = StandardAlloc::default;
        Self { state: BrotliState::new_strict(allocator(), allocator(), allocator()), begun: false, done: false }
    }
}

impl Brotli {
    /// True at the end of the stream.
    pub(super) fn is_complete(&self) -> bool {
        self.done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        if let Some(&first) = input.first() {
            if self.done {
                return Err(CodingRefusal::Trailed);
            }
            if !self.begun && has_large_window(first) {
                return Err(CodingRefusal::WindowTooLarge);
            }
            self.begun = true;
        }
        if self.done {
            return Ok(Step { consumed: 0, written: 0 });
        }
        let (mut input_left, mut consumed) = (input.len(), 0);
        let (mut output_left, mut written, mut total) = (output.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut consumed,
            input,
            &mut output_left,
            &mut written,
            output,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(CodingRefusal::Broken),
            BrotliResult::ResultSuccess => self.done = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Step { consumed, written })
    }
}

/// True when the first byte of a stream asks for a window of 16 MiB (RFC 7932, section 9.1), or for one
/// of "Large Window Brotli", which the RFC has not. All others are at most 8 MiB.
fn has_large_window(first: u8) -> bool {
    first & 0x0f == 0x0f || first & 0x7f == 0x11
}
