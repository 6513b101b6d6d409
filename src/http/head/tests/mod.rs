//! Parsing of heads: the values of fields one by one, and properties of all heads.

use super::*;
use crate::http::Coding;

mod fields;
mod properties;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 16 << 10, headers_max: 100 };

/// A copy of a [`Head`] that borrows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedHead {
    method: Method,
    target: String,
    version: Version,
    keep_alive: bool,
    framing: Framing,
    expect_continue: bool,
    content_coding: ContentCoding,
    len: usize,
}

fn parse_within(input: &[u8], limits: &HeadLimits) -> Parsed<OwnedHead> {
    let mut slots = NO_HEADERS;
    match parse_head(input, limits, &mut slots) {
        Parsed::Done(head) => Parsed::Done(OwnedHead {
            method: head.method,
            target: head.target.to_owned(),
            version: head.version,
            keep_alive: head.keep_alive,
            framing: head.framing,
            expect_continue: head.expect_continue,
            content_coding: head.content_coding,
            len: head.len,
        }),
        Parsed::NeedMore => Parsed::NeedMore,
        Parsed::Refused(refusal) => Parsed::Refused(refusal),
    }
}

fn parse(input: impl AsRef<[u8]>) -> Parsed<OwnedHead> {
    parse_within(input.as_ref(), &LIMITS)
}

fn done(input: impl AsRef<[u8]>) -> OwnedHead {
    match parse(&input) {
        Parsed::Done(facts) => facts,
        other => panic!("{other:?}: {}", input.as_ref().escape_ascii()),
    }
}

/// The head of an HTTP/1.1 POST with these lines after its `Host`.
fn post(lines: &str) -> String {
    format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// Valid heads that differ in method, version, target and fields.
fn good_heads() -> Vec<String> {
    let mut heads: Vec<String> = [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nPOST /x?y HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost:a\r\n\r\n",
        "PUT http://h:1/p?q HTTP/1.1\r\nHOST:\t a \t\r\n\r\n",
        "DELETE /~%41 HTTP/1.1\r\nHost: a\r\nX:\r\nY: \u{e9}\r\nConnection: close\r\n\r\n",
    ]
    .map(str::to_owned)
    .to_vec();
    heads.extend(
        [
            "Content-Length: 6700\r\nContent-Type: application/x-ndjson\r\nAccept: */*\r\n\
             User-Agent: t/1.0 (x; y)\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n",
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\n",
        ]
        .map(post),
    );
    heads
}

#[test]
fn a_usual_request_is_parsed() {
    let input = post("Content-Length: 5\r\nContent-Encoding: zstd\r\nX-Write-Key: k\r\n") + "12345";
    let mut slots = NO_HEADERS;
    let Parsed::Done(head) = parse_head(input.as_bytes(), &LIMITS, &mut slots) else {
        panic!("not done");
    };
    assert_eq!(head.method, Method::Post);
    assert_eq!((head.target, head.path, head.query), ("/api/events", "/api/events", ""));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::Length(5));
    assert_eq!(head.content_coding, ContentCoding::Coded(Coding::Zstd));
    assert!(head.keep_alive && !head.expect_continue);
    assert_eq!(head.header("x-write-key"), Some(&b"k"[..]));
    assert_eq!(head.header("x-write-ke"), None);
    assert_eq!(&input.as_bytes()[head.len..], b"12345");
}

#[test]
fn repeated_fields_keep_their_order() {
    let input = post("X-Forwarded-For: 1\r\nother: x\r\nx-forwarded-for:2\r\n");
    let mut slots = NO_HEADERS;
    let Parsed::Done(head) = parse_head(input.as_bytes(), &LIMITS, &mut slots) else {
        panic!("not done");
    };
    let values: Vec<_> = head.header_lines("X-FORWARDED-FOR").collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[test]
fn every_prefix_of_a_good_head_needs_more() {
    for head in good_heads() {
        for end in 0..head.len() {
            let prefix = &head.as_bytes()[..end];
            assert_eq!(parse(prefix), Parsed::NeedMore, "{}", prefix.escape_ascii());
        }
        assert_eq!(done(&head).len, head.len(), "{head}");
        assert_eq!(done(head.clone() + "GET / HT"), done(&head));
    }
}

#[test]
fn one_blank_line_before_the_head_is_ignored() {
    assert_eq!(done("\r\nGET / HTTP/1.0\r\n\r\n").len, 20);
    for input in ["\r\n\r\nGET / HTTP/1.0\r\n\r\n", "\nGET / HTTP/1.0\r\n\r\n", "\r\n\n", "\r\n\r", "\n"] {
        assert_eq!(parse(input), Parsed::Refused(HttpRefusal::BadRequestLine), "{input:?}");
    }
}

#[test]
fn a_malformed_request_line_is_refused() {
    use HttpRefusal::*;
    let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let cases: &[(&[u8], HttpRefusal)] = &[
        (tls, BadRequestLine),
        (b"\x00", BadRequestLine),
        (b" GET / HTTP/1.1\r\n", BadRequestLine),
        (b"G(T / HTTP/1.1\r\n", BadRequestLine),
        (b"GET\r\n", BadRequestLine),
        (b"GET /\r\n", BadTarget),
        (b"GET  / HTTP/1.1\r\n", BadTarget),
        (b"GET\t/ HTTP/1.1\r\n", BadRequestLine),
        (b"GET /\x01 HTTP/1.1\r\n", BadTarget),
        (b"GET /\x7f HTTP/1.1\r\n", BadTarget),
        (b"GET /0123456789abcdef0123456789abcdef\x7f0123456789abcdef0123456789abcdef HTTP/1.1\r\n", BadTarget),
        (b"GET /\xff HTTP/1.1\r\n", BadTarget),
        (b"GET / HTTP/1.1\rX", BadLineEnd),
        (b"GET / HTTP/1.1 \r\n", BadLineEnd),
        (b"GET / HTTP/1.1\n", BadLineEnd),
        (b"GET /  HTTP/1.1\r\n", BadRequestLine),
        (b"GET /a b HTTP/1.1\r\n", BadRequestLine),
        (b"GET / http/1.1\r\n", BadRequestLine),
        (b"GET / HTTPS/1.1\r\n", BadRequestLine),
        (b"GET / HTTP/x.1\r\n", BadRequestLine),
        (b"GET / HTTP/11\r\n", BadRequestLine),
        (b"GET / HTTP/2\r\n", BadRequestLine),
        (b"GET / HTTP/0.9", UnsupportedVersion),
        (b"GET / HTTP/1.2\r\n", UnsupportedVersion),
        (b"GET / HTTP/2.0\r\n\r\n", UnsupportedVersion),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion),
        (b"GET /caf\xc3\xa9 HTTP/1.0\r\n\r\n", BadTarget),
        (b"GET * HTTP/1.0\r\n\r\n", BadTarget),
        (b"GET api HTTP/1.0\r\n\r\n", BadTarget),
        (b"GET h:80 HTTP/1.0\r\n\r\n", BadTarget),
        (b"GET http://u@h/ HTTP/1.0\r\n\r\n", BadTarget),
        (b"CONNECT h:80 HTTP/1.0\r\n\r\n", UnknownMethod),
        (b"BREW / HTTP/1.0\r\n\r\n", UnknownMethod),
        (b"get / HTTP/1.0\r\n\r\n", UnknownMethod),
    ];
    for &(input, refusal) in cases {
        assert_eq!(parse(input), Parsed::Refused(refusal), "{}", input.escape_ascii());
    }
    for start in ["GET / H", "GET / HTTP/", "GET / HTTP/2", "GET / HTTP/2.", "GET"] {
        assert_eq!(parse(start), Parsed::NeedMore, "{start}");
    }
}

#[test]
fn every_method_is_recognized() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
    ] {
        assert_eq!(done(format!("{name} / HTTP/1.0\r\n\r\n")).method, method);
    }
}

#[test]
fn every_line_ends_in_cr_lf() {
    for head in good_heads() {
        for (at, _) in head.match_indices("\r\n") {
            let bare = format!("{}{}", &head[..at], &head[at + 1..]);
            assert!(matches!(parse(&bare), Parsed::Refused(_)), "{bare:?}");
            // The head is refused as soon as the bare LF has arrived.
            assert!(matches!(parse(&bare[..=at]), Parsed::Refused(_)), "{:?}", &bare[..=at]);
        }
    }
    assert_eq!(parse(post("A: b\n")), Parsed::Refused(HttpRefusal::BadLineEnd));
    assert_eq!(parse(post("A:\nB: c\r\n")), Parsed::Refused(HttpRefusal::BadLineEnd));
}

#[test]
fn a_malformed_header_line_is_refused() {
    for line in [
        "A : b",
        "A\t: b",
        " A: b",
        "A: b\r\n folded",
        "A: b\r\n\tfolded",
        "A",
        ": b",
        "A(: b",
        "A: b\rc",
        "A: \0",
        "A: \x7f",
        "A: \x08",
        "\u{e9}: b",
        "A: b\r\r",
    ] {
        assert_eq!(parse(post(&format!("{line}\r\n"))), Parsed::Refused(HttpRefusal::BadHeader), "{line:?}");
    }
}

#[test]
fn a_head_may_be_exactly_as_large_as_allowed() {
    for head in good_heads() {
        let limits = |head_bytes_max| HeadLimits { head_bytes_max, ..LIMITS };
        let input = head.as_bytes();
        assert!(matches!(parse_within(input, &limits(input.len())), Parsed::Done(_)), "{head}");
        let line_end = head.trim_start().find('\n').unwrap() + head.len() - head.trim_start().len();
        for max in 0..input.len() {
            // The refusal comes with the last byte that the limit allows, and not before.
            assert_eq!(parse_within(&input[..max], &limits(max + 1)), Parsed::NeedMore, "{max} {head}");
            let refusal = match &input[..max] {
                start if max > line_end => (start, HttpRefusal::HeadTooLarge),
                start if start.contains(&b' ') => (start, HttpRefusal::TargetTooLong),
                start => (start, HttpRefusal::UnknownMethod),
            };
            for input in [refusal.0, input] {
                assert_eq!(parse_within(input, &limits(max)), Parsed::Refused(refusal.1), "{max} {head}");
            }
        }
    }
}

/// Found by the fuzz target of a connection: it was read on and on.
#[test]
fn a_head_that_is_cut_off_inside_of_a_wrong_version_is_too_long() {
    let input = b"GET /path HTTP/0.1\r\nHost: a\r\n\r\n";
    for max in "GET /path ".len() + 1..input.len() {
        let limits = HeadLimits { head_bytes_max: max, ..LIMITS };
        for len in max..input.len() {
            let parsed = parse_within(&input[..len], &limits);
            assert!(matches!(parsed, Parsed::Refused(_)), "{len} bytes of at most {max}: {parsed:?}");
        }
    }
}

#[test]
fn a_head_may_have_exactly_as_many_fields_as_allowed() {
    for headers_max in [1, 2, 100, limits::HEADERS_MAX, limits::HEADERS_MAX + 5] {
        let limits = HeadLimits { headers_max, ..LIMITS };
        let fits = headers_max.min(limits::HEADERS_MAX);
        let lines = "a: b\r\n".repeat(fits - 1);
        assert!(matches!(parse_within(post(&lines).as_bytes(), &limits), Parsed::Done(_)));
        // The head is refused at the end of the first line too many.
        let more = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}c: d\r\n");
        assert_eq!(parse_within(more.as_bytes(), &limits), Parsed::Refused(HttpRefusal::TooManyHeaders));
    }
    let none = HeadLimits { headers_max: 0, ..LIMITS };
    assert!(matches!(parse_within(b"GET / HTTP/1.0\r\n\r\n", &none), Parsed::Done(_)));
    assert!(matches!(
        parse_head(b"GET / HTTP/1.0\r\na: b\r\n\r\n", &LIMITS, &mut []),
        Parsed::Refused(HttpRefusal::TooManyHeaders)
    ));
}

#[test]
fn it_is_worth_parsing_when_a_line_has_ended_or_the_limit_is_reached() {
    let limits = HeadLimits { head_bytes_max: 20, ..LIMITS };
    assert!(is_worth_parsing(b"", 0, &limits));
    assert!(is_worth_parsing(b"GET", 0, &limits));
    assert!(!is_worth_parsing(b"GET /", 3, &limits));
    assert!(!is_worth_parsing(b"GET / HTTP/1.1\r", 5, &limits));
    assert!(is_worth_parsing(b"GET / HTTP/1.1\r\n", 15, &limits));
    assert!(!is_worth_parsing(b"GET / HTTP/1.1\r\nA", 16, &limits));
    assert!(!is_worth_parsing(b"GET /56789012345678", 10, &limits));
    assert!(is_worth_parsing(b"GET /567890123456789", 19, &limits));
}

#[test]
fn pipelined_requests_are_parsed_from_one_buffer() {
    let first = post("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let second = post("Content-Length: 2\r\nX: y\r\n") + "fg";
    let mut buffer = (first + &second + "GET ").into_bytes();
    let mut rest = buffer.as_mut_slice();
    let mut bodies = Vec::new();
    loop {
        let mut slots = NO_HEADERS;
        let (len, framing) = match parse_head(rest, &LIMITS, &mut slots) {
            Parsed::Done(head) => (head.len, head.framing),
            Parsed::NeedMore => break,
            Parsed::Refused(refusal) => panic!("{refusal:?}"),
        };
        let (_, body) = rest.split_at_mut(len);
        let (consumed, written) = match framing {
            Framing::Length(length) => (length as usize, length as usize),
            Framing::Chunked => {
                let decoded = crate::http::ChunkDecoder::default().decode(body).unwrap();
                assert!(decoded.done);
                (decoded.consumed, decoded.written)
            }
        };
        bodies.push(body[..written].to_vec());
        rest = &mut body[consumed..];
    }
    assert_eq!(bodies, [&b"abcde"[..], b"fg"]);
    assert_eq!(rest, b"GET ");
}
