//! The types of columns, as far as the encoder distinguishes them.

use std::str::FromStr;

use super::Dialect;
use super::json_paths::JsonPaths;
use super::variant::VariantTypes;
use crate::rowbinary::{DataType, RowBuffer};

/// The supported types, for messages.
pub(super) const SUPPORTED: &str = "all integers and decimals, Float32, Float64, BFloat16, Bool, String, \
    FixedString, UUID, Date, Date32, DateTime, DateTime64, Time, Time64, IPv4, IPv6, Enum8, Enum16, the geo \
    types, JSON, Dynamic, and Nullable, LowCardinality, Array, Map, Tuple, Nested and Variant of them";

/// A place for values: the column itself, the elements of an array, the keys or values of a map, or an
/// element of a tuple. A column is a tree of cells, as deep as its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The type, without `Nullable` and `LowCardinality`: a `LowCardinality(T)` value is encoded as `T`.
    pub column_type: ColumnType,
    /// True for `Nullable`: a byte precedes the value, 1 for NULL.
    pub nullable: bool,
    /// The RowBinary value of `null`: NULL if the cell is `Nullable`, else the type's default.
    pub null: Box<[u8]>,
}

impl Cell {
    /// The cell of this type.
    ///
    /// # Errors
    ///
    /// Why no values of the type are read.
    pub(super) fn compile(data_type: &DataType, dialect: Dialect<'_>) -> Result<Self, String> {
        let inner = match data_type {
            DataType::LowCardinality(inner) => &**inner,
            other => other,
        };
        let (inner, nullable) = match inner {
            DataType::Nullable(inner) => (&**inner, true),
            other => (other, false),
        };
        let column_type = ColumnType::compile(inner, dialect)?;
        let mut null = RowBuffer::default();
        if nullable {
            null.put([1]);
        } else {
            column_type.put_default(&mut null);
        }
        Ok(Self { column_type, nullable, null: null.written().into() })
    }
}

/// The type of a cell without `Nullable` and `LowCardinality`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `String`
    String,
    /// `FixedString`, with its length in bytes
    FixedString(usize),
    /// `Int8` to `Int64`, with the width in bytes
    Signed(u8),
    /// `UInt8` to `UInt64`, with the width in bytes
    Unsigned(u8),
    /// `Int128` and `Int256`, with the width in bytes
    WideSigned(u8),
    /// `UInt128` and `UInt256`, with the width in bytes
    WideUnsigned(u8),
    /// `Decimal`: an integer of 10^-`scale`
    Decimal {
        /// Decimal digits, 1 to 76.
        precision: u8,
        /// Digits after the point.
        scale: u8,
        /// The width of the integer in bytes.
        width: u8,
    },
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
    /// `BFloat16`
    BFloat16,
    /// `Bool`
    Bool,
    /// `UUID`
    Uuid,
    /// `Date`: days since 1970-01-01, `u16`
    Date,
    /// `Date32`: days since 1970-01-01, `i32`
    Date32,
    /// `DateTime`: seconds since 1970, `u32`; with the time zone of text without an offset
    DateTime(Zone),
    /// `DateTime64`: ticks since 1970, `i64`
    DateTime64 {
        /// Decimal digits of a second's fraction, 0 to 9: a tick is 10^-precision seconds.
        precision: u8,
        /// The time zone of text without an offset.
        zone: Zone,
    },
    /// `Time`: seconds, `i32`
    Time,
    /// `Time64`: ticks, `i64`; with the decimal digits of a second's fraction, 0 to 9
    Time64(u8),
    /// `IPv4`
    Ipv4,
    /// `IPv6`
    Ipv6,
    /// `Enum8`
    Enum8(EnumElements),
    /// `Enum16`
    Enum16(EnumElements),
    /// `Array`: the number of elements, and the elements
    Array(Box<Cell>),
    /// `Map`: the number of entries, and key and value of each
    Map(Box<[Cell; 2]>),
    /// `Tuple`: its elements in order
    Tuple(TupleElements),
    /// `Variant`: the index of a type, and a value of it
    Variant(VariantTypes),
    /// `JSON`: its text, with the paths that have types of their own
    Json(JsonPaths),
    /// `Dynamic`: the type of the value, and the value; with the time zone of text without an offset
    Dynamic(Zone),
}

impl ColumnType {
    /// True for a DateTime or DateTime64, and for a type that has one inside. Recurses by the levels of the type.
    pub(super) fn holds_points_in_time(&self) -> bool {
        let holds = |cell: &Cell| cell.column_type.holds_points_in_time();
        match self {
            Self::DateTime(_) | Self::DateTime64 { .. } => true,
            Self::Array(element) => holds(element),
            Self::Map(entry) => entry.iter().any(holds),
            Self::Tuple(elements) => elements.cells.iter().any(holds),
            Self::Variant(types) => types.in_order().any(|(_, cell)| holds(cell)),
            _ => false,
        }
    }

    /// The type; or why it is not supported.
    fn compile(data_type: &DataType, dialect: Dialect<'_>) -> Result<Self, String> {
        let zone_of = |zone: &Option<String>| Zone::parse(zone.as_deref().unwrap_or(dialect.timezone));
        Ok(match data_type {
            DataType::String => Self::String,
            DataType::FixedString(length) => Self::FixedString(*length),
            DataType::Signed(width @ ..=8) => Self::Signed(*width),
            DataType::Signed(width) => Self::WideSigned(*width),
            DataType::Unsigned(width @ ..=8) => Self::Unsigned(*width),
            DataType::Unsigned(width) => Self::WideUnsigned(*width),
            DataType::Decimal { precision, scale } => {
                Self::Decimal { precision: *precision, scale: *scale, width: DataType::decimal_width(*precision) }
            }
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::BFloat16 => Self::BFloat16,
            DataType::Bool => Self::Bool,
            DataType::Uuid => Self::Uuid,
            DataType::Date => Self::Date,
            DataType::Date32 => Self::Date32,
            DataType::DateTime { zone } => Self::DateTime(zone_of(zone)?),
            DataType::DateTime64 { precision, zone } => {
                Self::DateTime64 { precision: *precision, zone: zone_of(zone)? }
            }
            DataType::Time => Self::Time,
            DataType::Time64 { precision } => Self::Time64(*precision),
            DataType::Ipv4 => Self::Ipv4,
            DataType::Ipv6 => Self::Ipv6,
            DataType::Enum8(elements) => Self::Enum8(EnumElements::new(elements)?),
            DataType::Enum16(elements) => Self::Enum16(EnumElements::new(elements)?),
            DataType::Array(inner) => Self::Array(Box::new(Cell::compile(inner, dialect)?)),
            DataType::Map(key, value) => {
                Self::Map(Box::new([Cell::compile(key, dialect)?, Cell::compile(value, dialect)?]))
            }
            DataType::Tuple(elements) => Self::Tuple(TupleElements::compile(elements, dialect)?),
            DataType::Variant(types) => Self::Variant(VariantTypes::compile(types, dialect)?),
            DataType::Json { paths } => Self::Json(JsonPaths::compile(paths, dialect)?),
            DataType::Dynamic => Self::Dynamic(Zone::parse(dialect.timezone)?),
            DataType::Nullable(_) => return Err("Nullable of a wrapped type".to_owned()),
            DataType::LowCardinality(_) => return Err("LowCardinality of a wrapped type".to_owned()),
            DataType::AggregateFunction => {
                return Err("no client can send the state of an aggregate function".to_owned());
            }
        })
    }

    /// Writes ClickHouse's default value of the type: zero, nothing, 1970-01-01, or the smallest value of
    /// an enum.
    pub fn put_default(&self, out: &mut RowBuffer) {
        match self {
            Self::String | Self::Bool | Self::Array(_) | Self::Map(_) => out.put([0]),
            Self::FixedString(length) => out.put_zeros(*length),
            Self::Signed(width) | Self::Unsigned(width) => out.put_integer(0, *width),
            Self::WideSigned(width) | Self::WideUnsigned(width) | Self::Decimal { width, .. } => {
                out.put_zeros(usize::from(*width));
            }
            Self::Date | Self::BFloat16 => out.put([0; 2]),
            Self::Float32 | Self::Date32 | Self::DateTime(_) | Self::Time | Self::Ipv4 => out.put([0; 4]),
            Self::Float64 | Self::DateTime64 { .. } | Self::Time64(_) => out.put([0; 8]),
            Self::Uuid | Self::Ipv6 => out.put([0; 16]),
            Self::Enum8(elements) => out.put_integer(elements.smallest() as u64, 1),
            Self::Enum16(elements) => out.put_integer(elements.smallest() as u64, 2),
            Self::Variant(_) => out.put([u8::MAX]),
            Self::Dynamic(_) => out.put([crate::rowbinary::dynamic::NOTHING]),
            Self::Json(_) => out.put_string(b"{}"),
            Self::Tuple(elements) => elements.cells.iter().for_each(|cell| out.put_slice(&cell.null)),
        }
    }
}

/// The elements of a Tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TupleElements {
    /// The elements in order.
    pub cells: Box<[Cell]>,
    /// The names of the elements in order, and then their indexes by name; both are empty if the elements
    /// have no names.
    names: Box<[Box<str>]>,
    by_name: Box<[u16]>,
}

impl TupleElements {
    fn compile(elements: &[(Option<String>, DataType)], dialect: Dialect<'_>) -> Result<Self, String> {
        let last = u16::try_from(elements.len()).map_err(|_| "a Tuple with more than 65535 elements".to_owned())?;
        let cells: Result<Vec<Cell>, String> =
            elements.iter().map(|(_, element)| Cell::compile(element, dialect)).collect();
        let names: Vec<Box<str>> = elements.iter().filter_map(|(name, _)| name.as_deref().map(Box::from)).collect();
        let mut by_name: Vec<u16> = (0..last).take(names.len()).collect();
        by_name.sort_by_key(|index| names.get(usize::from(*index)));
        Ok(Self { cells: cells?.into(), names: names.into(), by_name: by_name.into() })
    }

    /// True if the elements have names. Such a Tuple is an object, or an array of all its elements.
    pub fn are_named(&self) -> bool {
        !self.names.is_empty()
    }

    /// The name of an element.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(|name| &**name)
    }

    /// The index of the element of this name. The case of letters counts, as in ClickHouse.
    pub fn index(&self, name: &[u8]) -> Option<usize> {
        let name_of = |index: &u16| self.name(usize::from(*index)).unwrap_or_default().as_bytes();
        let at = self.by_name.binary_search_by(|index| name_of(index).cmp(name)).ok()?;
        self.by_name.get(at).map(|index| usize::from(*index))
    }
}

/// The time zone of a time without an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// UTC, under any of its names. Conversion needs no zone rules.
    Utc,
    /// Any other zone of the IANA time zone database.
    Named(chrono_tz::Tz),
}

impl Zone {
    fn parse(name: &str) -> Result<Self, String> {
        match chrono_tz::Tz::from_str(name) {
            Ok(
                chrono_tz::Tz::UTC
                | chrono_tz::Tz::GMT
                | chrono_tz::Tz::UCT
                | chrono_tz::Tz::Zulu
                | chrono_tz::Tz::Universal
                | chrono_tz::Tz::Greenwich
                | chrono_tz::Tz::Etc__UTC
                | chrono_tz::Tz::Etc__UCT
                | chrono_tz::Tz::Etc__GMT
                | chrono_tz::Tz::Etc__Zulu
                | chrono_tz::Tz::Etc__Universal
                | chrono_tz::Tz::Etc__Greenwich,
            ) => Ok(Self::Utc),
            Ok(zone) => Ok(Self::Named(zone)),
            Err(_) => Err(format!("the time zone `{name}` is not known")),
        }
    }
}

/// The names and values of an enum type. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumElements {
    /// The elements, sorted by name.
    by_name: Vec<(Box<[u8]>, i16)>,
    /// The values, ascending.
    values: Vec<i16>,
}

impl EnumElements {
    fn new(elements: &[(String, i16)]) -> Result<Self, String> {
        let mut by_name: Vec<(Box<[u8]>, i16)> =
            elements.iter().map(|(name, value)| (name.as_bytes().into(), *value)).collect();
        by_name.sort();
        let mut values: Vec<i16> = by_name.iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        if values.is_empty() {
            return Err("an enum without elements".to_owned());
        }
        Ok(Self { by_name, values })
    }

    /// The value of the element `name`.
    pub fn value(&self, name: &[u8]) -> Option<i16> {
        let at = self.by_name.binary_search_by(|(element, _)| (**element).cmp(name)).ok()?;
        self.by_name.get(at).map(|(_, value)| *value)
    }

    /// True when an element has this value.
    pub fn has(&self, value: i16) -> bool {
        self.values.binary_search(&value).is_ok()
    }

    /// The smallest value, which is ClickHouse's default for the type.
    pub fn smallest(&self) -> i16 {
        self.values.first().copied().unwrap_or_default()
    }
}
