//! Chunked bodies: cut in two anywhere, they give the same content and the same end as whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::http::{ChunkDecoder, HttpRefusal};

/// The content, and how many bytes the body took; `None` while it is not complete.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), HttpRefusal> {
    let (mut decoder, mut content, mut consumed) = (ChunkDecoder::default(), Vec::new(), 0);
    for piece in pieces {
        let mut raw = piece.to_vec();
        let decoded = decoder.decode(&mut raw)?;
        assert!(decoded.written <= decoded.consumed && decoded.consumed <= raw.len());
        assert!(decoder.announced() >= (content.len() + decoded.written) as u64);
        content.extend_from_slice(&raw[..decoded.written]);
        consumed += decoded.consumed;
        if decoded.done {
            assert_eq!(&raw[decoded.consumed..], &piece[decoded.consumed..], "what follows is not touched");
            return Ok((content, Some(consumed)));
        }
        assert_eq!(decoded.consumed, raw.len());
    }
    Ok((content, None))
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = decode(&[bytes]);
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    match (whole, decode(&[front, back])) {
        (Ok(whole), Ok(parts)) => assert_eq!(whole, parts),
        (whole, parts) => assert_eq!(whole.is_err(), parts.is_err()),
    }
});
