//! Tests of the decoders against the encoders of the same crates: a body split at any byte, and written
//! to outputs of any size, gives the same content or the same refusal.

use ::zstd::zstd_safe::{CCtx, CParameter};

use super::encoders::{brotli, gzip, raw_deflate, zlib, zstd};
use super::*;
use crate::limits::{CODING_WINDOW_BYTES_MAX, SLICE_BYTES};

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Br];

/// A frame whose header has the length of its content, with no window of its own.
fn zstd_segment(content: &[u8]) -> Vec<u8> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::WindowLog(27)).unwrap();
    let mut out = Vec::with_capacity(::zstd::zstd_safe::compress_bound(content.len()));
    context.compress2(&mut out, content).unwrap();
    out
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    [&0x184d_2a57u32.to_le_bytes()[..], &len.to_le_bytes(), content].concat()
}

fn encode(coding: Coding, content: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => gzip(content),
        Coding::Deflate => zlib(content),
        Coding::Zstd => zstd(content, 17),
        Coding::Br => brotli(content, 22, false),
    }
}

/// Bytes that no encoder makes shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn events(count: usize) -> Vec<u8> {
    (0..count).flat_map(|event| format!("{{\"event\":\"e{event}\",\"n\":{}}}\n", event * 7919).into_bytes()).collect()
}

/// Decodes the pieces to outputs of `window` bytes.
fn decode_with(
    decoder: &mut Decoder,
    coding: Coding,
    pieces: &[&[u8]],
    window: usize,
) -> Result<Vec<u8>, CodingRefusal> {
    assert!(decoder.begin(coding));
    let mut content = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let mut output = vec![0; window];
            let step = decoder.decode(rest, &mut output)?;
            content.extend_from_slice(&output[..step.written]);
            rest = &rest[step.consumed..];
            if rest.is_empty() && step.written < window {
                break;
            }
            assert!(step.consumed + step.written > 0, "no progress with {} bytes left", rest.len());
        }
    }
    decoder.finish().map(|()| content)
}

fn decode(coding: Coding, body: &[u8]) -> Result<Vec<u8>, CodingRefusal> {
    decode_with(&mut Decoder::default(), coding, &[body], 1 << 20)
}

/// Decodes the body whole, split at every byte, byte by byte, and to small outputs: all the same.
fn decode_in_every_way(coding: Coding, body: &[u8]) -> Result<Vec<u8>, CodingRefusal> {
    let whole = decode(coding, body);
    let mut decoder = Decoder::default();
    for at in 0..=body.len() {
        let parts = decode_with(&mut decoder, coding, &[&body[..at], &body[at..]], 1 << 12);
        assert_eq!(parts, whole, "{coding:?} split at {at}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    for window in [1, 2, 7, 100] {
        assert_eq!(decode_with(&mut decoder, coding, &[body], window), whole, "{coding:?} to {window} bytes");
        assert_eq!(decode_with(&mut decoder, coding, &bytes, window), whole, "{coding:?} by bytes to {window} bytes");
    }
    whole
}

#[test]
fn every_coding_gives_the_content_back_however_the_body_is_split() {
    for coding in ALL {
        for content in [&b""[..], b"x", &events(30), &noise(700), &[0; 3000]] {
            assert_eq!(decode_in_every_way(coding, &encode(coding, content)).as_deref(), Ok(content), "{coding:?}");
        }
    }
}

#[test]
fn a_body_larger_than_every_window_is_decoded() {
    let content = events(60_000);
    for coding in ALL {
        assert_eq!(decode(coding, &encode(coding, &content)).as_deref(), Ok(&content[..]), "{coding:?}");
    }
}

#[test]
fn a_body_that_ends_early_is_truncated_at_every_byte() {
    let content = events(20);
    for coding in ALL {
        let body = encode(coding, &content);
        for len in 0..body.len() {
            assert_eq!(decode(coding, &body[..len]), Err(CodingRefusal::Truncated), "{coding:?} to {len}");
        }
    }
    // Not even an empty body is a coded one.
    assert!(ALL.iter().all(|coding| decode(*coding, b"") == Err(CodingRefusal::Truncated)));
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for coding in ALL {
        for behind in [&b"\0"[..], b"\n", b"{}", b"\x1f\x8c\x08", b"0123456789"] {
            let body = [&encode(coding, b"content")[..], behind].concat();
            let refused = decode_in_every_way(coding, &body).unwrap_err();
            // Less than the magic number of a frame may be the front of one.
            let short = coding == Coding::Zstd && behind.len() < 4;
            let expected = if short { CodingRefusal::Truncated } else { CodingRefusal::Trailed };
            assert_eq!(refused, expected, "{coding:?} {behind:?}");
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let content = events(12);
    // Brotli has no checksum.
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
        let body = encode(coding, &content);
        let mut refused = 0;
        for bit in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decode(coding, &flipped) {
                Ok(decoded) => assert_eq!(decoded, content, "{coding:?} with bit {bit} flipped"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > body.len() * 7, "{coding:?}: {refused} of {} bits", body.len() * 8);
    }
}

#[test]
fn noise_is_refused_or_decoded_alike_however_it_is_split() {
    let noise = noise(60_000);
    for coding in ALL {
        for body in noise.chunks(60) {
            let whole = decode(coding, body);
            let (front, back) = body.split_at(body.len() / 2);
            let parts = decode_with(&mut Decoder::default(), coding, &[front, back], 64);
            assert_eq!(parts.is_ok(), whole.is_ok(), "{coding:?} {body:?}");
        }
    }
}

#[test]
fn bodies_with_changed_bytes_are_refused_or_decoded_alike_however_they_are_split() {
    let content = events(40);
    let mut random = noise(200_000).into_iter().cycle();
    let mut next = |below: usize| {
        let bytes: Vec<u8> = random.by_ref().take(2).collect();
        (usize::from(bytes[0]) << 8 | usize::from(bytes[1])) % below
    };
    let mut decoder = Decoder::default();
    for coding in ALL {
        let body = encode(coding, &content);
        for _ in 0..3000 {
            let mut changed = body.clone();
            for _ in 0..=next(3) {
                let at = next(changed.len());
                match next(4) {
                    0 => changed[at] = next(256) as u8,
                    1 => changed[at] ^= 1 << next(8),
                    2 => drop(changed.drain(at..(at + next(9)).min(body.len() - 30).max(at))),
                    _ => changed.insert(at, next(256) as u8),
                }
            }
            let mut decode = |pieces: &[&[u8]], window| decode_with(&mut decoder, coding, pieces, window);
            let whole = decode(&[&changed], 1 << 16);
            let (front, back) = changed.split_at(next(changed.len()));
            let parts = decode(&[front, back], 1 + next(500));
            match (whole, parts) {
                (Ok(whole), Ok(parts)) => assert_eq!(whole, parts),
                (whole, parts) => assert_eq!(whole.is_err(), parts.is_err(), "{coding:?} {changed:?}"),
            }
        }
    }
}

#[test]
fn gzip_members_in_a_row_are_one_content_and_may_be_empty() {
    let members = [gzip(b""), gzip(b"one\n"), gzip(b""), gzip(b""), gzip(b"two\n"), gzip(b"")];
    assert_eq!(decode_in_every_way(Coding::Gzip, &members[0]).unwrap(), b"");
    assert_eq!(decode_in_every_way(Coding::Gzip, &members.concat()).unwrap(), b"one\ntwo\n");
    let broken = [&gzip(b"one\n")[..], &gzip(b"two\n")[..10], b"nothing"].concat();
    assert_eq!(decode_in_every_way(Coding::Gzip, &broken), Err(CodingRefusal::Broken));
}

#[test]
fn every_field_of_a_gzip_header_is_read() {
    let data = gzip(b"content")[10..].to_vec();
    let (extra, name, comment) = (&b"\x05\0extra"[..], &b"a name\0"[..], &b"\0"[..]);
    for flags in 0..32u8 {
        // Bit 0 says that the content is text, which changes nothing.
        let mut header = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
        for (flag, field) in [(4, extra), (8, name), (16, comment)] {
            header.extend_from_slice(if flags & flag != 0 { field } else { b"" });
        }
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        let crc = if flags & 2 != 0 { (crc.sum() as u16).to_le_bytes().to_vec() } else { Vec::new() };
        let body = [&header[..], &crc, &data].concat();
        assert_eq!(decode_in_every_way(Coding::Gzip, &body).as_deref(), Ok(&b"content"[..]), "{flags:b}");
        if flags & 2 != 0 {
            let mut wrong = body.clone();
            wrong[header.len()] ^= 1;
            assert_eq!(decode_in_every_way(Coding::Gzip, &wrong), Err(CodingRefusal::Broken), "{flags:b}");
        }
    }
    let empty_extra = [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 0, 0][..], &data].concat();
    assert_eq!(decode_in_every_way(Coding::Gzip, &empty_extra).unwrap(), b"content");
    for (at, byte) in [(0, 0x1e), (1, 0x8c), (2, 7), (3, 0x20), (3, 0x80)] {
        let mut wrong = gzip(b"content");
        wrong[at] = byte;
        assert_eq!(decode_in_every_way(Coding::Gzip, &wrong), Err(CodingRefusal::Broken), "{at}");
    }
}

#[test]
fn the_checksum_and_the_length_of_a_gzip_member_are_held_against_its_content() {
    let body = gzip(b"content");
    for at in body.len() - 8..body.len() {
        let mut wrong = body.clone();
        wrong[at] ^= 0x40;
        assert_eq!(decode_in_every_way(Coding::Gzip, &wrong), Err(CodingRefusal::Broken), "{at}");
    }
}

#[test]
fn deflate_is_taken_in_both_wrappings_from_every_level() {
    for content in [&b""[..], b"x", &events(10), &noise(400), &[0; 1000]] {
        assert_eq!(decode_in_every_way(Coding::Deflate, &zlib(content)).unwrap(), content);
        // Level 0 has stored blocks, whose first byte has padding.
        for level in [0, 1, 6, 9] {
            let body = raw_deflate(content, level);
            assert_eq!(decode_in_every_way(Coding::Deflate, &body).unwrap(), content, "{level}");
            let trailed = [&body[..], b"x"].concat();
            assert_eq!(decode_in_every_way(Coding::Deflate, &trailed), Err(CodingRefusal::Trailed));
        }
    }
    // A preset dictionary (RFC 1950, section 2.2).
    assert_eq!(decode(Coding::Deflate, &[0x78, 0xbb, 0, 0, 0, 1, 3, 0]), Err(CodingRefusal::Broken));
}

#[test]
fn zstd_frames_and_skippable_frames_in_a_row_are_one_content() {
    let frames = [
        skippable(b"what a tool says about itself"),
        zstd(b"one\n", 10),
        skippable(b""),
        zstd_segment(b""),
        zstd_segment(b"two\n"),
        skippable(b""),
    ];
    assert_eq!(decode_in_every_way(Coding::Zstd, &frames.concat()).unwrap(), b"one\ntwo\n");
    assert_eq!(decode_in_every_way(Coding::Zstd, &skippable(b"")).unwrap(), b"");
    let cut = [&frames[1][..], &skippable(b"cut")[..9]].concat();
    assert_eq!(decode_in_every_way(Coding::Zstd, &cut), Err(CodingRefusal::Truncated));
}

#[test]
fn a_zstd_frame_for_a_dictionary_is_refused() {
    let mut body = zstd(b"content", 10);
    // Descriptor, window, and an identifier of one byte.
    body[4] |= 1;
    body.insert(6, 7);
    assert_eq!(decode_in_every_way(Coding::Zstd, &body), Err(CodingRefusal::Broken));
}

#[test]
fn zstd_windows_up_to_8_mib_are_taken_whatever_the_frame_says_of_its_length() {
    assert_eq!(CODING_WINDOW_BYTES_MAX, 1 << 23);
    let content = events(2000);
    assert_eq!(decode(Coding::Zstd, &zstd(&content, 23)).unwrap(), content);
    for log in [24, 27] {
        assert_eq!(decode(Coding::Zstd, &zstd(&content, log)), Err(CodingRefusal::WindowTooLarge));
    }
    // A single segment has its length as the window; the library would decode it in one go into an output
    // that holds it, without a look at the window.
    let longest = vec![7; CODING_WINDOW_BYTES_MAX];
    let too_long = vec![7; CODING_WINDOW_BYTES_MAX + 1];
    for (content, expected) in [(&longest, Ok(())), (&too_long, Err(CodingRefusal::WindowTooLarge))] {
        let body = zstd_segment(content);
        for window in [1 << 12, 1 << 20, 16 << 20] {
            let decoded = decode_with(&mut Decoder::default(), Coding::Zstd, &[&body], window);
            assert_eq!(decoded.map(|decoded| assert!(decoded == *content)), expected);
        }
    }
}

#[test]
fn brotli_windows_up_to_8_mib_are_taken() {
    let content = events(2000);
    for bits in 10..=23 {
        assert_eq!(decode(Coding::Br, &brotli(&content, bits, false)).unwrap(), content, "{bits}");
    }
    // The encoder takes a smaller window where the content needs none that large, so the first byte is
    // made by hand: 24 bits.
    assert_eq!(decode_in_every_way(Coding::Br, b"\x0f\x03"), Err(CodingRefusal::WindowTooLarge));
    assert_eq!(decode(Coding::Br, &brotli(&noise(9 << 20), 24, false)), Err(CodingRefusal::WindowTooLarge));
    assert_eq!(decode(Coding::Br, &brotli(&content, 26, true)), Err(CodingRefusal::WindowTooLarge));
}

#[test]
fn a_decoder_begins_again_after_any_body() {
    let mut decoder = Decoder::default();
    let content = events(30);
    for round in 0..3 {
        for coding in ALL {
            let body = encode(coding, &content);
            let broken = [&body[..body.len() / 2], b"\xff\xff\xff\xff\xff\xff\xff\xff"].concat();
            for cut in [&body[..0], &body[..5], &body[..body.len() / 2], &broken] {
                assert!(decode_with(&mut decoder, coding, &[cut], 100).is_err(), "{coding:?} {round}");
                assert_eq!(decode_with(&mut decoder, coding, &[&body], 1000).unwrap(), content, "{coding:?}");
            }
        }
        if round == 1 {
            decoder.rest();
        }
    }
    assert_eq!(Decoder::default().finish(), Err(CodingRefusal::Truncated));
}

/// Decodes as a worker does, with `work` a call; also the most memory that the buffer had.
fn advance(
    decoder: &mut ContentDecoder,
    coding: Coding,
    body: &[u8],
    max: u64,
    work: usize,
) -> (Result<Vec<u8>, CodingRefusal>, usize) {
    assert!(decoder.begin(coding, max));
    loop {
        match decoder.advance(body, work) {
            Ok(Advanced::Done) => return (Ok(decoder.content().to_vec()), decoder.memory()),
            Ok(Advanced::More) => {}
            Ok(Advanced::Full) => {
                let foreseen = decoder.grown_capacity();
                decoder.grow();
                assert_eq!(decoder.memory(), foreseen);
            }
            Err(refusal) => return (Err(refusal), decoder.memory()),
        }
    }
}

#[test]
fn content_is_bounded_to_the_byte_whatever_the_coding() {
    let mut decoder = ContentDecoder::default();
    for len in [0, 1, 1000, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES] {
        let content: Vec<u8> = events(50_000)[..len].to_vec();
        for coding in ALL {
            let body = encode(coding, &content);
            for work in [5000, SLICE_BYTES, usize::MAX] {
                let mut decode = |max: u64| advance(&mut decoder, coding, &body, max, work).0;
                assert_eq!(decode(len as u64).as_deref(), Ok(&content[..]), "{coding:?} {len} {work}");
                assert!(decode(u64::MAX).is_ok());
                if len > 0 {
                    assert_eq!(decode(len as u64 - 1), Err(CodingRefusal::TooLarge), "{coding:?} {len} {work}");
                }
            }
            decoder.rest();
            assert!(decoder.memory() <= SLICE_BYTES);
        }
    }
}

#[test]
fn a_step_decodes_no_more_than_it_may_however_much_a_few_bytes_become() {
    const WORK: usize = 10_000;
    let content = vec![0; SLICE_BYTES];
    for coding in ALL {
        let body = encode(coding, &content);
        let mut decoder = ContentDecoder::default();
        assert!(decoder.begin(coding, 1 << 20));
        let mut steps = 1;
        while decoder.advance(&body, WORK) == Ok(Advanced::More) {
            assert!(
                decoder.content().len() <= steps * WORK,
                "{coding:?}: {} in {steps} steps",
                decoder.content().len()
            );
            steps += 1;
        }
        assert!(steps >= SLICE_BYTES / WORK, "{coding:?}: {steps} steps");
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_content_that_is_allowed() {
    const MAX: u64 = 1 << 20;
    let zeros = vec![0; 64 << 20];
    for coding in ALL {
        let body = encode(coding, &zeros);
        assert!(body.len() < zeros.len() / 500, "{coding:?}: {} bytes", body.len());
        let mut decoder = ContentDecoder::default();
        let (refused, memory) = advance(&mut decoder, coding, &body, MAX, SLICE_BYTES);
        assert_eq!(refused, Err(CodingRefusal::TooLarge), "{coding:?}");
        assert!(memory <= MAX as usize + 2 * SLICE_BYTES, "{coding:?}: {memory} bytes");
    }
}

#[test]
fn a_body_without_content_ends_after_as_many_calls_as_it_has_bytes() {
    let empty = [gzip(b"").repeat(20_000), skippable(b"").repeat(20_000)];
    for (coding, body) in [Coding::Gzip, Coding::Zstd].into_iter().zip(empty) {
        let mut decoder = ContentDecoder::default();
        assert!(decoder.begin(coding, 1 << 20));
        let mut calls = 0;
        while decoder.advance(&body, SLICE_BYTES) != Ok(Advanced::Done) {
            calls += 1;
        }
        // Each member and frame counts for more than its bytes.
        assert!(calls > 15, "{coding:?}: {calls}");
        assert_eq!(decoder.content(), b"");
    }
}
