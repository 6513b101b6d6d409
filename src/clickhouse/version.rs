//! The releases of ClickHouse. They differ in the values that they take for typed paths of a JSON, and in how they
//! name the blocks of an INSERT in the log of tokens.
//!
//! As tests with the engines show, 25.8 and 26.1 log one name per block, in the old scheme; 26.2 to 26.6
//! log two names, one in each scheme; 26.7 and later log one name, in the new scheme. A server recognises
//! a token only by a name that was logged.

use crate::schema::PathRules;

/// A release of ClickHouse: year and month of its version, such as `26.7` of `26.7.2.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u32, u32);

/// The first release that logs names in the new scheme.
const NEW_SCHEME: Release = Release(26, 2);

/// The first release that logs no names in the old scheme.
const NO_OLD_SCHEME: Release = Release(26, 7);

/// The first release that takes `true` as a float, and texts as Time and Time64, as values of typed paths; of
/// those before it 25.8 was tried.
const BOOLS_AND_SPANS_IN_PATHS: Release = Release(26, 1);

/// The first release that takes numbers as DateTime and Time as values of typed paths; of those before it 26.3 was
/// tried.
const SECONDS_IN_PATHS: Release = Release(26, 5);

impl Release {
    /// Creates the release of this year and month.
    pub const fn new(year: u32, month: u32) -> Self {
        Self(year, month)
    }

    /// Parses the release that a version begins with; `None` if the text is not a version.
    pub fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }

    /// True if a server of release `later` recognises a token that this release logged for the same
    /// table.
    pub fn tokens_are_known_to(self, later: Self) -> bool {
        let both_old = self < NO_OLD_SCHEME && later < NO_OLD_SCHEME;
        let both_new = self >= NEW_SCHEME && later >= NEW_SCHEME;
        both_old || both_new
    }

    /// What a server of this release takes as a value of a path that has a type in a JSON.
    pub fn path_rules(self) -> PathRules {
        PathRules {
            numbers_as_seconds: self >= SECONDS_IN_PATHS,
            bools_as_floats: self >= BOOLS_AND_SPANS_IN_PATHS,
            texts_as_spans: self >= BOOLS_AND_SPANS_IN_PATHS,
        }
    }

    /// Number of entries of the deduplication window that one block takes.
    pub fn places_of_a_block(self) -> u64 {
        if (NEW_SCHEME..NO_OLD_SCHEME).contains(&self) { 2 } else { 1 }
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_from_a_version() {
        assert_eq!(Release::of("26.7.2.1"), Some(Release(26, 7)));
        assert_eq!(Release::of("25.12"), Some(Release(25, 12)));
        assert!(Release(25, 12) < Release(26, 1));
        for other in ["Ok.", "", "26", "26.", ".7"] {
            assert_eq!(Release::of(other), None, "{other}");
        }
    }

    #[test]
    fn tokens_cross_an_upgrade_where_a_scheme_is_shared() {
        let known =
            |first: &str, later: &str| Release::of(first).unwrap().tokens_are_known_to(Release::of(later).unwrap());
        for (first, later) in
            [("25.8", "26.1"), ("25.8", "26.3"), ("25.8", "26.5"), ("26.3", "26.7"), ("26.5", "26.9"), ("26.7", "26.9")]
        {
            assert!(known(first, later), "{first} → {later}");
        }
        for (first, later) in [("25.8", "26.7"), ("26.1", "26.9"), ("26.7", "26.1")] {
            assert!(!known(first, later), "{first} → {later}");
        }
        let places = |version| Release::of(version).unwrap().places_of_a_block();
        assert_eq!([places("25.8"), places("26.3"), places("26.6"), places("26.7")], [1, 2, 2, 1]);
    }

    #[test]
    fn older_releases_take_less_for_a_path_with_a_type() {
        let rules = |version| {
            let PathRules { numbers_as_seconds, bools_as_floats, texts_as_spans } =
                Release::of(version).unwrap().path_rules();
            [numbers_as_seconds, bools_as_floats, texts_as_spans]
        };
        for (version, expected) in [
            ("25.8", [false; 3]),
            ("25.12", [false; 3]),
            ("26.1", [false, true, true]),
            ("26.4", [false, true, true]),
            ("26.5", [true; 3]),
            ("26.7", [true; 3]),
        ] {
            assert_eq!(rules(version), expected, "{version}");
        }
    }
}
