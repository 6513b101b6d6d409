//! The types of columns, as far as the encoder distinguishes them.

use std::str::FromStr;

use clickhouse_rowbinary::TypeDesc;

use crate::rowbinary::RowBuffer;

/// The supported types, for messages.
pub(super) const SUPPORTED: &str = "Int8 to Int64, UInt8 to UInt64, Float32, Float64, Bool, \
    String, FixedString, UUID, Date, Date32, DateTime, DateTime64, IPv4, IPv6, Enum8, Enum16, \
    and Nullable and LowCardinality of them";

/// The type of a column without `Nullable` and `LowCardinality`. `Nullable` is a flag of [`Field`];
/// a `LowCardinality(T)` value is encoded as `T`.
///
/// [`Field`]: super::Field
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
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
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
    /// `IPv4`
    Ipv4,
    /// `IPv6`
    Ipv6,
    /// `Enum8`
    Enum8(EnumElements),
    /// `Enum16`
    Enum16(EnumElements),
}

impl ColumnType {
    /// The type without its wrappers, and whether it is `Nullable`; or why it is not supported.
    pub(super) fn compile(described: &TypeDesc, zone: &str) -> Result<(Self, bool), String> {
        match described {
            TypeDesc::LowCardinality(inner) => match **inner {
                TypeDesc::LowCardinality(_) => Err("LowCardinality inside itself".to_owned()),
                _ => Self::compile(inner, zone),
            },
            TypeDesc::Nullable(inner) => match **inner {
                TypeDesc::Nullable(_) | TypeDesc::LowCardinality(_) => Err("Nullable of a wrapped type".to_owned()),
                _ => Ok((Self::plain(inner, zone)?, true)),
            },
            plain => Ok((Self::plain(plain, zone)?, false)),
        }
    }

    fn plain(described: &TypeDesc, server_zone: &str) -> Result<Self, String> {
        let zone_of = |zone: &Option<String>| Zone::parse(zone.as_deref().unwrap_or(server_zone));
        Ok(match described {
            TypeDesc::String => Self::String,
            TypeDesc::FixedString { length } => Self::FixedString(*length),
            TypeDesc::Int8 => Self::Signed(1),
            TypeDesc::Int16 => Self::Signed(2),
            TypeDesc::Int32 => Self::Signed(4),
            TypeDesc::Int64 => Self::Signed(8),
            TypeDesc::UInt8 => Self::Unsigned(1),
            TypeDesc::UInt16 => Self::Unsigned(2),
            TypeDesc::UInt32 => Self::Unsigned(4),
            TypeDesc::UInt64 => Self::Unsigned(8),
            TypeDesc::Float32 => Self::Float32,
            TypeDesc::Float64 => Self::Float64,
            TypeDesc::Bool => Self::Bool,
            TypeDesc::Uuid => Self::Uuid,
            TypeDesc::Date => Self::Date,
            TypeDesc::Date32 => Self::Date32,
            TypeDesc::DateTime { timezone } => Self::DateTime(zone_of(timezone)?),
            TypeDesc::DateTime64 { precision, timezone } => {
                if *precision > 9 {
                    return Err("more than 9 decimal places of a second".to_owned());
                }
                Self::DateTime64 { precision: *precision, zone: zone_of(timezone)? }
            }
            TypeDesc::Ipv4 => Self::Ipv4,
            TypeDesc::Ipv6 => Self::Ipv6,
            TypeDesc::Enum8(elements) => {
                Self::Enum8(EnumElements::new(elements.iter().map(|(name, value)| (name, i16::from(*value))))?)
            }
            TypeDesc::Enum16(elements) => {
                Self::Enum16(EnumElements::new(elements.iter().map(|(name, value)| (name, *value)))?)
            }
            other => return Err(format!("no values of {} are read", other.type_name())),
        })
    }

    /// Writes ClickHouse's default value of the type: zero, the empty string, 1970-01-01, or the
    /// smallest value of an enum.
    pub fn put_default(&self, out: &mut RowBuffer) {
        match self {
            Self::String | Self::Bool => out.put([0]),
            Self::FixedString(length) => out.put_zeros(*length),
            Self::Signed(width) | Self::Unsigned(width) => out.put_integer(0, *width),
            Self::Date => out.put([0; 2]),
            Self::Float32 | Self::Date32 | Self::DateTime(_) | Self::Ipv4 => out.put([0; 4]),
            Self::Float64 | Self::DateTime64 { .. } => out.put([0; 8]),
            Self::Uuid | Self::Ipv6 => out.put([0; 16]),
            Self::Enum8(elements) => out.put_integer(elements.smallest() as u64, 1),
            Self::Enum16(elements) => out.put_integer(elements.smallest() as u64, 2),
        }
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
    fn new<'a>(elements: impl Iterator<Item = (&'a String, i16)>) -> Result<Self, String> {
        let mut by_name: Vec<(Box<[u8]>, i16)> =
            elements.map(|(name, value)| (name.as_bytes().into(), value)).collect();
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
