//! Query parameters, and percent escapes of a path.

use std::borrow::Cow;

use super::HttpRefusal;
use crate::limits;

/// The pairs of an `application/x-www-form-urlencoded` query (URL Standard, section 5.1) in order:
/// `a=1&b` has the value `1` for `a` and an empty value for `b`. Allocates only for escaped names
/// and values. Stricter than the standard: an invalid escape, or a name or value that is not UTF-8
/// once decoded, is refused.
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), HttpRefusal>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((unescape(name)?, unescape(value)?))
    })
}

/// True when a name comes twice in a query, however it is escaped, or there are more than
/// [`limits::QUERY_PARAMETERS_MAX`] pairs: which one of two is meant is not certain, and a proxy may take
/// the other. Malformed pairs count as nothing.
pub fn has_repeated_name(query: &str) -> bool {
    let names = || query_pairs(query).filter_map(Result::ok).map(|(name, _)| name);
    // Few pairs: comparing each with each costs less than a set.
    let count = names().take(limits::QUERY_PARAMETERS_MAX + 1).count();
    count > limits::QUERY_PARAMETERS_MAX
        || names().enumerate().any(|(index, name)| names().take(index).any(|earlier| earlier == name))
}

/// A path normalized for comparison (RFC 3986, section 6.2.2): percent escapes are decoded, except
/// invalid ones and that of the slash, because an escaped slash separates no segments. Allocates
/// only for a path with escapes.
pub fn plain_path(path: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'%', path.as_bytes()) else { return Cow::Borrowed(path) };
    let (plain, mut rest) = path.as_bytes().split_at(first);
    let mut plain = plain.to_vec();
    while let [byte, behind @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, behind @ ..] => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, behind)),
            _ => None,
        };
        let (byte, behind) = escaped.filter(|(byte, _)| *byte != b'/').unwrap_or((*byte, behind));
        plain.push(byte);
        rest = behind;
    }
    String::from_utf8(plain).map_or(Cow::Borrowed(path), Cow::Owned)
}

fn unescape(text: &str) -> Result<Cow<'_, str>, HttpRefusal> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, rest @ ..] => {
                let (high, low) = hex(*high).zip(hex(*low)).ok_or(HttpRefusal::BadQuery)?;
                plain.push(high << 4 | low);
                rest
            }
            [b'%', ..] => return Err(HttpRefusal::BadQuery),
            [b'+', rest @ ..] => {
                plain.push(b' ');
                rest
            }
            [byte, rest @ ..] => {
                plain.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(plain).map(Cow::Owned).map_err(|_| HttpRefusal::BadQuery)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(query: &str) -> Result<Vec<(String, String)>, HttpRefusal> {
        query_pairs(query).map(|pair| pair.map(|(name, value)| (name.into_owned(), value.into_owned()))).collect()
    }

    #[test]
    fn a_name_that_comes_twice_is_found_in_every_spelling() {
        for query in ["", "a", "a&b=a&c", "a=1&A=1", "a=b&b=a", "&&a&&", "a&%zz&%zz"] {
            assert!(!has_repeated_name(query), "{query}");
        }
        for query in ["a&a", "a=1&b&a=2", "ack=disk&%61ck=disk", "a+b&a%20b", "=1&=2", "x&y&z&y"] {
            assert!(has_repeated_name(query), "{query}");
        }
        let many = |count: usize| (0..count).map(|number| format!("p{number}&")).collect::<String>();
        assert!(!has_repeated_name(&many(limits::QUERY_PARAMETERS_MAX)));
        assert!(has_repeated_name(&many(limits::QUERY_PARAMETERS_MAX + 1)));
    }

    #[test]
    fn pairs_are_decoded_in_order() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("a=b=c", &[("a", "b=c")]),
            ("ack=inserted&dry_run=1", &[("ack", "inserted"), ("dry_run", "1")]),
            ("a=1&a=2", &[("a", "1"), ("a", "2")]),
            ("a+b=c%20d%2B", &[("a b", "c d+")]),
            ("%61=%C3%A9&x=%26%3d", &[("a", "\u{e9}"), ("x", "&=")]),
            ("a=%00", &[("a", "\0")]),
            ("a?b=/c", &[("a?b", "/c")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(pairs(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn invalid_escapes_are_refused() {
        for query in ["%", "a=%", "a=%2", "a=%2&b", "a=%g0", "a=%0g", "%%20", "a=%+1", "a=%C3", "a=%ff"] {
            assert_eq!(pairs(query), Err(HttpRefusal::BadQuery), "{query}");
        }
        // An invalid pair does not hide the pairs after it.
        assert!(query_pairs("%&a=1").nth(1).is_some_and(|pair| pair.is_ok()));
    }

    #[test]
    fn paths_are_compared_without_escapes() {
        for (path, plain) in [
            ("/api/events", "/api/events"),
            ("/api/%65vents", "/api/events"),
            ("/%61%70%69/events%73", "/api/eventss"),
            ("/api/my%20table", "/api/my table"),
            ("/api/%C3%A9+", "/api/\u{e9}+"),
            ("/api%2Fevents", "/api%2Fevents"),
            ("/api%2fevent%73", "/api%2fevents"),
            ("/%2565", "/%65"),
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%zz%65", "/%zze"),
            ("/%ff%65", "/%ff%65"),
        ] {
            assert_eq!(plain_path(path), plain, "{path}");
        }
        assert!(matches!(plain_path("/api/events"), Cow::Borrowed(_)));
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let (name, value) = query_pairs("key=value").next().unwrap().unwrap();
        assert!(matches!((name, value), (Cow::Borrowed(_), Cow::Borrowed(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn escaped_text_is_decoded(text in any::<String>()) {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(pairs(&format!("k={escaped}")), Ok(vec![("k".to_owned(), text)]));
        }

        #[test]
        fn no_query_panics(query in any::<String>()) {
            let _ = pairs(&query);
        }
    }
}
