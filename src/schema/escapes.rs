//! Escapes in the types that ClickHouse writes: an enum's names are quoted as in SQL.

use std::borrow::Cow;

/// The type with the escapes in its quoted names decoded, except for quotes and backslashes, which
/// the parser of types decodes itself. For that parser any other escape is the letter behind it, so
/// that a name with a tab would be one with a `t`.
pub(super) fn decoded(type_name: &str) -> Cow<'_, str> {
    if !type_name.contains('\\') {
        return Cow::Borrowed(type_name);
    }
    let mut decoded = String::with_capacity(type_name.len());
    let mut quoted = false;
    let mut characters = type_name.chars();
    while let Some(character) = characters.next() {
        quoted ^= character == '\'';
        if character != '\\' || !quoted {
            decoded.push(character);
            continue;
        }
        match characters.next() {
            Some('b') => decoded.push('\u{8}'),
            Some('f') => decoded.push('\u{c}'),
            Some('n') => decoded.push('\n'),
            Some('r') => decoded.push('\r'),
            Some('t') => decoded.push('\t'),
            Some('0') => decoded.push('\0'),
            Some('a') => decoded.push('\u{7}'),
            Some('v') => decoded.push('\u{b}'),
            Some('e') => decoded.push('\u{1b}'),
            other => decoded.extend(std::iter::once('\\').chain(other)),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_left_and_the_others_decoded() {
        for (written, expected) in [
            ("Enum8('a' = 1)", "Enum8('a' = 1)"),
            (r"Enum8('t\tb' = 1, 'n\nb' = 2, '\0' = 3)", "Enum8('t\tb' = 1, 'n\nb' = 2, '\0' = 3)"),
            (r"Enum8('\b\f\r\a\v\e' = 1)", "Enum8('\u{8}\u{c}\r\u{7}\u{b}\u{1b}' = 1)"),
            (r"Enum8('it\'s\\t' = 1, 'x\t' = 2)", "Enum8('it\\'s\\\\t' = 1, 'x\t' = 2)"),
            (r"Enum8('\\' = 1, '\'' = 2, '\t' = 3)", "Enum8('\\\\' = 1, '\\'' = 2, '\t' = 3)"),
            (r"outside \t", r"outside \t"),
            (r"Enum8('\", r"Enum8('\"),
        ] {
            assert_eq!(decoded(written), expected, "{written}");
        }
    }
}
