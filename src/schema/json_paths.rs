//! The paths of a JSON column that have types of their own.

use std::hash::{DefaultHasher, Hasher};

use super::Cell;
use crate::rowbinary::DataType;

/// The paths with types, by the hash of the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPaths {
    by_hash: Box<[(u64, Cell)]>,
}

impl JsonPaths {
    /// The paths of a column; `zone` is the server's time zone.
    ///
    /// # Errors
    ///
    /// Why no values of a type are read.
    pub(super) fn compile(paths: &[(String, DataType)], zone: &str) -> Result<Self, String> {
        let compile = |(path, data_type): &(String, DataType)| {
            let mut hasher = Self::hasher(0);
            hasher.write(path.as_bytes());
            Ok((hasher.finish(), Cell::compile(data_type, zone)?))
        };
        let by_hash: Result<Vec<_>, String> = paths.iter().map(compile).collect();
        let mut by_hash = by_hash?;
        by_hash.sort_by_key(|(hash, _)| *hash);
        Ok(Self { by_hash: by_hash.into() })
    }

    /// The hasher of the paths that begin in an object: the keys follow, with points between them. The outermost
    /// object of a value has the number 0.
    pub fn hasher(object: u64) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(object);
        hasher
    }

    /// The cell of the path with this hash.
    pub fn get(&self, hash: u64) -> Option<&Cell> {
        let at = self.by_hash.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        self.by_hash.get(at).map(|(_, cell)| cell)
    }
}
