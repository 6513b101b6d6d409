//! The chunked transfer coding (RFC 9112, section 7.1), decoded where it lies.
//!
//! The contract of [`ChunkDecoder::decode`], in one place:
//!
//! - The caller shows each received byte of the body once, in order, cut anywhere.
//! - The decoder moves the data of the chunks together at the front of what it was shown:
//!   `raw[..written]` is the next piece of the body. What lies behind it is rubbish up to
//!   `consumed`.
//! - Unless the body is done, all of `raw` is consumed: sizes and line ends cut in two are kept
//!   in the decoder's state, not in the buffer.
//! - When the body is done, `raw[consumed..]` is untouched and belongs to the next request.
//!   Further calls consume nothing.
//! - After a refusal the decoder and the bytes are good for nothing.
//! - The decoder bounds what is not content: digits, extensions, trailers. The content's bound is
//!   the caller's; [`ChunkDecoder::announced`] tells it before the content has come.

use super::Refusal;
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, TRAILER_BYTES_MAX};

/// Hex digits of a chunk's size, leading zeros too. As many as fit 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in a chunked body the next byte belongs. `Default` is its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Digits of the size line that is being read.
    digits: u8,
    /// Bytes of the current chunk that are still to come. While its size is being read: what the
    /// digits so far amount to, never more than the size.
    left: u64,
    /// Content decoded so far.
    decoded: u64,
    /// Bytes of this chunk's extensions, and of all chunks'.
    extension_bytes: usize,
    extensions_bytes: usize,
    trailer_bytes: usize,
}

/// What one call of [`ChunkDecoder::decode`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body.
    pub consumed: usize,
    /// Bytes of content, now at the front of the input.
    pub written: usize,
    /// Whether the body is complete, its trailers included.
    pub done: bool,
}

/// What the next byte has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// A digit of the size; after the first one also what ends it.
    #[default]
    Size,
    /// More space behind the size, or the semicolon that justifies it.
    BeforeExtension,
    Extension,
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
    /// The first byte of a trailer field, or the CR of the empty line.
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

impl ChunkDecoder {
    /// Decodes `raw` in place, see the contract above.
    pub fn decode(&mut self, raw: &mut [u8]) -> Result<Decoded, Refusal> {
        let mut consumed = 0;
        let mut written = 0;
        while self.state != State::Done {
            if self.state == State::Content {
                let here = raw.len() - consumed;
                let count = usize::try_from(self.left).map_or(here, |left| left.min(here));
                if count == 0 {
                    break;
                }
                raw.copy_within(consumed..consumed + count, written);
                consumed += count;
                written += count;
                self.take(count as u64);
            } else {
                let Some(&byte) = raw.get(consumed) else {
                    break;
                };
                consumed += 1;
                self.state = self.step(byte)?;
            }
        }
        debug_assert!(written <= consumed && consumed <= raw.len());
        Ok(Decoded { consumed, written, done: self.state == State::Done })
    }

    /// The least that the content amounts to: what was decoded, and what the current chunk has
    /// announced. Never goes down.
    pub fn announced(&self) -> u64 {
        self.decoded.saturating_add(self.left)
    }

    fn take(&mut self, count: u64) {
        self.decoded = self.decoded.saturating_add(count);
        self.left -= count;
        if self.left == 0 {
            self.state = State::ContentCr;
        }
    }

    /// What follows `byte`, which is no content.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9') => self.digit(byte - b'0'),
            (State::Size, b'a'..=b'f') => self.digit(byte - b'a' + 10),
            (State::Size, b'A'..=b'F') => self.digit(byte - b'A' + 10),
            (State::Size, _) if self.digits == 0 => Err(Refusal::BadChunk),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::BeforeExtension, b' ' | b'\t') => self.extension(State::BeforeExtension),
            (State::Size | State::BeforeExtension, b';') => self.extension(State::Extension),
            (State::Extension, _) if is_text(byte) => self.extension(State::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                self.extension_bytes = 0;
                Ok(match self.left {
                    0 => State::TrailerLine,
                    _ => State::Content,
                })
            }
            (State::ContentCr, b'\r') => Ok(State::ContentLf),
            (State::ContentLf, b'\n') => Ok(State::Size),
            (State::TrailerLine, b'\r') => Ok(State::LastLf),
            (State::TrailerLine | State::TrailerName, _) if is_token(byte) => self.trailer(State::TrailerName),
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => self.trailer(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue),
            (State::TrailerLf, b'\n') => self.trailer(State::TrailerLine),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => Err(Refusal::BadChunk),
        }
    }

    fn digit(&mut self, digit: u8) -> Result<State, Refusal> {
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::BadChunk);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, next: State) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX || self.extensions_bytes > CHUNK_EXTENSIONS_BYTES_MAX {
            return Err(Refusal::BadChunk);
        }
        Ok(next)
    }

    fn trailer(&mut self, next: State) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::TrailersTooLarge);
        }
        Ok(next)
    }
}

/// What a field's value may hold (RFC 9110, section 5.5), and a quoted extension too.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
