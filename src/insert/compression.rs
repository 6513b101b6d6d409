//! Compression of the body of an INSERT, as a content coding that ClickHouse decodes.

use std::io::{self, Write};

use bytes::Bytes;
use clap::ValueEnum;
use lz4_flex::frame::FrameEncoder;

/// The content coding of an INSERT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsertCompression {
    /// No compression.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}

impl InsertCompression {
    /// The name in `Content-Encoding`; `None` without compression.
    pub fn coding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// The compression level. zstd's default, 3, costs twice as much as 1, and an INSERT is not stored.
const ZSTD_LEVEL: i32 = 1;

/// A compressor of one body.
pub(super) enum Compressor {
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// Creates a compressor; `None` without compression.
    ///
    /// # Errors
    ///
    /// If zstd can't allocate its state.
    pub(super) fn new(compression: InsertCompression) -> io::Result<Option<Self>> {
        Ok(match compression {
            InsertCompression::None => None,
            InsertCompression::Lz4 => Some(Self::Lz4(Box::new(FrameEncoder::new(Vec::new())))),
            InsertCompression::Zstd => Some(Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?)),
        })
    }

    /// Compresses bytes and returns the output so far, which may be empty.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Lz4(encoder) => {
                encoder.write_all(bytes)?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// Ends the body and returns the remaining output.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            Self::Zstd(encoder) => encoder.finish()?,
        }
        .into())
    }
}
