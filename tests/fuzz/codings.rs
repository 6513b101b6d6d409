//! Coded bodies: whatever arrives in whatever pieces, and to whatever space, gives the same content or is
//! refused as well; what the worker decodes in steps is the same; and nothing is longer than it may be.
//!
//! The first bytes of the input say the coding, the cut, the space and the longest content. Half of the
//! inputs are compressed first, as nothing else makes long and valid bodies.

#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use sluicegate::http::Coding;
use sluicegate::http::coding::{Advanced, CodingRefusal, ContentDecoder, Decoder};

fn decode(coding: Coding, pieces: &[&[u8]], space: usize) -> Result<Vec<u8>, CodingRefusal> {
    let (mut decoder, mut content) = (Decoder::default(), Vec::new());
    assert!(decoder.begin(coding));
    let mut output = vec![0; space];
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let step = decoder.decode(rest, &mut output)?;
            assert!(step.consumed <= rest.len() && step.written <= space);
            content.extend_from_slice(&output[..step.written]);
            rest = &rest[step.consumed..];
            if content.len() > CONTENT_MAX {
                return Err(CodingRefusal::TooLarge);
            }
            if rest.is_empty() && step.written < space {
                break;
            }
            assert!(step.consumed + step.written > 0, "{coding:?} stops with input and space left");
        }
    }
    decoder.finish().map(|()| content)
}

/// More than any bomb of the input's length may make here.
const CONTENT_MAX: usize = 1 << 22;

/// As a worker does.
fn advance(coding: Coding, body: &[u8], max: u64, work: usize) -> Result<Vec<u8>, CodingRefusal> {
    let mut decoder = ContentDecoder::default();
    assert!(decoder.begin(coding, max));
    loop {
        match decoder.advance(body, work)? {
            Advanced::Done => return Ok(decoder.content().to_vec()),
            Advanced::More => assert!(decoder.content().len() as u64 <= max),
            Advanced::Full => decoder.grow(),
        }
    }
}

fn compress(coding: Coding, level: u8, content: &[u8]) -> Option<Vec<u8>> {
    let level = flate2::Compression::new(u32::from(level % 10));
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(content).ok()?;
            encoder.finish().ok()
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(content).ok()?;
            encoder.finish().ok()
        }
        Coding::Zstd => zstd::bulk::compress(content, level.level() as i32).ok(),
        Coding::Br => None,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((front, bytes)) = input.split_first_chunk::<8>() else { return };
    let [coding, level, cut_low, cut_high, space_low, space_high, max_low, max_high] = *front;
    let cut = u16::from_le_bytes([cut_low, cut_high]);
    let space = u16::from_le_bytes([space_low, space_high]);
    let max = u16::from_le_bytes([max_low, max_high]);
    let is_content = coding & 4 != 0;
    let coding = [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Br][usize::from(coding % 4)];
    let compressed = compress(coding, level, bytes).filter(|_| is_content);
    let body = compressed.as_deref().unwrap_or(bytes);
    let whole = decode(coding, &[body], 1 << 16);
    if compressed.is_some() {
        assert!(whole.as_deref() == Ok(bytes), "{coding:?} gives its content back");
    }
    let (front, back) = body.split_at(usize::from(cut).min(body.len()));
    match (&whole, decode(coding, &[front, back], usize::from(space) + 1)) {
        (Ok(whole), Ok(parts)) => assert!(*whole == parts, "{coding:?}"),
        (whole, parts) => assert_eq!(whole.is_err(), parts.is_err(), "{coding:?}"),
    }
    match advance(coding, body, u64::from(max), usize::from(cut) + 1) {
        Ok(content) => assert!(whole.is_ok_and(|whole| whole == content) && content.len() <= usize::from(max)),
        // What is too large is refused before what is wrong behind it.
        Err(CodingRefusal::TooLarge) => assert!(whole.map_or(true, |whole| whole.len() > usize::from(max))),
        Err(_) => assert!(whole.is_err(), "{coding:?}"),
    }
});
