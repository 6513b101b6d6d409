//! Decoding of bodies held against a naive twin: whole, cut anywhere, malformed.

use super::*;
use proptest::prelude::*;

/// The result of decoding a whole input.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done { body: Vec<u8>, consumed: usize },
    NeedMore { body: Vec<u8> },
    Refused(HttpRefusal),
}

/// Decodes `input` in pieces that end at `cuts`.
fn decode(input: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = ChunkDecoder::default();
    let mut body = Vec::new();
    let mut consumed = 0;
    let mut announced = 0;
    let mut start = 0;
    for &end in cuts.iter().chain([&input.len()]) {
        let mut raw = input[start..end].to_vec();
        let decoded = match decoder.decode(&mut raw) {
            Ok(decoded) => decoded,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        body.extend_from_slice(&raw[..decoded.written]);
        consumed += decoded.consumed;
        assert!(decoder.announced() >= announced && decoder.announced() >= body.len() as u64);
        announced = decoder.announced();
        assert_eq!(raw[decoded.consumed..], input[start + decoded.consumed..end]);
        if decoded.done {
            assert_eq!(decoder.announced(), body.len() as u64);
            let nothing = Decoded { consumed: 0, written: 0, done: true };
            assert_eq!(decoder.decode(&mut raw), Ok(nothing));
            return Outcome::Done { body, consumed };
        }
        assert_eq!(decoded.consumed, raw.len());
        start = end;
    }
    Outcome::NeedMore { body }
}

/// The naive twin, which splits a whole input into lines. It has no limits, and returns `None` for
/// invalid and incomplete bodies alike.
fn naive(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    fn line(rest: &[u8]) -> Option<(&[u8], &[u8])> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&rest[..end], &rest[end + 2..]))
    }
    fn is_plain(text: &[u8]) -> bool {
        text.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
    }
    fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let len = text.iter().take_while(|byte| is_token(byte)).count();
        (len > 0).then(|| text.split_at(len))
    }
    fn trim(text: &[u8]) -> &[u8] {
        &text[text.iter().take_while(|byte| b" \t".contains(byte)).count()..]
    }
    /// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`
    fn are_extensions(mut text: &[u8]) -> Option<()> {
        while !text.is_empty() {
            text = trim(text).strip_prefix(b";")?;
            text = token(trim(text))?.1;
            let Some(value) = trim(text).strip_prefix(b"=").map(trim) else { continue };
            text = match value.strip_prefix(b"\"") {
                None => token(value)?.1,
                Some(mut quoted) => loop {
                    quoted = match quoted {
                        [b'"', behind @ ..] => break behind,
                        [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
                        [] => return None,
                    };
                },
            };
        }
        Some(())
    }
    let mut body = Vec::new();
    let mut rest = input;
    loop {
        let (size_line, behind) = line(rest)?;
        let (digits, extensions) = size_line.split_at(size_line.iter().take_while(|b| b.is_ascii_hexdigit()).count());
        let digits = str::from_utf8(digits).ok()?;
        are_extensions(extensions)?;
        if digits.len() > 16 || !is_plain(size_line) {
            return None;
        }
        let size = usize::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
        rest = behind;
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, behind) = line(rest)?;
        rest = behind;
        if trailer.is_empty() {
            return Some((body, input.len() - rest.len()));
        }
        let colon = trailer.iter().position(|&byte| byte == b':')?;
        let (name, value) = trailer.split_at(colon);
        let odd = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || name.iter().any(odd) || !is_plain(value) {
            return None;
        }
    }
}

fn assert_agrees_with_naive(input: &[u8]) {
    match (decode(input, &[]), naive(input)) {
        (Outcome::Done { body, consumed }, Some(expected)) => {
            assert_eq!((body, consumed), expected);
        }
        (Outcome::NeedMore { .. } | Outcome::Refused(_), None) => {}
        (outcome, expected) => panic!("{outcome:?} {expected:?} {}", input.escape_ascii()),
    }
}

fn assert_cuts_change_nothing(input: &[u8]) {
    let whole = decode(input, &[]);
    let everywhere: Vec<usize> = (0..=input.len()).collect();
    assert_eq!(decode(input, &everywhere), whole);
    for cut in 0..=input.len() {
        assert_eq!(decode(input, &[cut]), whole, "{cut} {}", input.escape_ascii());
    }
}

const GOOD: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", b"hello!"),
    (b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    (b"A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n0\r\n\r\n"),
    (b"0000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3;a=b;c=\"d e\"\r\nabc\r\n0;x\r\n\r\n", b"abc"),
    (b"3 \t ; a = b\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3;a=\"\\\"\xff;\\\\\"; b\t=\tc;d ;e\r\nabc\r\n0;a=\"\"\r\n\r\n", b"abc"),
    (b"3\r\nabc\r\n0\r\nX: y\r\nChecksum:\r\nZ:\t\xff \r\n\r\n", b"abc"),
];

#[test]
fn a_body_split_at_any_byte_decodes_the_same() {
    for &(input, expected) in GOOD {
        let next = [input, b"GET / HTTP/1.1\r\n"].concat();
        let outcome = Outcome::Done { body: expected.to_vec(), consumed: input.len() };
        assert_eq!(decode(&next, &[]), outcome, "{}", input.escape_ascii());
        assert_cuts_change_nothing(&next);
        for end in 0..input.len() {
            assert!(matches!(decode(&input[..end], &[]), Outcome::NeedMore { .. }), "{}", input[..end].escape_ascii());
            assert_agrees_with_naive(&input[..end]);
        }
        assert_agrees_with_naive(&next);
    }
}

#[test]
fn a_malformed_body_is_refused() {
    let cases: &[&[u8]] = &[
        b"\r\n",
        b";x\r\n",
        b"1;\r\n",
        b"1;;a\r\n",
        b"1;=a\r\n",
        b"1;a=\r\n",
        b"1;a=;b\r\n",
        b"1;a b\r\n",
        b"1;a \r\n",
        b"1;a=b \r\n",
        b"1;a=b c\r\n",
        b"1;a=b\"\r\n",
        b"1;a=\"b\r\n",
        b"1;a=\"b\"c\r\n",
        b"1;a=\"b\\\r\n",
        b"1;a==b\r\n",
        b"1;\xff\r\n",
        b"1;a(b)\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"5 5\r\n",
        b"\n",
        b"+5\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"g\r\n",
        b"5\n",
        b"5\r5",
        b"5\rh",
        b"5,\r\n",
        b"00000000000000005\r\n",
        b"fffffffffffffffff\r\n",
        b"5;a\n",
        b"5;a\x00",
        b"5;\x7f",
        b"5;\x0b",
        b"5;a\rb",
        b"5\r\nhelloX",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello\rX",
        b"5\r\nhello\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\n X: y\r\n",
        b"0\r\n: y\r\n",
        b"0\r\nX y\r\n",
        b"0\r\nX : y\r\n",
        b"0\r\nX\r\n",
        b"0\r\nX: y\n",
        b"0\r\nX: \x00",
        b"0\r\nX: y\rZ",
    ];
    for &input in cases {
        assert_eq!(decode(input, &[]), Outcome::Refused(HttpRefusal::BadChunk), "{}", input.escape_ascii());
        assert_cuts_change_nothing(input);
        assert_agrees_with_naive(input);
    }
}

#[test]
fn extensions_and_trailers_are_limited() {
    let with_extension = |bytes: usize| format!("1;{}\r\na\r\n", "x".repeat(bytes - 1));
    let fits = with_extension(CHUNK_EXTENSION_BYTES_MAX);
    assert!(matches!(decode(fits.as_bytes(), &[]), Outcome::NeedMore { .. }));
    let long = with_extension(CHUNK_EXTENSION_BYTES_MAX + 1);
    assert_eq!(decode(long.as_bytes(), &[]), Outcome::Refused(HttpRefusal::BadChunk));
    let spaces = format!("1{}", " ".repeat(CHUNK_EXTENSION_BYTES_MAX + 1));
    assert_eq!(decode(spaces.as_bytes(), &[]), Outcome::Refused(HttpRefusal::BadChunk));

    let many = fits.repeat(CHUNK_EXTENSIONS_BYTES_MAX / CHUNK_EXTENSION_BYTES_MAX);
    assert!(matches!(decode(many.as_bytes(), &[]), Outcome::NeedMore { .. }));
    let plain = many.clone() + "1\r\na\r\n0\r\n\r\n";
    assert!(matches!(decode(plain.as_bytes(), &[]), Outcome::Done { .. }));
    assert_eq!(decode((many + "1;").as_bytes(), &[]), Outcome::Refused(HttpRefusal::BadChunk));

    let trailer = format!("0\r\nX:{}\r\n", "y".repeat(TRAILER_BYTES_MAX - 4));
    assert!(matches!(decode((trailer.clone() + "\r\n").as_bytes(), &[]), Outcome::Done { .. }));
    assert_eq!(decode((trailer + "Y").as_bytes(), &[]), Outcome::Refused(HttpRefusal::TrailersTooLarge));
    let tiny = "0\r\n".to_owned() + &"X:\r\n".repeat(TRAILER_BYTES_MAX / 4 + 1);
    assert_eq!(decode(tiny.as_bytes(), &[]), Outcome::Refused(HttpRefusal::TrailersTooLarge));
}

#[test]
fn a_body_of_one_byte_chunks_is_decoded() {
    let input = "1\r\nx\r\n".repeat(10_000) + "0\r\n\r\n";
    let outcome = Outcome::Done { body: vec![b'x'; 10_000], consumed: input.len() };
    assert_eq!(decode(input.as_bytes(), &[]), outcome);
}

#[test]
fn a_size_is_announced_before_its_content() {
    let mut decoder = ChunkDecoder::default();
    decoder.decode(&mut b"3\r\nabc\r\nf".to_vec()).unwrap();
    assert_eq!(decoder.announced(), 3 + 0xf);
    decoder.decode(&mut b"f\r\nxy".to_vec()).unwrap();
    assert_eq!(decoder.announced(), 3 + 0xff);
    let mut decoder = ChunkDecoder::default();
    decoder.decode(&mut b"1\r\na\r\nFfffFfffFfffFfff\r\nabc".to_vec()).unwrap();
    assert_eq!(decoder.announced(), u64::MAX);
}

/// Fragments of chunked bodies.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"0\r\n",
        b"1\r\n",
        b"2\r\n",
        b"\r\n",
        b"\r\n",
        b"a",
        b"ab",
        b"1;x\r\n",
        b"0\r\n\r\n",
        b"1\r\na\r\n",
        b"2\r\nab\r\n",
        b"0;y\r\n",
        b"X: y\r\n",
        b"\r",
        b"\n",
        b";",
        b" ",
        b"\t",
        b":",
        b"F",
        b"a\r\na23456789a\r\n",
        b"\0",
        b"\xff",
        b"+",
    ];
    proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_chunks_are_decoded(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        next in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut input = Vec::new();
        for chunk in &chunks {
            input.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            input.extend_from_slice(chunk);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\n");
        let consumed = input.len();
        input.extend_from_slice(&next);
        prop_assert_eq!(decode(&input, &[]), Outcome::Done { body: chunks.concat(), consumed });
        assert_cuts_change_nothing(&input);
    }

    #[test]
    fn random_fragments_decode_as_the_twin_says(pieces in proptest::collection::vec(piece(), 0..12)) {
        let input = pieces.concat();
        assert_agrees_with_naive(&input);
        assert_cuts_change_nothing(&input);
    }

    #[test]
    fn random_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..64)) {
        assert_agrees_with_naive(&input);
        assert_cuts_change_nothing(&input);
    }
}
