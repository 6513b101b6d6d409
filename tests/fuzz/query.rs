//! Queries: whatever the bytes are, their pairs are those that a naive twin finds, and a name that comes
//! twice is found in every spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::http::{has_repeated_name, plain_path, query_pairs};
use sluicegate::limits;

/// Decodes byte by byte; `None` for an invalid escape or what is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fuzz_target!(|input: &[u8]| {
    let Ok(query) = std::str::from_utf8(input) else { return };
    let found: Vec<_> = query_pairs(query).collect();
    let parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    assert_eq!(found.len(), parts.len());
    let mut names = Vec::new();
    for (found, part) in found.into_iter().zip(&parts) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let expected = decoded(name).zip(decoded(value));
        assert_eq!(found.ok().map(|(name, value)| (name.into_owned(), value.into_owned())), expected);
        names.extend(expected.map(|(name, _)| name));
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(has_repeated_name(query), names.len() < count || count > limits::QUERY_PARAMETERS_MAX);
    // A path that is plain stays so.
    if !query.contains('%') {
        assert_eq!(plain_path(query), query);
    }
});
