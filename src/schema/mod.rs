//! The columns of a table, compiled into the plan that the row encoder follows.
//!
//! The table is the schema: an event has no other definition than the answer of `DESCRIBE TABLE`.
//! [`Plan::compile`] makes three things of it: the *columns* of the INSERT, in order, with the
//! source of each value; the *fields*, which are the columns that clients fill, with their parsed
//! types; and a hash table that finds a field by its key.
//!
//! The server fills two columns whatever a client sends: `ip` and `server_time`, if their types can
//! hold an address and a time. A client's fields of these names are skipped, so that a client can't forge
//! its address or the time. With a [`Mapping`] the configuration says which column gets what.
//!
//! Files in reading order: `column_type`, `variant`, `field`, `mapping` (the configuration's part), `source` (a
//! column's source, checked against its type), `paths` and `names` (from keys to columns), `differences`, `error`.

mod column_type;
mod differences;
mod error;
mod field;
mod json_paths;
mod mapping;
mod names;
mod paths;
mod source;
mod variant;

use std::sync::Arc;

use clickhouse_rowbinary::io::{write_string, write_uvarint};
use serde::{Deserialize, Serialize};

pub use column_type::{Cell, ColumnType, EnumElements, TupleElements, Zone};
pub use differences::Differences;
pub use error::SchemaError;
pub use field::{Absent, Field};
pub use json_paths::{JsonPaths, PathRules};
pub use mapping::{AddressKind, ColumnSource, Mapping, RequestInput, TimeUnit, UnknownFields, path_parts};
pub(crate) use names::KeyTarget;
pub(crate) use paths::{ObjectKeys, Taker};
pub use source::{Source, is_servers_own};
pub use variant::VariantTypes;

use paths::Paths;

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

/// What a ClickHouse server makes of values, beyond their types.
#[derive(Clone, Copy, Debug)]
pub struct Dialect<'a> {
    /// Its answer to `SELECT timezone()`: the time zone of a column whose type names none.
    pub timezone: &'a str,
    /// What its release takes as a value of a path that has a type in a JSON.
    pub path_rules: PathRules,
}

impl<'a> Dialect<'a> {
    /// That of a present server.
    pub const fn newest(timezone: &'a str) -> Self {
        Self { timezone, path_rules: PathRules::NEWEST }
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

/// A column that the server fills, or a request's head.
#[derive(Clone, Debug)]
pub struct ServerColumn {
    /// Any source but fields of the line.
    pub source: Source,
    /// The column.
    pub field: Field,
}

/// What the plan does with fields that no column takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unknown {
    #[default]
    Skip,
    Reject,
    /// The field that they are collected in.
    Collect(u16),
}

/// A column that no client can fill. It is not part of an INSERT, and gets its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfillable {
    /// The column's name.
    pub column: String,
    /// Why no value is read for it.
    pub reason: String,
}

/// The compiled schema of a table: the type of each column and the source of its values.
#[derive(Debug)]
pub struct Plan {
    columns: Vec<PlanColumn>,
    fields: Vec<Field>,
    /// `server_runs[i]` are the server-filled columns directly before field `i`; the last run is
    /// after the last field. So there is one run more than there are fields.
    server_runs: Vec<Vec<ServerColumn>>,
    paths: Paths,
    unknown: Unknown,
    /// The fields that get the whole line.
    lines: Vec<u16>,
    /// The fields without which a line is rejected.
    required: Vec<u16>,
    has_conditions: bool,
    /// See [`Plan::unfillable`].
    unfillable: Vec<Unfillable>,
}

impl Plan {
    /// The plan of a table whose columns are not known: no event is encoded by it.
    pub fn none() -> Self {
        Self {
            columns: Vec::new(),
            fields: Vec::new(),
            server_runs: vec![Vec::new()],
            paths: Paths::default(),
            unknown: Unknown::default(),
            lines: Vec::new(),
            required: Vec::new(),
            has_conditions: false,
            unfillable: Vec::new(),
        }
    }

    /// Compiles the columns of `DESCRIBE TABLE` of a present server, without a mapping.
    ///
    /// # Errors
    ///
    /// As [`Plan::compile_mapped`].
    pub fn compile(columns: &[ColumnDescription], timezone: &str) -> Result<Self, SchemaError> {
        Self::compile_mapped(columns, Dialect::newest(timezone), &Mapping::default())
    }

    /// Compiles the columns of `DESCRIBE TABLE`.
    ///
    /// MATERIALIZED and ALIAS columns are not part of an INSERT and are left out.
    ///
    /// # Errors
    ///
    /// The first column that can't be filled, or does not fit the mapping, with the reason.
    pub fn compile_mapped(
        columns: &[ColumnDescription],
        dialect: Dialect<'_>,
        mapping: &Mapping,
    ) -> Result<Self, SchemaError> {
        let mut plan = Self::none();
        let inputs = mapping.request_inputs();
        for column in columns {
            match column.default_kind.as_str() {
                "" | "DEFAULT" | "EPHEMERAL" => plan.add(column, dialect, mapping, &inputs)?,
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
        plan.require_all_of(mapping)?;
        plan.paths = plan.find_paths().ok_or(SchemaError::TooManyPaths)?;
        if mapping.unknown_fields == UnknownFields::Reject {
            plan.unknown = Unknown::Reject;
        }
        plan.has_conditions = plan.takes_every_object() || !plan.required.is_empty();
        Ok(plan)
    }

    /// Checks that every column that the mapping names is one that it can fill.
    fn require_all_of(&self, mapping: &Mapping) -> Result<(), SchemaError> {
        let collects = match &mapping.unknown_fields {
            UnknownFields::Collect(column) => Some(("unknown-fields", column)),
            UnknownFields::Skip | UnknownFields::Reject => None,
        };
        let columns = mapping.columns.keys().map(|column| ("columns", column));
        let required = mapping.required.iter().map(|column| ("required", column));
        for (key, column) in columns.chain(required).chain(collects) {
            if !self.columns.iter().any(|known| known.name == *column) {
                return Err(SchemaError::NoMappedColumn { key, column: column.clone() });
            }
        }
        Ok(())
    }

    fn find_paths(&self) -> Option<Paths> {
        let fields = self.columns.iter().filter_map(|column| match &column.source {
            Source::Field => Some(vec![column.name.as_str()]),
            Source::Fields(names) => Some(names.iter().map(|name| &**name).collect()),
            Source::Line | Source::Collected => Some(Vec::new()),
            _ => None,
        });
        let is_servers_own =
            |column: &&PlanColumn| source::is_servers_own(&column.name) && column.source.is_of_the_server();
        let server = self.columns.iter().filter(is_servers_own).map(|column| column.name.as_str());
        // No client fills one whose type can't hold what the server would write, either.
        let left = self.unfillable.iter().map(|left| left.column.as_str()).filter(|name| source::is_servers_own(name));
        Paths::new(fields, server.chain(left))
    }

    /// The columns of the INSERT, in order.
    pub fn columns(&self) -> &[PlanColumn] {
        &self.columns
    }

    /// The columns that no client can fill: states of aggregate functions, and types that are not known. They
    /// are not part of an INSERT, and get their defaults.
    pub fn unfillable(&self) -> &[Unfillable] {
        &self.unfillable
    }

    /// The columns that a client fills, in the table's order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The columns in which a bare number is a Unix time whose unit is guessed, also inside of a value.
    pub fn guessed_units(&self) -> impl Iterator<Item = &str> {
        let guesses = |field: &&Field| field.unit.is_none() && field.cell.column_type.holds_points_in_time();
        self.fields.iter().filter(guesses).map(|field| &*field.name)
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
    /// an IPv4 column that is not Nullable has no value for an IPv6 client, and neither it nor an IPv6 column for a hash.
    /// `usual` are the addresses in the form of `--client-ip`, `whole` those that are stored in full.
    ///
    /// # Errors
    ///
    /// Names the column.
    pub fn require_room_for(&self, usual: Addresses, whole: Addresses) -> Result<(), SchemaError> {
        for ServerColumn { source, field } in self.server_runs.iter().flatten() {
            let Source::ClientAddress(kind) = source else { continue };
            let addresses = match kind {
                AddressKind::Usual => usual,
                AddressKind::Full | AddressKind::Truncated => whole,
                AddressKind::Hashed => Addresses::Hashed,
                AddressKind::None => continue,
            };
            let Cell { column_type, nullable, .. } = &field.cell;
            let named = field.name.to_string();
            match addresses {
                Addresses::Any if *column_type == ColumnType::Ipv4 && !nullable => {
                    return Err(SchemaError::NarrowAddress(named));
                }
                Addresses::Hashed if matches!(column_type, ColumnType::Ipv4 | ColumnType::Ipv6) => {
                    return Err(SchemaError::HashedAddress(named));
                }
                Addresses::Ipv4 | Addresses::Any | Addresses::Hashed => {}
            }
        }
        Ok(())
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

    /// Where a key of a line leads.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        self.paths.target(key)
    }

    /// The nodes of the mapping, with the numbers of sources and of nested objects.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What becomes of fields that no column takes.
    #[inline]
    pub(crate) fn unknown(&self) -> Unknown {
        self.unknown
    }

    /// The fields that get the whole line.
    pub(crate) fn lines(&self) -> &[u16] {
        &self.lines
    }

    /// The fields without which a line is rejected.
    pub(crate) fn required(&self) -> &[u16] {
        &self.required
    }

    /// True if something is to be done at the end of a line whose fields are not all there.
    #[inline]
    pub(crate) fn has_conditions(&self) -> bool {
        self.has_conditions
    }

    /// True if some column gets another field than that of its name.
    pub(crate) fn is_mapped(&self) -> bool {
        self.columns.iter().any(|column| matches!(column.source, Source::Fields(_)))
    }

    /// True if every object says something: a column takes the line, or what no other column takes.
    pub(crate) fn takes_every_object(&self) -> bool {
        !self.lines.is_empty() || matches!(self.unknown, Unknown::Collect(_))
    }

    fn add(
        &mut self,
        column: &ColumnDescription,
        dialect: Dialect<'_>,
        mapping: &Mapping,
        inputs: &[RequestInput],
    ) -> Result<(), SchemaError> {
        let unsupported = |reason: String| SchemaError::UnsupportedType {
            column: column.name.clone(),
            type_name: column.type_name.clone(),
            reason,
        };
        let cell = DataType::parse(&column.type_name).and_then(|data_type| Cell::compile(&data_type, dialect));
        let cell = match cell {
            Ok(cell) => cell,
            Err(reason) if mapping.columns.contains_key(&column.name) => return Err(unsupported(reason)),
            Err(reason) => {
                self.unfillable.push(Unfillable { column: column.name.clone(), reason });
                return Ok(());
            }
        };
        let unfit = source::unfit_for_the_server(&column.name, &cell.column_type);
        if let Some(reason) = unfit.filter(|_| !mapping.gives(&column.name)) {
            self.unfillable.push(Unfillable { column: column.name.clone(), reason });
            return Ok(());
        }
        let source = source::of(column, &cell, mapping, inputs)?;
        // The two columns that are the server's own by their names have no other default.
        let has_default = !column.default_kind.is_empty()
            && (!source.is_of_the_server() || mapping.columns.contains_key(&column.name));
        let default = has_default.then(|| ColumnDefault {
            expression: column.default_expression.clone(),
            ephemeral: column.default_kind == "EPHEMERAL",
        });
        let mut field = Field::new(&column.name, &column.type_name, cell, has_default);
        field.is_required = mapping.required.contains(&column.name);
        if let Some(ColumnSource::Fields { unit, .. }) = mapping.columns.get(&column.name) {
            field.unit = *unit;
        }
        if source.is_of_the_line() {
            let index = self.fields.len() as u16;
            match source {
                Source::Line => self.lines.push(index),
                Source::Collected => self.unknown = Unknown::Collect(index),
                _ if field.is_required => self.required.push(index),
                _ => {}
            }
            field.index = index;
            self.fields.push(field);
            self.server_runs.push(Vec::new());
        } else if let Some(run) = self.server_runs.last_mut() {
            run.push(ServerColumn { source: source.clone(), field });
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

#[cfg(test)]
mod tests;
