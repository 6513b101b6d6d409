//! Why events can't be inserted into a table.

use std::fmt;

use super::column_type;
use crate::limits;

/// Why events can't be inserted into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaError {
    /// The table has no column that an INSERT can name.
    NoColumns,
    /// The table has this many columns, more than [`limits::COLUMNS_MAX`].
    TooManyColumns(usize),
    /// Clients fill no column of this name, which `--dedup-field` names.
    NoDedupField(String),
    /// The type of a column is unsupported or can't be parsed.
    UnsupportedType {
        /// The column's name.
        column: String,
        /// The column's type, spelled as by ClickHouse.
        type_name: String,
        /// Why it is not supported.
        reason: String,
    },
    /// The default of a column is of a kind that this version does not know.
    UnknownDefault {
        /// The column's name.
        column: String,
        /// The kind.
        default_kind: String,
    },
    /// A column that the client's address does not always fit.
    NarrowAddress(String),
    /// A column of addresses that the hash of one does not fit.
    HashedAddress(String),
    /// The configuration names a column that the table lacks, or that no INSERT names.
    NoMappedColumn {
        /// The key of the configuration.
        key: &'static str,
        /// The column's name.
        column: String,
    },
    /// A column can't get what the configuration says, for this reason.
    Unmappable {
        /// The column's name.
        column: String,
        /// The column's type, spelled as by ClickHouse.
        type_name: String,
        /// The reason, behind "it".
        reason: String,
    },
    /// The fields and paths of the mapping are more than can be numbered.
    TooManyPaths,
    /// The names and types can't be encoded as a header, for this reason.
    Header(String),
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColumns => f.write_str("the table has no column that can be inserted into"),
            Self::TooManyColumns(count) => {
                write!(f, "the table has {count} columns, more than the {} that are supported", limits::COLUMNS_MAX)
            }
            Self::NoDedupField(name) => {
                write!(f, "--dedup-field {name}: the table has no column of this name that clients fill")
            }
            Self::UnsupportedType { column, type_name, reason } => write!(
                f,
                "column `{column}` has the type {type_name}, which is not supported ({reason}); \
                 supported are {}",
                column_type::SUPPORTED
            ),
            Self::UnknownDefault { column, default_kind } => {
                write!(f, "column `{column}` has a default of the kind {default_kind}, which is not known")
            }
            Self::NarrowAddress(column) => write!(
                f,
                "column `{column}` is an IPv4, and a client's address may be an IPv6 one: make it \
                 Nullable(IPv4), which gets NULL then, or IPv6; or listen on IPv4 addresses alone and \
                 trust no proxy"
            ),
            Self::HashedAddress(column) => {
                write!(f, "column `{column}` holds addresses, and a hashed address is text: make it a String")
            }
            Self::NoMappedColumn { key, column } => write!(
                f,
                "`{key}` names the column `{column}`, and the table has no column of this name that can be inserted into"
            ),
            Self::Unmappable { column, type_name, reason } => {
                write!(f, "`columns` names the column `{column}`, whose type is {type_name}: it {reason}")
            }
            Self::TooManyPaths => {
                f.write_str("`columns` has paths into more objects than are supported: use fewer or shorter paths")
            }
            Self::Header(reason) => write!(f, "the columns can't be written as a header: {reason}"),
        }
    }
}

impl std::error::Error for SchemaError {}
