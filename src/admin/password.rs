//! `--admin-password-file`: HTTP Basic authentication (RFC 7617) with any user name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::Head;

/// The value of `WWW-Authenticate` in a 401 (RFC 7617, section 2.1).
pub(super) const CHALLENGE: &str = "Basic realm=\"sluicegate\", charset=\"UTF-8\"";

/// The password of the admin address, as a hash.
pub(super) struct Password(blake3::Hash);

impl Password {
    pub(super) fn new(password: &str) -> Self {
        Self(blake3::hash(password.as_bytes()))
    }

    /// True if the request carries the password. The time that the comparison takes says nothing about
    /// the password: `blake3` compares hashes in constant time.
    pub(super) fn is_in(&self, head: &Head<'_>) -> bool {
        let mut values = head.header_lines("authorization");
        match (values.next(), values.next()) {
            (Some(value), None) => password_of(value).is_some_and(|given| blake3::hash(&given) == self.0),
            _ => false,
        }
    }
}

/// The password in the value of an `Authorization` field; `None` if the value is malformed or of another
/// scheme. Names of schemes are compared without regard to case (RFC 9110, section 11.1).
fn password_of(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    // A user name has no colon; a password may have any number.
    let colon = memchr::memchr(b':', &decoded)?;
    Some(decoded.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_follows_the_first_colon() {
        for (value, expected) in [
            ("Basic dXNlcjpwYXNz", Some("pass")),
            ("bASIC dXNlcjpwYXNz", Some("pass")),
            ("Basic   dXNlcjpwYXNz ", Some("pass")),
            ("Basic OnBhOnNz", Some("pa:ss")),
            ("Basic dXNlcjo=", Some("")),
            ("Basic dXNlcg==", None),
            ("Basic dXNlcjo", None),
            ("Basic ?", None),
            ("Basic", None),
            ("Bearer dXNlcjpwYXNz", None),
            ("", None),
        ] {
            assert_eq!(password_of(value.as_bytes()).as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }
}
