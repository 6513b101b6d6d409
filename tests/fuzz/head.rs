//! Heads: whatever the bytes are, every prefix of an accepted head needs more, and parsing its
//! bytes alone gives the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::http::{HeadLimits, NO_HEADERS, Parsed, parse_head};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 2048, headers_max: 32 };

fuzz_target!(|input: &[u8]| {
    let mut slots = NO_HEADERS;
    let Parsed::Done(head) = parse_head(input, &LIMITS, &mut slots) else { return };
    assert!(head.len <= input.len() && head.len <= LIMITS.head_bytes_max);
    assert!(head.target.is_ascii() && !head.path.is_empty());
    let alone = &input[..head.len];
    let mut slots = NO_HEADERS;
    let Parsed::Done(again) = parse_head(alone, &LIMITS, &mut slots) else { panic!("alone it is no head") };
    assert_eq!((again.target, again.framing, again.keep_alive), (head.target, head.framing, head.keep_alive));
    assert_eq!(again.idempotency_key, head.idempotency_key);
    for cut in 0..head.len {
        let mut slots = NO_HEADERS;
        assert!(matches!(parse_head(&alone[..cut], &LIMITS, &mut slots), Parsed::NeedMore), "{cut}");
    }
});
