//! A table's columns, compiled into the plan that the row encoder follows.
//!
//! The table is the schema: what `DESCRIBE TABLE` says is all that is known about an event.
//! [`Plan::compile`] turns it into three things: the *columns* that an INSERT names, in order,
//! with where each one's value comes from; the *fields*, which are the columns that a client
//! fills, with their parsed types; and a table of names to find a field by its key.
//!
//! Two names belong to the server whatever a client sends: `ip` and `server_time`, where their
//! types can hold an address and a time. A client's fields of these names are skipped like
//! unknown ones, so that what a client says about itself is never stored as a fact.

mod differences;
mod kind;
mod names;

use std::fmt;
use std::sync::Arc;

use clickhouse_rowbinary::io::{write_string, write_uvarint};
use serde::{Deserialize, Serialize};

pub use differences::Differences;
pub use kind::{EnumElements, Kind, Zone};
pub(crate) use names::{KeyTarget, Names};

use crate::limits;
use crate::rowbinary::RowBuffer;

/// One state of the table: how events are encoded for it, and what their rows are stored with.
#[derive(Debug)]
pub struct SchemaVersion {
    /// How events become rows.
    pub plan: Arc<Plan>,
    /// The serialized target of such rows, written into every segment that holds them (invariant 3).
    pub frozen: Arc<[u8]>,
}

impl SchemaVersion {
    /// The version of this plan.
    pub fn new(plan: Plan, frozen: Vec<u8>) -> Self {
        Self { plan: Arc::new(plan), frozen: frozen.into() }
    }
}

/// One column of `DESCRIBE TABLE`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ColumnDescription {
    /// The column's name.
    pub name: String,
    /// Its type as ClickHouse writes it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Empty, `DEFAULT`, `MATERIALIZED`, `ALIAS` or `EPHEMERAL`.
    pub default_kind: String,
    /// The expression that belongs to `default_kind`.
    pub default_expression: String,
}

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The field of the column's name, else the type's default.
    Field,
    /// The client's address, as the connection or a trusted proxy gives it.
    ClientAddress,
    /// The server's clock when the body had been read.
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
    /// Its type as ClickHouse writes it.
    pub type_name: String,
    /// Where its value comes from.
    pub source: Source,
}

/// A column whose value a client sends.
#[derive(Clone, Debug)]
pub struct Field {
    /// The column's name, shared with the errors that mention it.
    pub name: std::sync::Arc<str>,
    /// Its type as ClickHouse writes it, for messages.
    pub type_name: String,
    /// How its values are read and written.
    pub kind: Kind,
    /// `Nullable`: a byte, 1 for null, precedes the value.
    pub nullable: bool,
    /// The encoded cell of a row that lacks this field.
    pub default: Box<[u8]>,
}

/// A column that the server fills.
#[derive(Clone, Debug)]
pub struct ServerColumn {
    /// [`Source::ClientAddress`] or [`Source::ServerTime`].
    pub source: Source,
    /// The type it is written as.
    pub kind: Kind,
    /// `Nullable`: a byte precedes the value.
    pub nullable: bool,
}

/// The compiled plan of a table: what each column is and where its value comes from.
#[derive(Debug)]
pub struct Plan {
    columns: Vec<PlanColumn>,
    fields: Vec<Field>,
    /// `server_runs[i]` are the server's columns that stand directly before field `i`; the last
    /// run stands behind the last field. So there is always one run more than there are fields.
    server_runs: Vec<Vec<ServerColumn>>,
    names: Names,
}

impl Plan {
    /// Compiles the columns of `DESCRIBE TABLE`.
    ///
    /// `server_timezone` is what ClickHouse answers to `SELECT timezone()`: times without an
    /// offset, for a column without a zone of its own, are meant in it. Columns of the kinds
    /// MATERIALIZED, ALIAS and EPHEMERAL are not insertable and are left out.
    ///
    /// # Errors
    ///
    /// The first column that can't be filled, with its name and what is supported.
    pub fn compile(columns: &[ColumnDescription], server_timezone: &str) -> Result<Self, SchemaError> {
        let mut plan =
            Self { columns: Vec::new(), fields: Vec::new(), server_runs: vec![Vec::new()], names: Names::default() };
        for column in columns {
            match column.default_kind.as_str() {
                "" => plan.add(column, server_timezone)?,
                "MATERIALIZED" | "ALIAS" | "EPHEMERAL" => {}
                kind => {
                    return Err(SchemaError::DefaultExpression {
                        column: column.name.clone(),
                        kind: kind.to_owned(),
                        expression: column.default_expression.clone(),
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
                KeyTarget::Unknown
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

    /// The columns that a client fills, in the table's order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Makes sure that clients fill the column of `--dedup-field`.
    ///
    /// # Errors
    ///
    /// When the table has no such column, or the server fills it.
    pub fn require_field(&self, name: &str) -> Result<(), SchemaError> {
        let found = self.fields.iter().any(|field| *field.name == *name);
        if found { Ok(()) } else { Err(SchemaError::NoDedupField(name.to_owned())) }
    }

    /// The server's columns between the fields: one run before each field and one at the end.
    pub fn server_runs(&self) -> &[Vec<ServerColumn>] {
        &self.server_runs
    }

    /// Names and types as the header of `FORMAT RowBinaryWithNamesAndTypes`.
    ///
    /// # Errors
    ///
    /// None that can happen: nothing is written but memory.
    pub fn rowbinary_header(&self) -> Result<Vec<u8>, SchemaError> {
        let pairs: Vec<(&str, &str)> =
            self.columns.iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
        rowbinary_header(&pairs)
    }

    /// Which field a key belongs to.
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
        let described =
            clickhouse_rowbinary::parse_type_desc(&column.type_name).map_err(|error| unsupported(error.to_string()))?;
        let (kind, nullable) = Kind::compile(&described, zone).map_err(unsupported)?;
        let source = source_of(&column.name, &kind);
        match source {
            Source::Field => {
                let mut default = RowBuffer::default();
                if nullable {
                    default.put([1]);
                } else {
                    kind.put_default(&mut default);
                }
                self.fields.push(Field {
                    name: column.name.as_str().into(),
                    type_name: column.type_name.clone(),
                    kind,
                    nullable,
                    default: default.written().into(),
                });
                self.server_runs.push(Vec::new());
            }
            Source::ClientAddress | Source::ServerTime => {
                if let Some(run) = self.server_runs.last_mut() {
                    run.push(ServerColumn { source, kind, nullable });
                }
            }
        }
        self.columns.push(PlanColumn { name: column.name.clone(), type_name: column.type_name.clone(), source });
        Ok(())
    }
}

/// The server owns a column by its name, if the type can hold what it has to say.
fn source_of(name: &str, kind: &Kind) -> Source {
    match (name, kind) {
        ("ip", Kind::Text | Kind::Ipv4 | Kind::Ipv6) => Source::ClientAddress,
        ("server_time", Kind::DateTime(_) | Kind::DateTime64 { .. }) => Source::ServerTime,
        _ => Source::Field,
    }
}

/// The header of `FORMAT RowBinaryWithNamesAndTypes`: the number of columns, the names, the types.
///
/// The types go out as ClickHouse wrote them, not parsed and written again: an enum whose names
/// have quotes in them would not come through that unchanged, and every insert would fail.
pub(crate) fn rowbinary_header(columns: &[(&str, &str)]) -> Result<Vec<u8>, SchemaError> {
    let mut header = Vec::new();
    let names = columns.iter().map(|(name, _)| name);
    let types = columns.iter().map(|(_, type_name)| type_name);
    write_uvarint(columns.len() as u64, &mut header)
        .and_then(|()| names.chain(types).try_for_each(|text| write_string(text, &mut header)))
        .map_err(|error| SchemaError::Header(error.to_string()))?;
    Ok(header)
}

/// Why a table can't be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaError {
    /// Nothing to insert into.
    NoColumns,
    /// More than [`limits::COLUMNS_MAX`].
    TooManyColumns(usize),
    /// No column for `--dedup-field`.
    NoDedupField(String),
    /// A type that is not supported, or is not understood.
    UnsupportedType {
        /// The column's name.
        column: String,
        /// Its type as ClickHouse writes it.
        type_name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A column with a default expression.
    DefaultExpression {
        /// The column's name.
        column: String,
        /// `DEFAULT`, or a kind that is not known here.
        kind: String,
        /// The expression.
        expression: String,
    },
    /// The names and types can't be written as a header.
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
                kind::SUPPORTED
            ),
            Self::DefaultExpression { column, kind, expression } => write!(
                f,
                "column `{column}` has {kind} {expression}, and default expressions are not \
                 supported yet: remove it (ALTER TABLE … MODIFY COLUMN … REMOVE DEFAULT) or make \
                 the column MATERIALIZED"
            ),
            Self::Header(reason) => write!(f, "the columns can't be written as a header: {reason}"),
        }
    }
}

impl std::error::Error for SchemaError {}

#[cfg(test)]
mod tests;
