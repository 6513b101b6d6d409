//! Coded bodies for tests, those of this crate and those under `tests/`.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn raw_deflate(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A frame with a checksum and of unknown length, so that it has a window.
pub(crate) fn zstd(content: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn brotli(content: &[u8], window_bits: i32, large_window: bool) -> Vec<u8> {
    let parameters =
        ::brotli::enc::BrotliEncoderParams { quality: 5, lgwin: window_bits, large_window, ..Default::default() };
    let mut out = Vec::new();
    ::brotli::BrotliCompress(&mut &content[..], &mut out, &parameters).unwrap();
    out
}
