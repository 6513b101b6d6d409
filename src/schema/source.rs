//! Where a column gets its values from: as the mapping says, else by its name.

use std::fmt;

use super::mapping::{AddressKind, ColumnSource, Mapping, RequestInput, UnknownFields};
use super::{Cell, ColumnDescription, ColumnType, SchemaError};

/// The source of a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The event's field with the column's name; if the event lacks it, the column's default, or else the
    /// type's.
    Field,
    /// The first of these fields and paths that the event has.
    Fields(Box<[Box<str>]>),
    /// The whole line.
    Line,
    /// The fields that no column takes, as one object.
    Collected,
    /// The client's address, taken from the connection.
    ClientAddress(AddressKind),
    /// The time at which the request's body was complete.
    ServerTime,
    /// The same value for each event, as JSON.
    Value(Box<str>),
    /// Something of the request's head: its place in [`Mapping::request_inputs`], and what it is.
    Request(u16, RequestInput),
}

impl Source {
    /// True if the values differ from line to line.
    pub(super) fn is_of_the_line(&self) -> bool {
        matches!(self, Self::Field | Self::Fields(_) | Self::Line | Self::Collected)
    }

    /// True for the client's address and the server's time.
    pub(super) fn is_of_the_server(&self) -> bool {
        matches!(self, Self::ClientAddress(_) | Self::ServerTime)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => f.write_str("the event's field of this name"),
            Self::Fields(names) => match &**names {
                [name] => write!(f, "the event's field {name}"),
                names => write!(f, "the first of the event's fields {}", names.join(", ")),
            },
            Self::Line => f.write_str("the whole line"),
            Self::Collected => f.write_str("the fields that no column takes"),
            Self::ClientAddress(AddressKind::Usual) => f.write_str("the client's address"),
            Self::ClientAddress(AddressKind::Full) => f.write_str("the client's address in full"),
            Self::ClientAddress(AddressKind::Truncated) => f.write_str("the client's address, truncated"),
            Self::ClientAddress(AddressKind::Hashed) => f.write_str("the client's address, hashed"),
            Self::ClientAddress(AddressKind::None) => f.write_str("no address"),
            Self::ServerTime => f.write_str("the server's clock"),
            Self::Value(value) => write!(f, "the value {value}"),
            Self::Request(_, input) => input.fmt(f),
        }
    }
}

/// True for the names of the columns that the server fills without a mapping. The case of the name does not
/// count: a key of another case would fill the column.
pub fn is_servers_own(name: &str) -> bool {
    name.eq_ignore_ascii_case("ip") || name.eq_ignore_ascii_case("server_time")
}

/// The source of a column.
///
/// # Errors
///
/// If the mapping says what the column's type can't hold.
pub(super) fn of(
    column: &ColumnDescription,
    cell: &Cell,
    mapping: &Mapping,
    inputs: &[RequestInput],
) -> Result<Source, SchemaError> {
    let check = |fits: bool, reason: &str| {
        let refused = || SchemaError::Unmappable {
            column: column.name.clone(),
            type_name: column.type_name.clone(),
            reason: reason.to_owned(),
        };
        if fits { Ok(()) } else { Err(refused()) }
    };
    let column_type = &cell.column_type;
    let is_of_times = matches!(column_type, ColumnType::DateTime(_) | ColumnType::DateTime64 { .. });
    let mapped = mapping.columns.get(&column.name);
    if mapping.unknown_fields == UnknownFields::Collect(column.name.clone()) {
        check(mapped.is_none(), "collects the unknown fields, so it has no other source")?;
        check(is_collection(cell), "must be a String, a Map(String, String) or a JSON to collect the unknown fields")?;
        return Ok(Source::Collected);
    }
    Ok(match mapped {
        None => by_name(&column.name),
        Some(ColumnSource::Fields { names, unit }) => {
            check(
                unit.is_none() || is_of_times,
                "takes no `unit`: only a DateTime or DateTime64 has numbers with a unit",
            )?;
            Source::Fields(names.iter().map(|name| name.as_str().into()).collect())
        }
        Some(ColumnSource::Value(value)) => Source::Value(value.as_str().into()),
        Some(ColumnSource::Request(input)) => {
            check(!holds_values(column_type), "holds no text, which a request's head is")?;
            let place = inputs.iter().position(|known| known == input).unwrap_or_default();
            Source::Request(place as u16, input.clone())
        }
        Some(ColumnSource::ClientAddress(kind)) => {
            let holds_addresses = matches!(column_type, ColumnType::String | ColumnType::Ipv4 | ColumnType::Ipv6);
            check(holds_addresses, "must be a String, an IPv4 or an IPv6 to hold the client's address")?;
            Source::ClientAddress(*kind)
        }
        Some(ColumnSource::ServerTime) => {
            check(is_of_times, "must be a DateTime or a DateTime64 to hold the server's time")?;
            Source::ServerTime
        }
        Some(ColumnSource::Line) => {
            let holds_lines = matches!(column_type, ColumnType::String | ColumnType::Json(_));
            check(holds_lines, "must be a String or a JSON to hold the whole line")?;
            Source::Line
        }
    })
}

/// Why a column whose name makes it the server's can't hold what the server has to say.
pub(super) fn unfit_for_the_server(name: &str, column_type: &ColumnType) -> Option<String> {
    let (what, fits) = match by_name(name) {
        Source::ClientAddress(_) => ("the client's address", holds_address(column_type)),
        Source::ServerTime => ("the server's time", holds_time(column_type)),
        _ => return None,
    };
    let reason = || format!("only the server fills a column of this name, and the type does not hold {what}");
    (!fits).then(reason)
}

fn by_name(name: &str) -> Source {
    match name.to_ascii_lowercase().as_str() {
        "ip" => Source::ClientAddress(AddressKind::Usual),
        "server_time" => Source::ServerTime,
        _ => Source::Field,
    }
}

/// The most bytes of an address's text, and those of a time's.
const ADDRESS_TEXT: usize = 45;
const TIME_TEXT: usize = 24;

fn holds_address(column_type: &ColumnType) -> bool {
    matches!(column_type, ColumnType::Ipv4 | ColumnType::Ipv6) || holds_text(column_type, ADDRESS_TEXT)
}

fn holds_time(column_type: &ColumnType) -> bool {
    use ColumnType as T;
    match column_type {
        T::Date | T::Date32 | T::DateTime(_) | T::DateTime64 { .. } => true,
        // The seconds of now need four bytes.
        T::Signed(width) | T::Unsigned(width) => *width >= 4,
        T::WideSigned(_) | T::WideUnsigned(_) | T::Float64 => true,
        T::Decimal { precision, scale, .. } => precision.saturating_sub(*scale) >= 10,
        _ => holds_text(column_type, TIME_TEXT),
    }
}

fn holds_text(column_type: &ColumnType, bytes: usize) -> bool {
    match column_type {
        ColumnType::String | ColumnType::Variant(_) | ColumnType::Dynamic(_) => true,
        ColumnType::FixedString(len) => *len >= bytes,
        _ => false,
    }
}

/// True for a type that takes any object.
fn is_collection(cell: &Cell) -> bool {
    match &cell.column_type {
        ColumnType::String | ColumnType::Json(_) => true,
        ColumnType::Map(entry) => entry.iter().all(|cell| cell.column_type == ColumnType::String),
        _ => false,
    }
}

/// True for a type whose values are arrays or objects.
fn holds_values(column_type: &ColumnType) -> bool {
    matches!(column_type, ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Tuple(_) | ColumnType::Json(_))
}
