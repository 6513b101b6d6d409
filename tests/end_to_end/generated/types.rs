//! Types of columns by chance, as ClickHouse allows them in each other, and how ClickHouse spells them.

use std::collections::BTreeSet;

use sluicegate::rowbinary::DataType;

use crate::support::Random;

/// The names of all types, without their numbers of bits.
pub const NAMES: [&str; 29] = [
    "String",
    "FixedString",
    "Int",
    "UInt",
    "Float32",
    "Float64",
    "BFloat16",
    "Decimal",
    "Bool",
    "UUID",
    "Date",
    "Date32",
    "DateTime",
    "DateTime64",
    "Time",
    "Time64",
    "IPv4",
    "IPv6",
    "Enum8",
    "Enum16",
    "Nullable",
    "LowCardinality",
    "Array",
    "Map",
    "Tuple",
    "Variant",
    "JSON",
    "Dynamic",
    "AggregateFunction",
];

/// Levels of a generated type, at most.
const DEPTH_MAX: usize = 4;

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];

/// The type of a column.
pub fn of_column(random: &mut Random) -> DataType {
    match random.below(20) {
        0 => DataType::LowCardinality(Box::new(maybe_nullable(random, in_dictionary))),
        1..5 => DataType::Nullable(Box::new(scalar(random))),
        5..11 => scalar(random),
        11 => enumeration(random, -5),
        12 => match random.below(5) {
            0 => DataType::AggregateFunction,
            1 => DataType::Dynamic,
            _ => json(random),
        },
        _ => composed(random, 1),
    }
}

/// The type of the elements of an array.
pub fn of_element(random: &mut Random) -> DataType {
    inner(random, 2)
}

/// The type of a part of a value.
fn inner(random: &mut Random, depth: usize) -> DataType {
    match random.below(if depth < DEPTH_MAX { 10 } else { 7 }) {
        0 => DataType::LowCardinality(Box::new(maybe_nullable(random, in_dictionary))),
        1..3 => DataType::Nullable(Box::new(scalar(random))),
        3..7 => scalar(random),
        _ => composed(random, depth),
    }
}

fn maybe_nullable(random: &mut Random, of: impl FnOnce(&mut Random) -> DataType) -> DataType {
    let is_nullable = random.one_in(2);
    let of = of(random);
    if is_nullable { DataType::Nullable(Box::new(of)) } else { of }
}

fn composed(random: &mut Random, depth: usize) -> DataType {
    let array = |inner| DataType::Array(Box::new(inner));
    match random.below(10) {
        0..3 => array(inner(random, depth + 1)),
        3..5 => {
            let (key, value) = (map_key(random), inner(random, depth + 1));
            DataType::Map(Box::new(key), Box::new(value))
        }
        5 => DataType::Tuple(elements(random, depth, false)),
        6 => DataType::Tuple(elements(random, depth, true)),
        // As of `Nested` that is not flattened.
        7 => array(DataType::Tuple(elements(random, depth + 1, true))),
        8 => variant(random, depth),
        _ => match random.below(4) {
            0 => json(random),
            1 => DataType::parse(["Point", "Ring", "Polygon"][random.below(3) as usize]).unwrap(),
            2 => DataType::Dynamic,
            _ => array(DataType::json()),
        },
    }
}

/// A JSON, with types for some of the paths that its values have.
fn json(random: &mut Random) -> DataType {
    let mut paths = Vec::new();
    for path in ["a", "b.c", "d e"] {
        if random.one_in(3) {
            let of = match random.below(5) {
                0 => DataType::Array(Box::new(scalar(random))),
                1 => DataType::Map(Box::new(DataType::String), Box::new(scalar(random))),
                2 => DataType::Tuple(elements(random, DEPTH_MAX, true)),
                _ => scalar(random),
            };
            // ClickHouse makes no such paths.
            if !spell(&of).contains("BFloat16") {
                paths.push((path.to_owned(), of));
            }
        }
    }
    DataType::Json { paths }
}

fn elements(random: &mut Random, depth: usize, are_named: bool) -> Vec<(Option<String>, DataType)> {
    const NAMES: [&str; 5] = ["a", "b", "long_name", "d e", "é"];
    let count = 1 + random.below(NAMES.len() as u64) as usize;
    let name = |index: usize| are_named.then(|| NAMES[index].to_owned());
    (0..count).map(|index| (name(index), inner(random, depth + 1))).collect()
}

fn variant(random: &mut Random, depth: usize) -> DataType {
    let mut types: Vec<DataType> = Vec::new();
    for _ in 0..2 + random.below(3) {
        types.push(match random.below(5) {
            0 if depth < DEPTH_MAX => DataType::Array(Box::new(scalar(random))),
            1 if depth < DEPTH_MAX => DataType::Map(Box::new(DataType::String), Box::new(scalar(random))),
            _ => scalar(random),
        });
    }
    // ClickHouse orders them by their names.
    types.sort_by_key(spell);
    types.dedup();
    DataType::Variant(types)
}

/// A type that may be the key of a Map.
fn map_key(random: &mut Random) -> DataType {
    match random.below(9) {
        0 => DataType::Unsigned(1 << random.below(4)),
        1 => DataType::Signed(1 << random.below(6)),
        2 => DataType::LowCardinality(Box::new(DataType::String)),
        3 => DataType::FixedString(4),
        4 => DataType::Uuid,
        5 => enumeration(random, 0),
        6 => DataType::Date,
        _ => DataType::String,
    }
}

/// A type that may stand in a LowCardinality.
fn in_dictionary(random: &mut Random) -> DataType {
    match random.below(7) {
        0 => DataType::FixedString(3),
        1 => DataType::Unsigned(1 << random.below(4)),
        2 => DataType::Date,
        3 => DataType::DateTime { zone: Some("UTC".to_owned()) },
        _ => DataType::String,
    }
}

/// A type without types inside.
fn scalar(random: &mut Random) -> DataType {
    let zone = |random: &mut Random| {
        let index = random.below(ZONES.len() as u64 + 1) as usize;
        ZONES.get(index).map(|zone| (*zone).to_owned())
    };
    match random.below(30) {
        0..4 => DataType::String,
        4 => DataType::FixedString(1 + random.below(12) as usize),
        5..8 => DataType::Signed(1 << random.below(6)),
        8..11 => DataType::Unsigned(1 << random.below(6)),
        11 => DataType::Float32,
        12..14 => DataType::Float64,
        14 => DataType::BFloat16,
        15 => DataType::Bool,
        16..18 => {
            let precision = [1, 5, 9, 10, 18, 19, 38, 39, 76][random.below(9) as usize];
            DataType::Decimal { precision, scale: random.below(u64::from(precision) + 1) as u8 }
        }
        18 => DataType::Uuid,
        19 => DataType::Date,
        20 => DataType::Date32,
        21..23 => DataType::DateTime { zone: zone(random) },
        23..25 => DataType::DateTime64 { precision: random.below(10) as u8, zone: zone(random) },
        25 => DataType::Time,
        26 => DataType::Time64 { precision: random.below(10) as u8 },
        27 => DataType::Ipv4,
        28 => DataType::Ipv6,
        _ => enumeration(random, 0),
    }
}

/// An Enum whose first value is `from`. ClickHouse puts 0 where an element of a Tuple is missing.
fn enumeration(random: &mut Random, from: i16) -> DataType {
    let names = ["one", "two", "it's", "5", "back\\slash", "zwölf", ""];
    let elements = |from: i16| {
        let of = |(index, name): (usize, &&str)| ((*name).to_owned(), from + 3 * index as i16);
        names.iter().enumerate().map(of).collect()
    };
    if random.one_in(2) { DataType::Enum8(elements(from)) } else { DataType::Enum16(elements(from * 200)) }
}

/// The type as ClickHouse spells it.
pub fn spell(data_type: &DataType) -> String {
    let zoned = |zone: &Option<String>| zone.as_ref().map(|zone| format!("'{zone}'"));
    match data_type {
        DataType::String => "String".to_owned(),
        DataType::FixedString(length) => format!("FixedString({length})"),
        DataType::Signed(width) => format!("Int{}", u16::from(*width) * 8),
        DataType::Unsigned(width) => format!("UInt{}", u16::from(*width) * 8),
        DataType::Float32 => "Float32".to_owned(),
        DataType::Float64 => "Float64".to_owned(),
        DataType::BFloat16 => "BFloat16".to_owned(),
        DataType::Decimal { precision, scale } => format!("Decimal({precision}, {scale})"),
        DataType::Bool => "Bool".to_owned(),
        DataType::Uuid => "UUID".to_owned(),
        DataType::Date => "Date".to_owned(),
        DataType::Date32 => "Date32".to_owned(),
        DataType::DateTime { zone } => match zoned(zone) {
            Some(zone) => format!("DateTime({zone})"),
            None => "DateTime".to_owned(),
        },
        DataType::DateTime64 { precision, zone } => match zoned(zone) {
            Some(zone) => format!("DateTime64({precision}, {zone})"),
            None => format!("DateTime64({precision})"),
        },
        DataType::Time => "Time".to_owned(),
        DataType::Time64 { precision } => format!("Time64({precision})"),
        DataType::Ipv4 => "IPv4".to_owned(),
        DataType::Ipv6 => "IPv6".to_owned(),
        DataType::Enum8(elements) => format!("Enum8({})", spell_enum(elements)),
        DataType::Enum16(elements) => format!("Enum16({})", spell_enum(elements)),
        DataType::Nullable(inner) => format!("Nullable({})", spell(inner)),
        DataType::LowCardinality(inner) => format!("LowCardinality({})", spell(inner)),
        DataType::Array(inner) => format!("Array({})", spell(inner)),
        DataType::Map(key, value) => format!("Map({}, {})", spell(key), spell(value)),
        DataType::Tuple(elements) => {
            let element = |(name, of): &(Option<String>, DataType)| match name {
                Some(name) => format!("`{name}` {}", spell(of)),
                None => spell(of),
            };
            format!("Tuple({})", elements.iter().map(element).collect::<Vec<_>>().join(", "))
        }
        DataType::Variant(types) => format!("Variant({})", types.iter().map(spell).collect::<Vec<_>>().join(", ")),
        DataType::Json { paths } if paths.is_empty() => "JSON".to_owned(),
        DataType::Json { paths } => {
            let path = |(path, of): &(String, DataType)| format!("`{path}` {}", spell(of));
            format!(
                "JSON(max_dynamic_paths=9, SKIP skipped, {})",
                paths.iter().map(path).collect::<Vec<_>>().join(", ")
            )
        }
        DataType::Dynamic => "Dynamic".to_owned(),
        DataType::AggregateFunction => "AggregateFunction(sum, UInt64)".to_owned(),
    }
}

fn spell_enum(elements: &[(String, i16)]) -> String {
    let element =
        |(name, value): &(String, i16)| format!("'{}' = {value}", name.replace('\\', "\\\\").replace('\'', "\\'"));
    elements.iter().map(element).collect::<Vec<_>>().join(", ")
}

/// Adds the names of the type and of its parts.
pub fn name_parts(data_type: &DataType, names: &mut BTreeSet<&'static str>) {
    let spelled = spell(data_type);
    let word = spelled.split('(').next().unwrap_or_default().trim_end_matches(|digit: char| digit.is_ascii_digit());
    let is_integer = matches!(data_type, DataType::Signed(_) | DataType::Unsigned(_));
    let word = if is_integer { word } else { spelled.split('(').next().unwrap_or_default() };
    names.insert(NAMES.into_iter().find(|name| *name == word).expect("every type is in the list"));
    match data_type {
        DataType::Nullable(inner) | DataType::LowCardinality(inner) | DataType::Array(inner) => {
            name_parts(inner, names)
        }
        DataType::Map(key, value) => [key, value].into_iter().for_each(|part| name_parts(part, names)),
        DataType::Tuple(elements) => elements.iter().for_each(|(_, part)| name_parts(part, names)),
        DataType::Variant(types) => types.iter().for_each(|part| name_parts(part, names)),
        DataType::Json { paths } => paths.iter().for_each(|(_, part)| name_parts(part, names)),
        _ => {}
    }
}
