//! The mapping of a table: where its columns get their values from, as the configuration says it
//! (`[table.NAME.columns]`, `required`, `unknown-fields`).
//!
//! A column that the mapping does not name gets the field of its own name. What is said here is checked
//! against the table by [`Plan::compile`](super::Plan::compile), because the table may change.

use std::collections::BTreeMap;
use std::fmt;

/// The mapping of one table. Without an entry it changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The source of each column that is named.
    pub columns: BTreeMap<String, ColumnSource>,
    /// Columns without which a line is rejected.
    pub required: Vec<String>,
    /// What becomes of fields that no column takes.
    pub unknown_fields: UnknownFields,
}

/// Where the value of a column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnSource {
    /// The first of these fields that is there and is not `null`: names, or paths into objects.
    Fields {
        /// The names and paths, in order; never empty.
        names: Vec<String>,
        /// What a bare number in a column of times means.
        unit: Option<TimeUnit>,
    },
    /// The same value for each event, as JSON.
    Value(String),
    /// Something of the request.
    Request(RequestInput),
    /// The client's address.
    ClientAddress(AddressKind),
    /// The time at which the request's body was complete.
    ServerTime,
    /// The whole line.
    Line,
}

/// What becomes of fields that no column takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are skipped.
    #[default]
    Skip,
    /// The line is rejected.
    Reject,
    /// They are stored in this column.
    Collect(String),
}

/// The unit of a Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// `s`
    Seconds,
    /// `ms`
    Milliseconds,
    /// `us`
    Microseconds,
    /// `ns`
    Nanoseconds,
}

impl TimeUnit {
    /// Every unit, at the index of its discriminant.
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// The unit as the configuration and the metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }
}

/// What of a request's head a column gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestInput {
    /// The header field of this name, in lower case; where proxies are trusted, from them alone.
    Header(Box<str>),
    /// `User-Agent`.
    UserAgent,
    /// The request's identity: the client's `X-Request-Id`, or the one that the reply has.
    RequestId,
    /// The name of the write key.
    KeyName,
}

/// Which form of the client's address a column gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// That of `--client-ip`.
    Usual,
    /// All of it.
    Full,
    /// The /24 of an IPv4 address, the /48 of an IPv6 one.
    Truncated,
    /// A hash with the key of `--client-ip-key-file`.
    Hashed,
    /// Nothing.
    None,
}

impl Mapping {
    /// What the columns get of a request's head, each once: a column's input is a place in this list.
    pub fn request_inputs(&self) -> Vec<RequestInput> {
        let mut inputs = Vec::new();
        for source in self.columns.values() {
            if let ColumnSource::Request(input) = source
                && !inputs.contains(input)
            {
                inputs.push(input.clone());
            }
        }
        inputs
    }

    /// True if the mapping says what a column gets.
    pub(super) fn gives(&self, column: &str) -> bool {
        let collects = matches!(&self.unknown_fields, UnknownFields::Collect(name) if name == column);
        collects || self.columns.contains_key(column)
    }

    /// True if a column gets a hashed address.
    pub fn hashes_addresses(&self) -> bool {
        self.columns.values().any(|source| *source == ColumnSource::ClientAddress(AddressKind::Hashed))
    }
}

impl fmt::Display for RequestInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name}"),
            Self::UserAgent => f.write_str("the header user-agent"),
            Self::RequestId => f.write_str("the request's identity"),
            Self::KeyName => f.write_str("the name of the write key"),
        }
    }
}

/// The parts of a path into objects; `None` for a name that is no path.
pub fn path_parts(name: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = name.split('.').collect();
    (parts.len() > 1 && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}
