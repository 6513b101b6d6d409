//! The text of an error of ClickHouse, of which only the fixed parts are evaluated.
//!
//! ```text
//! Code: 469. DB::Exception: Constraint `c` for table d.t is violated at row 2. …: while pushing to view d.v. (VIOLATED_CONSTRAINT) (version 26.7.2.1)
//! └─ prefix ──────────────┘ └─ message, which may quote values of rows ─────────┘└─ operation ───────────┘ └─ name of the code ┘
//! ```
//!
//! Clients write the values that the text quotes, so nothing is searched for inside of the text. A phrase
//! counts only at the front, before ClickHouse quotes anything, or at the very end, behind the last
//! quotation mark.

/// The text of an error without the prefix, the name of the code and the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a>(&'a str);

impl<'a> Message<'a> {
    /// Creates the value from the whole text of an error.
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.trim();
        let body = text.strip_prefix("Code: ").and_then(|rest| rest.split_once(". DB::Exception: "));
        let text = match body {
            Some((code, rest)) if code.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => text,
        };
        // The version may contain parentheses: `(version 26.7.2.1 (official build))`.
        let text = match text.rsplit_once(" (version ") {
            Some((front, version)) if version.ends_with(')') => front,
            _ => text,
        };
        let is_name =
            |inside: &str| inside.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte));
        Self(without_last_parenthesis(text, is_name).trim_end_matches('.'))
    }

    /// True if the text begins with this phrase.
    pub(super) fn begins_with(self, phrase: &str) -> bool {
        self.0.starts_with(phrase)
    }

    /// The text behind this phrase; `None` if the text does not begin with it.
    pub(super) fn after(self, phrase: &str) -> Option<&'a str> {
        self.0.strip_prefix(phrase)
    }

    /// True if the error came from a materialized view, after the table itself has stored the rows. The
    /// text then ends with `: while pushing to view NAME`, where NAME is the name of a table and
    /// optionally its UUID.
    pub(super) fn is_from_a_view(self) -> bool {
        let Some((_, name)) = self.0.rsplit_once(": while pushing to view ") else { return false };
        let name = without_last_parenthesis(name, is_uuid);
        let (first, rest) = identifier(name);
        match (first, rest.strip_prefix('.')) {
            (true, None) => rest.is_empty(),
            (true, Some(rest)) => {
                let (second, rest) = identifier(rest);
                second && rest.is_empty()
            }
            (false, _) => false,
        }
    }
}

/// The text without ` (…)` at its end, if `is_wanted` holds for the text in the parentheses.
fn without_last_parenthesis(text: &str, is_wanted: impl Fn(&str) -> bool) -> &str {
    let cut = text.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    match cut {
        Some((front, inside)) if !inside.is_empty() && is_wanted(inside) => front,
        _ => text,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Whether the text begins with an identifier, bare or in backticks, and the text behind the identifier.
fn identifier(text: &str) -> (bool, &str) {
    if let Some(quoted) = text.strip_prefix('`') {
        return match quoted.split_once('`') {
            Some((name, rest)) => (!name.is_empty(), rest),
            None => (false, text),
        };
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0, text.get(end..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> String {
        format!("Code: 469. DB::Exception: {body}. (VIOLATED_CONSTRAINT) (version 26.7.2.1 (official build))")
    }

    #[test]
    fn the_fixed_parts_are_taken_off() {
        assert_eq!(Message::new(&of("Too many parts")), Message("Too many parts"));
        let plain = "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS) (version 26.7.2.1)\n";
        assert_eq!(Message::new(plain), Message("Too many parts"));
        assert_eq!(Message::new("<html>502 (Bad Gateway)</html>"), Message("<html>502 (Bad Gateway)</html>"));
        for (odd, expected) in [
            ("", ""),
            ("Code: ", "Code:"),
            ("Code: x. DB::Exception: a", "Code: x. DB::Exception: a"),
            (")", ")"),
            (" ()", "()"),
        ] {
            assert_eq!(Message::new(odd), Message(expected), "{odd}");
        }
    }

    #[test]
    fn only_the_end_of_the_text_says_that_a_view_failed() {
        let said = |body: &str| Message::new(&of(body)).is_from_a_view();
        for name in ["default.v", "v", "`test-db`.`a view`", "d.v (26f8ed25-bbf3-439b-acb6-0d4d8f031fd5)"] {
            assert!(said(&format!("no: while executing 'FUNCTION f': while pushing to view {name}")), "{name}");
        }
        for body in [
            "Column values: s = 'x: while pushing to view default.v'",
            "Cannot parse string 'x: while pushing to view default.v' as Int64: syntax error",
            "Column values: s = 'x: while pushing to view default.v', t = 5",
            ": while pushing to view ",
            ": while pushing to view a b",
            ": while pushing to view a.b.c",
            ": while pushing to view `a",
            "while pushing to view",
        ] {
            assert!(!said(body), "{body}");
        }
    }

    #[test]
    fn phrases_count_at_the_front_alone() {
        let message = of("Type of 'a' must be UInt32, not 'Too many partitions'");
        let message = Message::new(&message);
        assert!(message.begins_with("Type of ") && !message.begins_with("Too many partitions"));
        assert_eq!(message.after("Type of '"), Some("a' must be UInt32, not 'Too many partitions'"));
    }
}
