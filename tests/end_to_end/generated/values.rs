//! Values for a type by chance, as JSON: good, borderline and bad ones.
//!
//! There is an arm for every type, so that a type without values does not compile.

use sluicegate::rowbinary::DataType;

use super::reasons::*;
use super::scalars::*;
use crate::support::Random;

/// Makes values, and notes why ClickHouse makes something else of them, or may.
pub struct Maker {
    random: Random,
    reasons: Vec<&'static str>,
}

impl Maker {
    pub fn new(random: Random) -> Self {
        Self { random, reasons: Vec::new() }
    }

    /// The line has a value that may be something else in ClickHouse.
    pub fn because(&mut self, reason: &'static str) {
        self.reasons.push(reason);
    }

    /// The reasons since the last call.
    pub fn take_reasons(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.reasons)
    }
}

impl std::ops::Deref for Maker {
    type Target = Random;

    fn deref(&self) -> &Random {
        &self.random
    }
}

impl std::ops::DerefMut for Maker {
    fn deref_mut(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// Values that any type may get.
const ANY: [&str; 20] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "5",
    "300",
    "1.5",
    "1e2",
    "\"\"",
    "\"5\"",
    "\"null\"",
    "\"x\"",
    "[]",
    "[1]",
    "[null]",
    "{}",
    "{\"a\":1}",
    "\"\\u0035\"",
];

/// A value that was not made for the type.
fn foreign(random: &mut Maker, data_type: &DataType) -> String {
    let json = pick(random, &ANY).to_owned();
    let holds = |is_it: fn(&DataType) -> bool| has(data_type, is_it);
    let (is_number, is_nested) = (json.parse::<f64>().is_ok(), json.starts_with(['[', '{']));
    let is_text = matches!(data_type, DataType::String | DataType::FixedString(_));
    if holds(|part| matches!(part, DataType::DateTime { .. } | DataType::DateTime64 { .. })) {
        if is_number || is_nested && json.contains('1') {
            random.because(UNIX_TIMES);
        } else if json.contains('5') {
            random.because(NO_YEAR);
        }
    }
    if json.contains("null") && holds(|part| matches!(part, DataType::Enum8(_) | DataType::Enum16(_))) {
        random.because(NULL_IN_ENUM);
    }
    if json.starts_with('{') && holds(|part| matches!(part, DataType::Json { paths } if !paths.is_empty())) {
        random.because(TYPED_PATH);
    }
    if is_nested && holds(|part| matches!(part, DataType::Dynamic)) {
        random.because(DYNAMIC);
    }
    match data_type {
        DataType::Signed(_) | DataType::Unsigned(_) if json == "1e2" => random.because(INTEGRAL),
        DataType::Signed(1) | DataType::Unsigned(1) if json == "300" => random.because(WRAPPED),
        DataType::Tuple(elements) if elements.len() == 1 && json == "[]" => random.because(EMPTY_TUPLE),
        DataType::Tuple(elements) if elements.iter().all(|(name, _)| name.is_some()) && json.starts_with('[') => {
            random.because(NAMED_TUPLE_AS_ARRAY);
        }
        _ if json.contains('\\') && !is_text => random.because(ESCAPED),
        _ => {}
    }
    json
}

/// A value for a column or a part of one; now and then one of another type.
pub fn value(random: &mut Maker, data_type: &DataType) -> String {
    if let DataType::Variant(types) = data_type {
        let holds = |is_it: fn(&DataType) -> bool| types.iter().any(|of| has(of, is_it));
        if holds(|part| matches!(part, DataType::Decimal { .. })) {
            random.because(VARIANT_OF_DECIMALS);
        }
        let is_time: fn(&DataType) -> bool = |part| {
            matches!(part, DataType::Date | DataType::Date32 | DataType::DateTime { .. } | DataType::DateTime64 { .. })
        };
        if holds(is_time) {
            random.because(VARIANT_OF_TIMES);
        }
    }
    if random.one_in(60) && !matches!(data_type, DataType::Nullable(_) | DataType::LowCardinality(_)) {
        return foreign(random, data_type);
    }
    match data_type {
        DataType::String => text(random),
        DataType::FixedString(length) => {
            let longer = u64::from(random.one_in(10));
            let length = random.below(*length as u64 + 1 + longer) as usize;
            quoted(&"abcdefghijklmnopqrstuvwxyz"[..length.min(26)])
        }
        DataType::Signed(width) => integer(random, *width, true),
        DataType::Unsigned(width) => integer(random, *width, false),
        DataType::Float32 | DataType::BFloat16 => float(random, 3.389e38),
        DataType::Float64 => float(random, f64::INFINITY),
        DataType::Decimal { precision, scale } => decimal(random, *precision, *scale),
        DataType::Bool => pick(random, &["true", "false", "1", "0", "\"true\"", "\"false\"", "2"]).to_owned(),
        DataType::Uuid => uuid(random),
        DataType::Date => date(random, 1970, 2149),
        DataType::Date32 => date(random, 1900, 2299),
        DataType::DateTime { .. } => moment(random, 1970, 2106, 0),
        DataType::DateTime64 { precision, .. } => moment(random, 1900, 2261, *precision),
        DataType::Time => time_of_day(random, 0),
        DataType::Time64 { precision } => time_of_day(random, *precision),
        DataType::Ipv4 => quoted(&ipv4(random)),
        DataType::Ipv6 => ipv6(random),
        DataType::Enum8(elements) | DataType::Enum16(elements) => enumeration(random, elements),
        DataType::Nullable(inner) | DataType::LowCardinality(inner) => {
            if random.one_in(6) {
                "null".to_owned()
            } else {
                value(random, inner)
            }
        }
        DataType::Array(inner) => {
            let count = random.below(4);
            array(random, inner, count as usize)
        }
        DataType::Map(key, inner) => map(random, key, inner),
        DataType::Tuple(elements) => tuple(random, elements),
        DataType::Variant(types) => {
            let of = &types[random.below(types.len() as u64) as usize];
            let json = value(random, of);
            if json.contains('\\') {
                random.because(ESCAPED);
            }
            if json.starts_with(['[', '{']) && json.contains('e') {
                random.because(INTEGRAL);
                random.because(WRAPPED);
            }
            if json.starts_with(['[', '{']) && ends_in_zeros(&json) {
                random.because(INTEGRAL);
            }
            // Where a narrower float comes first, ClickHouse makes it infinite.
            if json.parse::<f64>().is_ok_and(|number| number.abs() >= 3.389e38) {
                random.because(WRAPPED);
            }
            json
        }
        DataType::Json { paths } => object(random, paths, 0),
        DataType::Dynamic => {
            let json = any(random, 2);
            if json.starts_with(['[', '{']) {
                random.because(DYNAMIC);
            }
            json
        }
        DataType::AggregateFunction => "1".to_owned(),
    }
}

/// True if a part of the type is such a one.
fn has(data_type: &DataType, is_it: impl Fn(&DataType) -> bool + Copy) -> bool {
    is_it(data_type)
        || match data_type {
            DataType::Array(inner) | DataType::Nullable(inner) | DataType::LowCardinality(inner) => has(inner, is_it),
            DataType::Map(key, inner) => has(key, is_it) || has(inner, is_it),
            DataType::Tuple(elements) => elements.iter().any(|(_, of)| has(of, is_it)),
            _ => false,
        }
}

/// True if a number in this text has a point and nothing but a zero behind it.
fn ends_in_zeros(json: &str) -> bool {
    json.match_indices(".0").any(|(at, _)| !json[at + 2..].starts_with(|next: char| next.is_ascii_digit()))
}

pub fn pick<'a, T: ?Sized>(random: &mut Maker, of: &[&'a T]) -> &'a T {
    of[random.below(of.len() as u64) as usize]
}

pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn space(random: &mut Maker) -> &'static str {
    if random.one_in(12) { pick(random, &[" ", "\t", "  "]) } else { "" }
}

fn text(random: &mut Maker) -> String {
    let whole =
        ["", "a", "it's", "ü", "zwölf 😀", "2020-01-01", "1.5", "null", "a longer text than thirty-two bytes are"];
    match random.below(8) {
        0 => pick(
            random,
            &["\"\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "\"\\u00fc\\ud83d\\ude00\"", "\"\\u0000\"", "\"\\u0007x\""],
        )
        .to_owned(),
        1 => pick(random, &["12", "-0.5", "true", "[1, {\"b\":2}]", "{\"a\": [ ]}", "1e5"]).to_owned(),
        2 => quoted(&"abc\u{43f} ".repeat(random.below(40) as usize)),
        _ => quoted(pick(random, &whole)),
    }
}

fn enumeration(random: &mut Maker, elements: &[(String, i16)]) -> String {
    let (name, number) = &elements[random.below(elements.len() as u64) as usize];
    match random.below(8) {
        0 => number.to_string(),
        1 => quoted(&number.to_string()),
        2 if random.one_in(5) => "\"no such name\"".to_owned(),
        3 if random.one_in(5) => "127".to_owned(),
        _ => quoted(name),
    }
}

/// An array of so many values.
pub fn array(random: &mut Maker, inner: &DataType, count: usize) -> String {
    list(random, std::iter::repeat_n(inner, count))
}

fn list<'a>(random: &mut Maker, types: impl Iterator<Item = &'a DataType>) -> String {
    let mut json = format!("[{}", space(random));
    for (index, of) in types.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        json.push_str(&format!("{comma}{}{}{}", space(random), value(random, of), space(random)));
    }
    json.push(']');
    json
}

fn map(random: &mut Maker, key: &DataType, inner: &DataType) -> String {
    let mut members = Vec::new();
    for _ in 0..random.below(4) {
        // A key is a text.
        let of_key = value(random, key);
        let of_key = if of_key.starts_with('"') { of_key } else { quoted(of_key.trim_matches(['[', ']', '{', '}'])) };
        members.push((of_key, value(random, inner)));
    }
    members_of(random, members)
}

fn members_of(random: &mut Maker, members: Vec<(String, String)>) -> String {
    let mut json = format!("{{{}", space(random));
    for (index, (key, value)) in members.into_iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let spaces = [(); 4].map(|()| space(random));
        json.push_str(&format!("{comma}{}{key}{}:{}{value}{}", spaces[0], spaces[1], spaces[2], spaces[3]));
    }
    json.push('}');
    json
}

fn tuple(random: &mut Maker, elements: &[(Option<String>, DataType)]) -> String {
    let are_named = elements.iter().all(|(name, _)| name.is_some());
    if !are_named {
        let cut = usize::from(random.one_in(30));
        if cut == 1 && elements.len() == 1 {
            random.because(EMPTY_TUPLE);
        }
        return list(random, elements.iter().skip(cut).map(|(_, of)| of));
    }
    let mut members = Vec::new();
    for (name, of) in elements {
        if !random.one_in(10) {
            members.push((quoted(name.as_ref().unwrap()), value(random, of)));
        }
    }
    if random.one_in(8) {
        members.push(("\"unknown\"".to_owned(), "[{\"x\":[]}]".to_owned()));
    }
    if random.one_in(3) {
        members.reverse();
    }
    if random.one_in(60) && !members.is_empty() {
        let again = members[0].clone();
        members.push(again);
    }
    members_of(random, members)
}

/// An object for a JSON column that has types for these paths.
fn object(random: &mut Maker, paths: &[(String, DataType)], depth: usize) -> String {
    let mut members = Vec::new();
    for key in ["a", "b.c", "d e", "\\u0066", "9"] {
        if let Some((path, of)) = paths.iter().find(|(path, _)| path == key) {
            if random.one_in(2) {
                random.because(TYPED_PATH);
                let json = value(random, of);
                let is_nested = path == "b.c" && random.one_in(2);
                members.push(match is_nested {
                    true => ("\"b\"".to_owned(), format!("{{\"c\":{json}}}")),
                    false => (quoted(path), json),
                });
            }
        } else if random.one_in(3) {
            let json = if random.one_in(15) { "null".to_owned() } else { any(random, depth + 1) };
            members.push((format!("\"{key}\""), json));
        }
    }
    members_of(random, members)
}

/// Any JSON, but for what a JSON makes something else of because of the rows before: arrays of several types,
/// texts that are times, and integers that a Float64 does not hold.
fn any(random: &mut Maker, depth: usize) -> String {
    match random.below(if depth < 3 { 11 } else { 9 }) {
        0..3 => quoted(pick(random, &["", "a", "it's", "zwölf 😀", "1.5", "null", "-5", "true", "a/b\n\"c\""])),
        3..5 => (random.next() as i64 >> (12 + random.below(51))).to_string(),
        5 => (f64::from(random.next() as i32) / 1000.0).to_string(),
        6 => pick(random, &["1e10", "1.5e300", "1e-400", "-0.0", "true", "false"]).to_owned(),
        7 => pick(random, &["[]", "{}", "[1,2]", "[\"a\",\"b\"]", "[[1],[2]]", "[{}]"]).to_owned(),
        8 => {
            let integers: Vec<String> = (0..random.below(4)).map(|_| random.below(1 << 40).to_string()).collect();
            format!("[{}]", integers.join(","))
        }
        9 => {
            let objects: Vec<String> = (0..random.below(3)).map(|_| object(random, &[], depth + 1)).collect();
            format!("[{}]", objects.join(","))
        }
        _ => object(random, &[], depth + 1),
    }
}
