//! Headers of the PROXY protocol: whatever the bytes are, more of them never change what is certain, a
//! header is one at its last byte and no earlier, and none is longer than is accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::limits;
use sluicegate::net::{ParsedProxyHeader, parse_proxy_header};

fuzz_target!(|input: &[u8]| {
    let whole = parse_proxy_header(input);
    assert!(whole != ParsedProxyHeader::NeedMore || input.len() < limits::PROXY_HEADER_BYTES_MAX);
    if let ParsedProxyHeader::Done(header) = whole {
        assert!(header.len <= input.len() && header.len <= limits::PROXY_HEADER_BYTES_MAX);
        assert_eq!(parse_proxy_header(&input[..header.len]), whole);
        let source = header.source.map(|source| source.to_canonical());
        assert_eq!(source, header.source);
        for cut in 0..header.len {
            assert_eq!(parse_proxy_header(&input[..cut]), ParsedProxyHeader::NeedMore, "{cut}");
        }
        return;
    }
    let mut was_refused = false;
    for cut in 0..=input.len() {
        match parse_proxy_header(&input[..cut]) {
            ParsedProxyHeader::Refused => was_refused = true,
            ParsedProxyHeader::NeedMore => assert!(!was_refused, "{cut}"),
            ParsedProxyHeader::Done(_) => panic!("a part of it is a header: {cut}"),
        }
    }
    assert_eq!(was_refused, whole == ParsedProxyHeader::Refused);
});
