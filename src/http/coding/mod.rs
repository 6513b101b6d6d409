//! The content codings of request bodies (RFC 9110, section 8.4.1), decoded incrementally.
//!
//! | file | |
//! |---|---|
//! | `gzip` | the members of a gzip file (RFC 1952) and the two wrappings of `deflate` |
//! | `zstd` | the frames of Zstandard (RFC 8878) |
//! | `brotli` | the stream of Brotli (RFC 7932) |
//! | `content` | a decoder with a bounded buffer for the content of one body |
//!
//! The contract of [`Decoder::decode`]:
//!
//! - The caller passes each byte of the coded body once, in order, split at any byte, and the bytes
//!   that a call did not consume again with the next call.
//! - A call that consumed all of its input and left a part of its output unwritten has nothing more to
//!   write: the decoder needs more input, or the body is at its end.
//! - At the end of the body [`Decoder::finish`] tells whether the coded body is complete.
//! - After a refusal the decoder has to begin again.
//! - The decoder bounds its own memory ([`limits::CODING_WINDOW_BYTES_MAX`](crate::limits)). The caller
//!   bounds the content, by the space that it passes.
//!
//! Several gzip members and several Zstandard frames in a row are the concatenation of their contents,
//! as the formats define. Any other bytes behind the end are refused.

mod brotli;
mod content;
mod gzip;
mod zstd;

pub use content::{Advanced, ContentDecoder};

use self::brotli::Brotli;
use self::gzip::{Deflate, Gzip};
use self::zstd::Zstd;
use super::Coding;

/// Why a coded body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodingRefusal {
    /// The body is not in the format of its coding, or a checksum does not match.
    Broken,
    /// The body ends before the coded stream does.
    Truncated,
    /// Bytes follow the end of the coded stream.
    Trailed,
    /// The stream needs a window above [`limits::CODING_WINDOW_BYTES_MAX`](crate::limits).
    WindowTooLarge,
    /// The content is longer than the body may be.
    TooLarge,
}

/// The result of one call of [`Decoder::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that were consumed.
    pub consumed: usize,
    /// Bytes of content that were written to the front of the output.
    pub written: usize,
}

/// Decoders of all codings. Each is made at its first use; the next body of the same coding uses the
/// memory again, except that of Brotli, whose crate can't begin a second stream in the same memory.
#[derive(Default)]
pub struct Decoder {
    gzip: Option<Gzip>,
    deflate: Option<Deflate>,
    zstd: Option<Zstd>,
    brotli: Option<Box<Brotli>>,
    coding: Option<Coding>,
}

impl Decoder {
    /// Begins the body of a request with this coding. Returns false when there is no memory for it.
    #[must_use]
    pub fn begin(&mut self, coding: Coding) -> bool {
        self.coding = Some(coding);
        match coding {
            Coding::Gzip => self.gzip.get_or_insert_default().begin(),
            Coding::Deflate => self.deflate.get_or_insert_default().begin(),
            Coding::Br => self.brotli = Some(Box::default()),
            Coding::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Zstd::new();
                }
                return self.zstd.as_mut().is_some_and(Zstd::begin);
            }
        }
        true
    }

    /// Decodes from `input` to `output`. The contract is in the documentation of this module.
    ///
    /// # Errors
    ///
    /// The body is refused.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        let step = match self.coding {
            Some(Coding::Gzip) => self.gzip.as_mut().map(|gzip| gzip.decode(input, output)),
            Some(Coding::Deflate) => self.deflate.as_mut().map(|deflate| deflate.decode(input, output)),
            Some(Coding::Zstd) => self.zstd.as_mut().map(|zstd| zstd.decode(input, output)),
            Some(Coding::Br) => self.brotli.as_mut().map(|brotli| brotli.decode(input, output)),
            None => None,
        };
        let step = step.unwrap_or(Err(CodingRefusal::Broken))?;
        debug_assert!(step.consumed <= input.len() && step.written <= output.len());
        Ok(step)
    }

    /// The end of the body.
    ///
    /// # Errors
    ///
    /// The coded stream is not at its end.
    pub fn finish(&self) -> Result<(), CodingRefusal> {
        let complete = match self.coding {
            Some(Coding::Gzip) => self.gzip.as_ref().is_some_and(Gzip::is_complete),
            Some(Coding::Deflate) => self.deflate.as_ref().is_some_and(Deflate::is_complete),
            Some(Coding::Zstd) => self.zstd.as_ref().is_some_and(Zstd::is_complete),
            Some(Coding::Br) => self.brotli.as_ref().is_some_and(|brotli| brotli.is_complete()),
            None => false,
        };
        if complete { Ok(()) } else { Err(CodingRefusal::Truncated) }
    }

    /// Gives back what the last body took beyond [`limits::CODING_BYTES_KEPT`](crate::limits).
    pub fn rest(&mut self) {
        self.coding = None;
        self.brotli = None;
        self.zstd.take_if(|zstd| zstd.memory() > crate::limits::CODING_BYTES_KEPT);
    }
}

#[cfg(test)]
mod tests;
