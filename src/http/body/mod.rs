//! The chunked transfer coding (RFC 9112, section 7.1), decoded in place.
//!
//! The contract of [`ChunkDecoder::decode`]:
//!
//! - The caller passes each received byte of the body once, in order, split at any byte.
//! - The decoder moves the chunks' data to the front of the buffer: `raw[..written]` is the next
//!   piece of the content. The bytes of `raw[written..consumed]` are unspecified.
//! - Until the body is complete, every call consumes all of `raw`: a size or a line end that is
//!   split between two calls is kept in the decoder's state, not in the buffer.
//! - Once the body is complete, `raw[consumed..]` is unchanged and belongs to the next request.
//!   Further calls consume nothing.
//! - After a refusal the states of the decoder and of the buffer are unspecified.
//! - The decoder limits everything but the content: digits of a size, extensions, trailers. The
//!   caller limits the content; [`ChunkDecoder::announced`] gives its size before it arrives.

use super::HttpRefusal;
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, TRAILER_BYTES_MAX};

/// Hex digits of a chunk's size, leading zeros included: a 64-bit integer has 16.
const SIZE_DIGITS_MAX: u8 = 16;

/// The state of decoding one chunked body. `Default` is the state before its first byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Digits read of the current chunk's size.
    digits: u8,
    /// Bytes of the current chunk that have not arrived yet. While its size is being read, the value
    /// of the digits read so far, which never exceeds the size.
    left: u64,
    /// Bytes of content decoded so far.
    decoded: u64,
    /// Bytes of the current chunk's extensions.
    extension_bytes: usize,
    /// Bytes of the extensions of all chunks.
    extensions_bytes: usize,
    trailer_bytes: usize,
}

/// The result of one call of [`ChunkDecoder::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body.
    pub consumed: usize,
    /// Bytes of content, moved to the front of the input.
    pub written: usize,
    /// True when the body is complete, its trailers included.
    pub done: bool,
}

/// The element of the chunked body that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// A digit of the size; after the first digit also the byte that ends the size.
    #[default]
    Size,
    /// White space in front of the semicolon of an extension.
    BeforeExtension,
    /// White space in front of the name of an extension.
    BeforeName,
    Name,
    /// White space behind a name: an equals sign or a semicolon follows.
    BehindName,
    /// White space in front of a value.
    BeforeValue,
    Value,
    Quoted,
    /// A character behind a backslash.
    QuotedPair,
    /// The byte behind the closing quotation mark.
    BehindQuoted,
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
    /// The first byte of a trailer field, or the CR of the empty line that ends the trailers.
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

impl ChunkDecoder {
    /// Decodes `raw` in place. The contract is in the documentation of this module.
    pub fn decode(&mut self, raw: &mut [u8]) -> Result<Decoded, HttpRefusal> {
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

    /// A lower bound of the content's length in bytes: the bytes decoded so far and the rest of the
    /// current chunk. It never decreases.
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

    /// The state after `byte`, which is not a byte of the content.
    fn step(&mut self, byte: u8) -> Result<State, HttpRefusal> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9') => self.digit(byte - b'0'),
            (State::Size, b'a'..=b'f') => self.digit(byte - b'a' + 10),
            (State::Size, b'A'..=b'F') => self.digit(byte - b'A' + 10),
            (State::Size, _) if self.digits == 0 => Err(HttpRefusal::BadChunk),
            (State::Size | State::Name | State::Value | State::BehindQuoted, b'\r') => Ok(State::SizeLf),
            (
                State::Size
                | State::BeforeExtension
                | State::BeforeName
                | State::Name
                | State::BehindName
                | State::BeforeValue
                | State::Value
                | State::Quoted
                | State::QuotedPair
                | State::BehindQuoted,
                _,
            ) => self.extension(byte),
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
            _ => Err(HttpRefusal::BadChunk),
        }
    }

    fn digit(&mut self, digit: u8) -> Result<State, HttpRefusal> {
        if self.digits == SIZE_DIGITS_MAX {
            return Err(HttpRefusal::BadChunk);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<State, HttpRefusal> {
        let next = extension(self.state, byte).ok_or(HttpRefusal::BadChunk)?;
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX || self.extensions_bytes > CHUNK_EXTENSIONS_BYTES_MAX {
            return Err(HttpRefusal::BadChunk);
        }
        Ok(next)
    }

    fn trailer(&mut self, next: State) -> Result<State, HttpRefusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(HttpRefusal::TrailersTooLarge);
        }
        Ok(next)
    }
}

/// The state behind a byte of the chunk extensions (RFC 9112, section 7.1.1), which are skipped; `None`
/// when their grammar has no such byte.
fn extension(state: State, byte: u8) -> Option<State> {
    Some(match (state, byte) {
        (State::Size | State::BeforeExtension | State::Value | State::BehindQuoted, b' ' | b'\t') => {
            State::BeforeExtension
        }
        (
            State::Size | State::BeforeExtension | State::Name | State::BehindName | State::Value | State::BehindQuoted,
            b';',
        ) => State::BeforeName,
        (State::BeforeName | State::BeforeValue, b' ' | b'\t') => state,
        (State::BeforeName | State::Name, _) if is_token(byte) => State::Name,
        (State::Name | State::BehindName, b' ' | b'\t') => State::BehindName,
        (State::Name | State::BehindName, b'=') => State::BeforeValue,
        (State::BeforeValue | State::Value, _) if is_token(byte) => State::Value,
        (State::BeforeValue, b'"') => State::Quoted,
        (State::Quoted, b'"') => State::BehindQuoted,
        (State::Quoted, b'\\') => State::QuotedPair,
        (State::Quoted | State::QuotedPair, _) if is_text(byte) => State::Quoted,
        _ => return None,
    })
}

/// A byte of a field value (RFC 9110, section 5.5) or of a quoted string (section 5.6.4).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
