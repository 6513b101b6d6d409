//! Zstandard (RFC 8878), frame by frame.
//!
//! The library decodes a frame that it is given whole into a large enough output in one go, and does not
//! check the frame's window then. The header of each frame is collected here and passed alone, so that a
//! frame is decoded in the same way whatever the pieces of the input are.

use ::zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, is_error_kind};

use super::{CodingRefusal, Step};
use crate::limits::CODING_WINDOW_BYTES_MAX;

const MAGIC: u32 = 0xfd2f_b528;
/// The first 28 bits of the magic number of a skippable frame.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// Magic number and length of a skippable frame.
const SKIPPABLE_HEADER: usize = 8;
/// Magic number, descriptor, window, dictionary and content size.
const HEADER_MAX: usize = 18;

/// A decoder of frames in a row.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// The part of a frame's header that has arrived.
    header: [u8; HEADER_MAX],
    header_len: usize,
    /// The header is passed on: the rest of the frame follows.
    in_frame: bool,
    frames: bool,
}

impl Zstd {
    /// `None` when there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(CODING_WINDOW_BYTES_MAX.ilog2())).ok()?;
        Some(Self { context, header: [0; HEADER_MAX], header_len: 0, in_frame: false, frames: false })
    }

    /// Begins a body; false when the context can't be used again.
    pub(super) fn begin(&mut self) -> bool {
        (self.header_len, self.in_frame, self.frames) = (0, false, false);
        self.context.reset(ResetDirective::SessionOnly).is_ok()
    }

    /// True at the end of a frame.
    pub(super) fn is_complete(&self) -> bool {
        self.frames && !self.in_frame && self.header_len == 0
    }

    /// Bytes of memory that the context holds.
    pub(super) fn memory(&self) -> usize {
        self.context.sizeof()
    }

    /// Decodes until the end of a frame at most.
    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        let mut consumed = 0;
        if !self.in_frame {
            consumed = self.collect_header(input)?;
            if !self.in_frame {
                return Ok(Step { consumed, written: 0 });
            }
        }
        let (step, is_end) = self.run(input.get(consumed..).unwrap_or_default(), output)?;
        if is_end {
            self.end_frame();
        }
        Ok(Step { consumed: consumed + step.consumed, written: step.written })
    }

    /// Takes bytes of a header. Once it is whole it is passed on, and the frame begins.
    fn collect_header(&mut self, input: &[u8]) -> Result<usize, CodingRefusal> {
        let mut consumed = 0;
        loop {
            let header = self.header.get(..self.header_len).unwrap_or_default();
            let needed = header_len(header).ok_or(match self.frames {
                true => CodingRefusal::Trailed,
                false => CodingRefusal::Broken,
            })?;
            if header.len() == needed {
                break;
            }
            let (Some(&byte), Some(place)) = (input.get(consumed), self.header.get_mut(self.header_len)) else {
                return Ok(consumed);
            };
            *place = byte;
            self.header_len += 1;
            consumed += 1;
        }
        let header = self.header;
        let mut rest = header.get(..self.header_len).unwrap_or_default();
        self.in_frame = true;
        while !rest.is_empty() {
            let (step, is_end) = self.run(rest, &mut [])?;
            rest = rest.get(step.consumed..).unwrap_or_default();
            if is_end {
                // A skippable frame of no bytes.
                self.end_frame();
            } else if step.consumed == 0 {
                return Err(CodingRefusal::Broken);
            }
        }
        Ok(consumed)
    }

    fn end_frame(&mut self) {
        (self.header_len, self.in_frame, self.frames) = (0, false, true);
    }

    /// One call of the library; true at the end of a frame.
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), CodingRefusal> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        let hint = self.context.decompress_stream(&mut output, &mut input).map_err(|code| {
            match is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
                true => CodingRefusal::WindowTooLarge,
                false => CodingRefusal::Broken,
            }
        })?;
        Ok((Step { consumed: input.pos(), written: output.pos() }, hint == 0))
    }
}

/// The length of a frame's header as far as these first bytes of it say; `None` when they begin no frame.
fn header_len(bytes: &[u8]) -> Option<usize> {
    let Some((magic, rest)) = bytes.split_first_chunk() else {
        return Some(4);
    };
    let magic = u32::from_le_bytes(*magic);
    if magic & !0xf == SKIPPABLE_MAGIC {
        return Some(SKIPPABLE_HEADER);
    }
    if magic != MAGIC {
        return None;
    }
    let Some(descriptor) = rest.first() else {
        return Some(5);
    };
    let is_single_segment = descriptor & 0x20 != 0;
    let dictionary = match descriptor & 3 {
        3 => 4,
        id => usize::from(id),
    };
    let content_size = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        size => 1 << size,
    };
    Some(5 + usize::from(!is_single_segment) + dictionary + content_size)
}
