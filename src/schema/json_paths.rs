//! The paths of a JSON column that have types of their own.

use std::hash::{DefaultHasher, Hasher};

use super::{Cell, Dialect};
use crate::rowbinary::DataType;

/// What a ClickHouse server takes as a value of a path that has a type. Of [`PathRules::NEWEST`] older releases
/// refuse a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// Numbers as DateTime and Time.
    pub numbers_as_seconds: bool,
    /// `true` and `false` as floats.
    pub bools_as_floats: bool,
    /// Texts as Time and Time64.
    pub texts_as_spans: bool,
}

impl PathRules {
    /// What a present server takes.
    pub const NEWEST: Self = Self { numbers_as_seconds: true, bools_as_floats: true, texts_as_spans: true };
}

/// The paths with types, by the hash of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPaths {
    by_hash: Box<[(u64, Cell)]>,
    rules: PathRules,
}

impl JsonPaths {
    /// The paths of a column.
    ///
    /// # Errors
    ///
    /// Why no values of a type are read.
    pub(super) fn compile(paths: &[(String, DataType)], dialect: Dialect<'_>) -> Result<Self, String> {
        let compile = |(path, data_type): &(String, DataType)| {
            let mut hasher = Self::hasher(0);
            hasher.write(path.as_bytes());
            Ok((hasher.finish(), Cell::compile(data_type, dialect)?))
        };
        let by_hash: Result<Vec<_>, String> = paths.iter().map(compile).collect();
        let mut by_hash = by_hash?;
        by_hash.sort_by_key(|(hash, _)| *hash);
        Ok(Self { by_hash: by_hash.into(), rules: dialect.path_rules })
    }

    /// The hasher of the paths that begin in an object: the keys follow, with points between them. The outermost
    /// object of a value has the number 0.
    pub fn hasher(object: u64) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(object);
        hasher
    }

    /// What the server takes as their values.
    pub fn rules(&self) -> PathRules {
        self.rules
    }

    /// The cell of the path with this hash.
    pub fn get(&self, hash: u64) -> Option<&Cell> {
        let at = self.by_hash.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        self.by_hash.get(at).map(|(_, cell)| cell)
    }
}
