//! The columns of a table, compiled into the plan that the row encoder follows.
//!
//! The table is the schema: an event has no other definition than the answer of `DESCRIBE TABLE`.
//! [`Plan::compile`] makes three things of it: the *columns* of the INSERT, in order, with the
//! source of each value; the *fields*, which are the columns that clients fill, with their parsed
//! types; and a hash table that finds a field by its key.
//!
//! The server fills two columns whatever a client sends: `ip` and `server_time`, if their types can
//! hold an address and a time. A client's fields of these names are skipped like unknown fields, so
//! that a client can't forge its address or the time.

mod column_type;
mod differences;
mod json_paths;
mod names;
mod variant;

use std::fmt;
use std::sync::Arc;

use clickhouse_rowbinary::io::{write_string, write_uvarint};
use serde::{Deserialize, Serialize};

pub use column_type::{Cell, ColumnType, EnumElements, TupleElements, Zone};
pub use differences::Differences;
pub use json_paths::JsonPaths;
pub(crate) use names::{KeyTarget, Names};
pub use variant::VariantTypes;

use crate::limits;
use crate::rowbinary::DataType;

/// The schema of the table at one time. A change of the table's columns publishes a new version.
#[derive(Debug)]
pub struct SchemaVersion {
    /// The plan that events are encoded by.
    pub plan: Arc<Plan>,
    /// The serialized columns, types and INSERT settings, stored in every block with rows of this
    /// version (invariant 3).
    pub frozen: Arc<[u8]>,
}

impl SchemaVersion {
    /// The version with this plan and these serialized columns and settings.
    pub fn new(plan: Plan, frozen: Vec<u8>) -> Self {
        Self { plan: Arc::new(plan), frozen: frozen.into() }
    }
}

/// One row of `DESCRIBE TABLE`: a column as ClickHouse describes it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ColumnDescription {
    /// The column's name.
    pub name: String,
    /// The column's type, spelled as by ClickHouse.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Empty, `DEFAULT`, `MATERIALIZED`, `ALIAS` or `EPHEMERAL`.
    pub default_kind: String,
    /// The expression of `default_kind`; empty without one.
    pub default_expression: String,
}

/// The source of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The event's field with the column's name; if the event lacks it, the column's default, or else the
    /// type's.
    Field,
    /// The client's address, taken from the connection.
    ClientAddress,
    /// The time at which the request's body was complete.
    ServerTime,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Field => "the event's field of this name",
            Self::ClientAddress => "the client's address",
            Self::ServerTime => "the server's clock",
        })
    }
}

/// One column of the INSERT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanColumn {
    /// The column's name.
    pub name: String,
    /// The column's type, spelled as by ClickHouse.
    pub type_name: String,
    /// The source of its values.
    pub source: Source,
    /// Its default expression, if it has one and clients fill it. Then a byte precedes each value in a row:
    /// 1 for the default, and the value behind it is not used.
    pub default: Option<ColumnDefault>,
}

/// The default expression of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefault {
    /// The expression, as ClickHouse wrote it. It may name other columns.
    pub expression: String,
    /// True for an EPHEMERAL column, whose values are not stored: the expressions of others name it.
    pub ephemeral: bool,
}

/// A column that clients fill.
#[derive(Clone, Debug)]
pub struct Field {
    /// The column's name, shared with the errors that name it.
    pub name: std::sync::Arc<str>,
    /// The column's type, spelled as by ClickHouse, for messages.
    pub type_name: Box<str>,
    /// The parsed type.
    pub cell: Cell,
    /// Bytes of 0 in front of a value that is not null: one for a default expression, and one for
    /// `Nullable`.
    pub lead: u8,
    /// The bytes of an event without a value for this field.
    pub absent: Box<Absent>,
}

/// The bytes of an event without a value for a field.
#[derive(Clone, Debug)]
pub struct Absent {
    /// If the event lacks the field.
    pub missing: Box<[u8]>,
    /// If the field is `null`.
    pub null: Box<[u8]>,
}

impl Field {
    fn new(name: &str, type_name: &str, cell: Cell, has_default: bool) -> Self {
        let (missing, null) = match (has_default, cell.nullable) {
            (false, _) => (cell.null.to_vec(), cell.null.to_vec()),
            (true, false) => ([&[1], &*cell.null].concat(), [&[1], &*cell.null].concat()),
            (true, true) => ([&[1], &*cell.null].concat(), [&[0], &*cell.null].concat()),
        };
        let lead = u8::from(has_default) + u8::from(cell.nullable);
        let absent = Absent { missing: missing.into(), null: null.into() };
        Self { name: name.into(), type_name: type_name.into(), cell, lead, absent: Box::new(absent) }
    }
}

/// Which addresses are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4 alone: every listener has an IPv4 address, and no proxy says who its clients are; or none.
    Ipv4,
    /// IPv6 as well.
    Any,
    /// Text in their place: `--client-ip hashed`.
    Hashed,
}

/// A column that the server fills.
#[derive(Clone, Debug)]
pub struct ServerColumn {
    /// [`Source::ClientAddress`] or [`Source::ServerTime`].
    pub source: Source,
    /// The parsed type, without `Nullable` and `LowCardinality`.
    pub column_type: ColumnType,
    /// True for `Nullable`: a byte precedes the value, 1 for NULL.
    pub nullable: bool,
}

/// The compiled schema of a table: the type of each column and the source of its values.
#[derive(Debug)]
pub struct Plan {
    columns: Vec<PlanColumn>,
    fields: Vec<Field>,
    /// `server_runs[i]` are the server-filled columns directly before field `i`; the last run is
    /// after the last field. So there is one run more than there are fields.
    server_runs: Vec<Vec<ServerColumn>>,
    names: Names,
    /// See [`Plan::unfillable`].
    unfillable: Vec<String>,
}

impl Plan {
    /// The plan of a table whose columns are not known: no event is encoded by it.
    pub fn none() -> Self {
        Self {
            columns: Vec::new(),
            fields: Vec::new(),
            server_runs: vec![Vec::new()],
            names: Names::default(),
            unfillable: Vec::new(),
        }
    }

    /// Compiles the columns of `DESCRIBE TABLE`.
    ///
    /// `server_timezone` is ClickHouse's answer to `SELECT timezone()`: the time zone of a column
    /// whose type names none. MATERIALIZED and ALIAS columns are not part of an INSERT and are left out.
    ///
    /// # Errors
    ///
    /// The first column that can't be filled, with the reason.
    pub fn compile(columns: &[ColumnDescription], server_timezone: &str) -> Result<Self, SchemaError> {
        let mut plan = Self::none();
        for column in columns {
            match column.default_kind.as_str() {
                "" | "DEFAULT" | "EPHEMERAL" => plan.add(column, server_timezone)?,
                "MATERIALIZED" | "ALIAS" => {}
                default_kind => {
                    return Err(SchemaError::UnknownDefault {
                        column: column.name.clone(),
                        default_kind: default_kind.to_owned(),
                    });
                }
            }
        }
        if plan.columns.is_empty() {
            return Err(SchemaError::NoColumns);
        }
        if plan.columns.len() > limits::COLUMNS_MAX {
            return Err(SchemaError::TooManyColumns(plan.columns.len()));
        }
        let names = plan.columns.iter().scan(0u16, |next_field, column| {
            let target = if column.source == Source::Field {
                *next_field += 1;
                KeyTarget::Field(*next_field - 1)
            } else {
                KeyTarget::Server
            };
            Some((column.name.as_str(), target))
        });
        plan.names = Names::new(names);
        Ok(plan)
    }

    /// The columns of the INSERT, in order.
    pub fn columns(&self) -> &[PlanColumn] {
        &self.columns
    }

    /// The columns that no client can fill, because their values are states of aggregate functions. They are
    /// not part of an INSERT, and get their defaults.
    pub fn unfillable(&self) -> &[String] {
        &self.unfillable
    }

    /// The columns that a client fills, in the table's order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Checks that `name`, the column of `--dedup-field`, is one that clients fill.
    ///
    /// # Errors
    ///
    /// When the table has no such column, or the server fills it.
    pub fn require_field(&self, name: &str) -> Result<(), SchemaError> {
        let found = self.fields.iter().any(|field| *field.name == *name);
        if found { Ok(()) } else { Err(SchemaError::NoDedupField(name.to_owned())) }
    }

    /// Makes sure that the server can always write the client's address whatever clients there are:
    /// an IPv4 column that is not Nullable has no value for an IPv6 client, and only a String for a hash.
    ///
    /// # Errors
    ///
    /// Names the column.
    pub fn require_room_for(&self, addresses: Addresses) -> Result<(), SchemaError> {
        let is_narrow = |column: &ServerColumn| match addresses {
            Addresses::Ipv4 => false,
            Addresses::Any => column.column_type == ColumnType::Ipv4 && !column.nullable,
            Addresses::Hashed => column.column_type != ColumnType::String,
        };
        let mut server_columns = self.server_runs.iter().flatten();
        if !server_columns.any(|column| column.source == Source::ClientAddress && is_narrow(column)) {
            return Ok(());
        }
        let columns = self.columns.iter().filter(|column| column.source == Source::ClientAddress);
        let named = columns.map(|column| column.name.clone()).next().unwrap_or_default();
        Err(match addresses {
            Addresses::Hashed => SchemaError::HashedAddress(named),
            Addresses::Ipv4 | Addresses::Any => SchemaError::NarrowAddress(named),
        })
    }

    /// The server-filled columns in runs: one run before each field, and one after the last field. A
    /// run may be empty.
    pub fn server_runs(&self) -> &[Vec<ServerColumn>] {
        &self.server_runs
    }

    /// The header of `FORMAT RowBinaryWithNamesAndTypes` for this plan.
    ///
    /// # Errors
    ///
    /// Never in practice: the header is written to memory.
    pub fn rowbinary_header(&self) -> Result<Vec<u8>, SchemaError> {
        let pairs: Vec<(&str, &str)> =
            self.columns.iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
        rowbinary_header(&pairs)
    }

    /// The field that a key belongs to.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        self.names.target(key)
    }

    fn add(&mut self, column: &ColumnDescription, zone: &str) -> Result<(), SchemaError> {
        let unsupported = |reason: String| SchemaError::UnsupportedType {
            column: column.name.clone(),
            type_name: column.type_name.clone(),
            reason,
        };
        let data_type = DataType::parse(&column.type_name).map_err(unsupported)?;
        if data_type == DataType::AggregateFunction {
            self.unfillable.push(column.name.clone());
            return Ok(());
        }
        let cell = Cell::compile(&data_type, zone).map_err(unsupported)?;
        let source = source_of(&column.name, &cell.column_type);
        let mut default = None;
        match source {
            Source::Field => {
                default = (!column.default_kind.is_empty()).then(|| ColumnDefault {
                    expression: column.default_expression.clone(),
                    ephemeral: column.default_kind == "EPHEMERAL",
                });
                self.fields.push(Field::new(&column.name, &column.type_name, cell, default.is_some()));
                self.server_runs.push(Vec::new());
            }
            Source::ClientAddress | Source::ServerTime => {
                let Cell { column_type, nullable, .. } = cell;
                if let Some(run) = self.server_runs.last_mut() {
                    run.push(ServerColumn { source, column_type, nullable });
                }
            }
        }
        let (name, type_name) = (column.name.clone(), column.type_name.clone());
        self.columns.push(PlanColumn { name, type_name, source, default });
        Ok(())
    }
}

/// True for a type of times without a zone of their own: those of a text without an offset are meant
/// in the server's. A Dynamic may hold such times.
pub(crate) fn depends_on_timezone(type_name: &str) -> bool {
    if type_name.contains("Dynamic") {
        return true;
    }
    let times = type_name.match_indices("DateTime").filter_map(|(at, _)| type_name.get(at..));
    // Its arguments, if it has any, end with the first parenthesis: a zone's name has none.
    times.into_iter().any(|time| time.split(')').next().is_none_or(|time| !time.contains('\'')))
}

/// The server owns a column by its name, if the type can hold what it has to say. The case of the
/// name does not count: a key of another case would fill the column.
fn source_of(name: &str, column_type: &ColumnType) -> Source {
    match (name.to_ascii_lowercase().as_str(), column_type) {
        ("ip", ColumnType::String | ColumnType::Ipv4 | ColumnType::Ipv6) => Source::ClientAddress,
        ("server_time", ColumnType::DateTime(_) | ColumnType::DateTime64 { .. }) => Source::ServerTime,
        _ => Source::Field,
    }
}

/// The header of `FORMAT RowBinaryWithNamesAndTypes`: the number of columns in LEB128, then all names,
/// then all types, each a String value
/// (<https://clickhouse.com/docs/interfaces/formats/RowBinaryWithNamesAndTypes>).
///
/// The types are sent as ClickHouse spelled them. Parsing and printing them would change an enum
/// whose names contain quotes, and every INSERT would fail.
pub(crate) fn rowbinary_header(columns: &[(&str, &str)]) -> Result<Vec<u8>, SchemaError> {
    let mut header = Vec::new();
    let names = columns.iter().map(|(name, _)| name);
    let types = columns.iter().map(|(_, type_name)| type_name);
    write_uvarint(columns.len() as u64, &mut header)
        .and_then(|()| names.chain(types).try_for_each(|text| write_string(text, &mut header)))
        .map_err(|error| SchemaError::Header(error.to_string()))?;
    Ok(header)
}

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
                write!(f, "column `{column}` holds addresses, and --client-ip hashed stores text: make it a String")
            }
            Self::Header(reason) => write!(f, "the columns can't be written as a header: {reason}"),
        }
    }
}

impl std::error::Error for SchemaError {}

#[cfg(test)]
mod tests;
