//! The content codings of request bodies (RFC 9110, section 8.4.1), decoded incrementally.
//!
//! | file | |
//! |---|---|
//! | `decoder` | a decoder of any coding; `absent` in a build without the feature `codings` |
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

#[cfg(not(feature = "codings"))]
mod absent;
#[cfg(feature = "codings")]
mod brotli;
mod content;
#[cfg(feature = "codings")]
mod decoder;
#[cfg(feature = "codings")]
mod gzip;
#[cfg(feature = "codings")]
mod zstd;

#[cfg(not(feature = "codings"))]
pub use absent::Decoder;
pub use content::{Advanced, ContentDecoder};
#[cfg(feature = "codings")]
pub use decoder::Decoder;

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

#[cfg(feature = "codings")]
#[cfg(test)]
pub(crate) mod encoders;
#[cfg(feature = "codings")]
#[cfg(test)]
mod tests;
