//! The header fields that determine framing, persistence and content coding.

use super::*;

#[test]
fn transfer_codings_on_several_lines_are_those_on_one() {
    let words = ["chunked", "gzip", "", "CHUNKED", " chunked "];
    for first in words {
        for second in words {
            for third in words {
                let lines = [first, second, third].map(|word| format!("Transfer-Encoding: {word}\r\n")).concat();
                let list = format!("Transfer-Encoding: {first}, {second}, {third}\r\n");
                let two = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}, {third}\r\n");
                let framing = |fields: &str| match parse(post(fields)) {
                    Parsed::Done(head) => Ok(head.framing),
                    Parsed::NeedMore => panic!("{fields:?} is a head"),
                    Parsed::Refused(refusal) => Err(refusal),
                };
                assert_eq!(framing(&lines), framing(&list), "{lines:?}");
                assert_eq!(framing(&two), framing(&list), "{two:?}");
            }
        }
    }
}

#[test]
fn a_host_is_required_exactly_once() {
    use HttpRefusal::*;
    for (fields, refusal) in [
        ("", MissingHost),
        ("Hos: a\r\n", MissingHost),
        ("Host:\r\n", BadHost),
        ("Host: \r\n", BadHost),
        ("Host: a\r\nhost: a\r\n", BadHost),
        ("Host: a b\r\n", BadHost),
        ("Host: a, b\r\n", BadHost),
        ("Host: a/\r\n", BadHost),
    ] {
        let input = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(parse(&input), Parsed::Refused(refusal), "{input:?}");
    }
    for input in ["GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\nHost:\r\n\r\n"] {
        assert_eq!(parse(input), Parsed::Refused(BadHost), "{input:?}");
    }
    // RFC 9112, section 3.2: the absolute form does not replace the Host field.
    assert_eq!(parse("GET http://h/ HTTP/1.1\r\n\r\n"), Parsed::Refused(MissingHost));
}

#[test]
fn framing_follows_rfc_9112() {
    use HttpRefusal::*;
    for (lines, framing) in [
        ("", Ok(Framing::Length(0))),
        ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ("content-length:007\r\n", Ok(Framing::Length(7))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("Content-Length: 18446744073709551616\r\n", Err(BadContentLength)),
        ("Content-Length: 99999999999999999999999\r\n", Err(BadContentLength)),
        ("Content-Length:\r\n", Err(BadContentLength)),
        ("Content-Length: +5\r\n", Err(BadContentLength)),
        ("Content-Length: -5\r\n", Err(BadContentLength)),
        ("Content-Length: 5 5\r\n", Err(BadContentLength)),
        ("Content-Length: 5, 5\r\n", Err(BadContentLength)),
        ("Content-Length: 0x5\r\n", Err(BadContentLength)),
        ("Content-Length: 5.0\r\n", Err(BadContentLength)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(BadContentLength)),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(BadContentLength)),
        ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("TRANSFER-ENCODING:ChUnKeD\r\n", Ok(Framing::Chunked)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(BothLengths)),
        ("Content-Length: 5\r\nTransfer-Encoding: gzip\r\n", Err(BothLengths)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(BadTransferCoding)),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(UnsupportedTransferCoding)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(BadTransferCoding)),
        ("Transfer-Encoding: chunked, gzip\r\n", Err(BadTransferCoding)),
        ("Transfer-Encoding: chunked,\r\n", Err(BadTransferCoding)),
        ("Transfer-Encoding:\r\n", Err(BadTransferCoding)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(UnsupportedTransferCoding)),
        ("Transfer-Encoding: identity\r\n", Err(UnsupportedTransferCoding)),
        ("Transfer-Encoding: xchunked\r\n", Err(UnsupportedTransferCoding)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(UnsupportedTransferCoding)),
        ("Transfer-Encoding: chunked;a=b\r\n", Err(UnsupportedTransferCoding)),
    ] {
        match framing {
            Ok(framing) => assert_eq!(done(post(lines)).framing, framing, "{lines:?}"),
            Err(refusal) => assert_eq!(parse(post(lines)), Parsed::Refused(refusal), "{lines:?}"),
        }
    }
    assert_eq!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Parsed::Refused(BadTransferCoding));
}

#[test]
fn persistence_follows_version_and_connection_options() {
    for (version, lines, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "connection: x,\tCLOSE ,y\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n", true),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(done(&input).keep_alive, keep_alive, "{input:?}");
    }
}

#[test]
fn the_only_expectation_is_100_continue() {
    let length = "Content-Length: 1\r\n";
    assert!(done(post(&format!("{length}Expect: 100-Continue\r\n"))).expect_continue);
    assert!(done(post("Transfer-Encoding: chunked\r\nexpect:100-continue\r\n")).expect_continue);
    assert!(!done(post("Expect: 100-continue\r\n")).expect_continue);
    assert!(!done(format!("POST / HTTP/1.0\r\n{length}Expect: 100-continue\r\n\r\n")).expect_continue);
    for value in ["", "100", "100-continue, x", "200-ok"] {
        assert_eq!(
            parse(post(&format!("{length}Expect: {value}\r\n"))),
            Parsed::Refused(HttpRefusal::BadExpectation),
            "{value:?}"
        );
    }
}

#[test]
fn content_codings_are_recognized() {
    use Coding::*;
    use ContentCoding::*;
    for (lines, coding) in [
        ("", Identity),
        ("Content-Encoding:\r\n", Identity),
        ("Content-Encoding: identity\r\n", Identity),
        ("Content-Encoding: GZIP\r\n", Coded(Gzip)),
        ("Content-Encoding: x-gzip\r\n", Coded(Gzip)),
        ("Content-Encoding: deflate\r\n", Coded(Deflate)),
        ("Content-Encoding: zstd\r\n", Coded(Zstd)),
        ("Content-Encoding: br\r\n", Coded(Br)),
        ("Content-Encoding: compress\r\n", Unsupported),
        ("Content-Encoding: gzip, br\r\n", Unsupported),
        ("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", Unsupported),
        ("Content-Encoding: gzip, gzip\r\n", Unsupported),
        ("Content-Encoding: compress, gzip\r\n", Unsupported),
        ("Content-Encoding: gzip x\r\n", Unsupported),
        // Empty elements and `identity` are no codings, whatever line they are on.
        ("Content-Encoding: ,\r\nContent-Encoding: Identity\r\n", Identity),
        ("Content-Encoding: gzip\r\nContent-Encoding:\r\n", Coded(Gzip)),
        ("Content-Encoding:\r\nContent-Encoding: ,\tbr , identity\r\n", Coded(Br)),
        ("Content-Encoding: zstd\r\nContent-Encoding: , br\r\n", Unsupported),
    ] {
        assert_eq!(done(post(lines)).content_coding, coding, "{lines:?}");
    }
}
