//! Properties of the head parser that hold for any input.

use super::*;
use proptest::prelude::*;

/// Fragments of valid and invalid heads.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"GET ",
        b"POST ",
        b"OPTIONS ",
        b"/",
        b"/a?b ",
        b"* ",
        b"http://h/ ",
        b"HTTP/1.1\r\n",
        b"HTTP/1.0\r\n",
        b"HTTP/2.0\r\n",
        b"Host: a\r\n",
        b"Host:",
        b"Content-Length: 5\r\n",
        b"Content-Length:",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X: y\r\n",
        b"X:",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b"a",
        b"\0",
        b"\xff",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST /api/events HTTP/1.1\r\nHost: a\r\n",
    ];
    prop_oneof![
        9 => proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ]
}

fn assert_properties(input: &[u8]) {
    let limits = HeadLimits { head_bytes_max: 200, headers_max: 3 };
    let mut before = Parsed::NeedMore;
    let mut seen = 0;
    for end in 0..=input.len() {
        let prefix = &input[..end];
        let parsed = parse_within(prefix, &limits);
        // More input never changes a final outcome, except the reason of a refusal.
        match (&before, &parsed) {
            (Parsed::NeedMore, _) | (Parsed::Refused(_), Parsed::Refused(_)) => {}
            (before, parsed) => assert_eq!(parsed, before, "{}", prefix.escape_ascii()),
        }
        if !is_worth_parsing(prefix, seen, &limits) {
            assert!(!matches!(parsed, Parsed::Done(_)), "{}", prefix.escape_ascii());
        }
        if let Parsed::Done(facts) = &parsed {
            let head = &input[..facts.len];
            assert!(head.ends_with(b"\r\n\r\n") && facts.len <= limits.head_bytes_max);
            let strict = head.split_inclusive(|&byte| byte == b'\n').all(|line| line.ends_with(b"\r\n"));
            assert!(strict, "{}", head.escape_ascii());
            assert_eq!(parse_within(head, &limits), parsed);
        }
        if parsed == Parsed::NeedMore {
            seen = end;
        }
        before = parsed;
    }
}

#[test]
fn good_heads_keep_the_properties() {
    for head in good_heads() {
        assert_properties(head.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_keep_the_properties(input in proptest::collection::vec(any::<u8>(), 0..64)) {
        assert_properties(&input);
    }

    #[test]
    fn random_heads_keep_the_properties(pieces in proptest::collection::vec(piece(), 0..16)) {
        assert_properties(&pieces.concat());
    }

    #[test]
    fn damaged_heads_keep_the_properties(
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        damage in 0..3,
    ) {
        let heads = good_heads();
        let mut head = which.get(&heads).clone().into_bytes();
        let at = at.index(head.len());
        match damage {
            0 => head[at] = byte,
            1 => head.insert(at, byte),
            _ => drop(head.remove(at)),
        }
        assert_properties(&head);
    }
}
