//! Compression of what an INSERT sends, as the content coding that ClickHouse undoes.

use std::io::{self, Write};

use bytes::Bytes;
use clap::ValueEnum;
use lz4_flex::frame::FrameEncoder;

/// The content coding of an INSERT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsertCompression {
    /// As it is.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}

impl InsertCompression {
    /// Its name in `Content-Encoding`, as ClickHouse knows it.
    pub fn coding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// zstd's own default is 3; 1 costs half of it, and an INSERT is read once and thrown away.
const ZSTD_LEVEL: i32 = 1;

/// Compresses one body, piece by piece.
pub(super) enum Compressor {
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// `None` where nothing is to be compressed.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub(super) fn new(compression: InsertCompression) -> io::Result<Option<Self>> {
        Ok(match compression {
            InsertCompression::None => None,
            InsertCompression::Lz4 => Some(Self::Lz4(Box::new(FrameEncoder::new(Vec::new())))),
            InsertCompression::Zstd => Some(Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?)),
        })
    }

    /// Adds a piece; what has come out by now, which may be nothing.
    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Lz4(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// The end: what is still inside.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            Self::Zstd(encoder) => encoder.finish()?,
        }
        .into())
    }
}
