//! The types of columns: what ClickHouse spells in `DESCRIBE TABLE`, as a tree.
//!
//! Only what decides about the bytes of a value, or about its meaning, is kept: a `Nested` is an Array
//! of Tuples, `Point` a Tuple, and `SimpleAggregateFunction(f, T)` is `T`, because their values have the
//! same bytes.

mod parse;

/// Levels of a type: the type of a column is level 1, that of an array's elements level 2. Every walk over
/// a value goes down by its type, so that this bounds its recursion. ClickHouse has no such limit; types
/// of tables have a few levels.
pub const TYPE_DEPTH_MAX: usize = 32;

/// A type of ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `String`
    String,
    /// `FixedString`, with its length in bytes
    FixedString(usize),
    /// `Int8` to `Int256`, with the width in bytes
    Signed(u8),
    /// `UInt8` to `UInt256`, with the width in bytes
    Unsigned(u8),
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
    /// `BFloat16`: the upper half of a `Float32`
    BFloat16,
    /// `Decimal`, whatever its width is called
    Decimal {
        /// Decimal digits, 1 to 76.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// `Bool`
    Bool,
    /// `UUID`
    Uuid,
    /// `Date`
    Date,
    /// `Date32`
    Date32,
    /// `DateTime`
    DateTime {
        /// The zone, if the type names one.
        zone: Option<String>,
    },
    /// `DateTime64`
    DateTime64 {
        /// Decimal digits of a second's fraction, 0 to 9.
        precision: u8,
        /// The zone, if the type names one.
        zone: Option<String>,
    },
    /// `Time`
    Time,
    /// `Time64`
    Time64 {
        /// Decimal digits of a second's fraction, 0 to 9.
        precision: u8,
    },
    /// `IPv4`
    Ipv4,
    /// `IPv6`
    Ipv6,
    /// `Enum8`: names and values
    Enum8(Vec<(String, i16)>),
    /// `Enum16`: names and values
    Enum16(Vec<(String, i16)>),
    /// `Nullable`
    Nullable(Box<Self>),
    /// `LowCardinality`
    LowCardinality(Box<Self>),
    /// `Array`, `Nested`, and the geo types that are arrays
    Array(Box<Self>),
    /// `Map`
    Map(Box<Self>, Box<Self>),
    /// `Tuple` and `Point`: the elements, each with its name if they have names
    Tuple(Vec<(Option<String>, Self)>),
    /// `Variant`, in the order of its types, which is that of the discriminators; `Geometry`
    Variant(Vec<Self>),
    /// `JSON`: its text, with `input_format_binary_read_json_as_string`
    Json {
        /// The paths with types of their own.
        paths: Vec<(String, Self)>,
    },
    /// `Dynamic`: each value has its type in front
    Dynamic,
    /// `AggregateFunction`: a state, whose bytes only ClickHouse understands
    AggregateFunction,
}

impl DataType {
    /// Parses a type, spelled as by ClickHouse.
    ///
    /// # Errors
    ///
    /// Why the type is not understood: an unknown name, a syntax error, or more than [`TYPE_DEPTH_MAX`]
    /// levels.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text)
    }

    /// `JSON` without paths of their own types.
    pub fn json() -> Self {
        Self::Json { paths: Vec::new() }
    }

    /// Bytes of the integer that holds a Decimal of this precision.
    pub fn decimal_width(precision: u8) -> u8 {
        match precision {
            ..=9 => 4,
            10..=18 => 8,
            19..=38 => 16,
            _ => 32,
        }
    }
}
