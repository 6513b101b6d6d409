//! What is said of a line whose keys lead to no column, or to several.

use super::LineCode;
use super::general::{Rejection, excerpt};
use crate::schema::Plan;

/// How many keys a message names.
const KEYS_NAMED_MAX: usize = 3;
/// A longer key is not compared with the columns.
const COMPARED_BYTES_MAX: usize = 64;

/// The keys of one line.
#[derive(Default)]
pub(super) struct Keys {
    /// A column is called so.
    pub(super) any_known: bool,
    /// The first ones that are no column's, shortened.
    unknown: Vec<String>,
    more: bool,
}

impl Keys {
    pub(super) fn add_unknown(&mut self, key: &str) {
        if self.any_known {
            return;
        }
        if self.unknown.len() < KEYS_NAMED_MAX {
            self.unknown.push(excerpt(key).into_owned());
        } else {
            self.more = true;
        }
    }

    /// Rejects an object with keys of which none is a column's.
    pub(super) fn reject(&self, plan: &Plan) -> Option<Rejection> {
        if self.any_known || self.unknown.is_empty() {
            return None;
        }
        let named: Vec<String> = self.unknown.iter().map(|key| with_nearest(plan, key)).collect();
        let more = if self.more { ", \u{2026}" } else { "" };
        let what = if plan.is_mapped() { "belongs to" } else { "is" };
        let message = format!("no key of the line {what} a column of the table: {}{more}", named.join(", "));
        Some(Rejection::new(LineCode::NoKnownField, message))
    }
}

/// Rejects a key that leads to several columns.
pub(super) fn ambiguous(plan: &Plan, key: &str) -> Rejection {
    let fields = plan.paths().known().filter(|name| name.eq_ignore_ascii_case(key));
    let fields: Vec<String> = fields.map(|name| format!("`{name}`")).collect();
    let which = if plan.is_mapped() { "fields" } else { "columns" };
    let message = match fields.as_slice() {
        [] => format!("the key `{}` may mean several {which}", excerpt(key)),
        fields => format!("the key `{}` may mean each of the {which} {}", excerpt(key), fields.join(", ")),
    };
    Rejection::new(LineCode::DuplicateField, message)
}

/// Rejects a field that no column takes.
pub(super) fn unknown_field(plan: &Plan, path: &str, key: &str) -> Rejection {
    let message = match path {
        "" => format!("no column takes the field {}", with_nearest(plan, &excerpt(key))),
        path => format!("no column takes the field `{path}.{}`", excerpt(key)),
    };
    Rejection::new(LineCode::UnknownField, message)
}

/// The key, and the one that may have been meant.
fn with_nearest(plan: &Plan, key: &str) -> String {
    let mut known = plan.paths().known();
    if known.clone().any(|name| name.eq_ignore_ascii_case(key)) {
        return format!("`{key}` itself, but something in it, and its value is no object");
    }
    let nearest = known.clone().find(|name| same_letters(name, key)).or_else(|| known.find(|name| is_slip(name, key)));
    match nearest {
        Some(name) if key.len() <= COMPARED_BYTES_MAX => format!("`{key}` (is `{name}` meant?)"),
        _ => format!("`{key}`"),
    }
}

/// `deviceId`, `device-id` and `device_id` have the same letters.
fn same_letters(name: &str, key: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = char> {
        text.chars().filter(|character| character.is_alphanumeric()).map(|character| character.to_ascii_lowercase())
    }
    letters(name).eq(letters(key)) && letters(key).next().is_some()
}

/// One letter more, less, or another one; or two neighbours changed places.
fn is_slip(name: &str, key: &str) -> bool {
    let (name, key) = (name.as_bytes(), key.as_bytes());
    if name.len().abs_diff(key.len()) > 1 || name.len().max(key.len()) < 3 {
        return false;
    }
    let same = name.iter().zip(key).take_while(|(one, other)| one.eq_ignore_ascii_case(other)).count();
    let rest = |text: &[u8], skipped: usize| text.get(same + skipped..).unwrap_or_default().to_ascii_lowercase();
    let swapped = || match (rest(name, 0).first_chunk(), rest(key, 0).first_chunk()) {
        (Some([a, b]), Some([c, d])) => a == d && b == c && rest(name, 2) == rest(key, 2),
        _ => false,
    };
    rest(name, 1) == rest(key, 1) || rest(name, 1) == rest(key, 0) || rest(name, 0) == rest(key, 1) || swapped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_one_letter_or_two_that_changed_places() {
        for (key, expected) in [
            ("evnt", true),
            ("evennt", true),
            ("evemt", true),
            ("evetn", true),
            ("EVNT", true),
            ("events", true),
            ("vent", true),
            ("evntt", false),
            ("even", true),
            ("evne", false),
            ("enev", false),
            ("tneve", false),
            ("ev", false),
            ("", false),
        ] {
            assert_eq!(is_slip("event", key), expected, "{key}");
        }
        assert!(!is_slip("a", "b"));
        assert!(same_letters("device_id", "deviceId") && same_letters("device_id", "Device-ID"));
        assert!(!same_letters("device_id", "device") && !same_letters("_", "-"));
    }
}
