//! Values for a type by chance, as JSON: good, borderline and bad ones.
//!
//! There is an arm for every type, so that a type without values does not compile.

use sluicegate::rowbinary::DataType;

use super::reasons::*;
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

fn pick<'a, T: ?Sized>(random: &mut Maker, of: &[&'a T]) -> &'a T {
    of[random.below(of.len() as u64) as usize]
}

fn quoted(text: &str) -> String {
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

/// The same number in another form.
fn spelled(random: &mut Maker, number: String) -> String {
    let form = random.below(60);
    if (1..6).contains(&form) {
        random.because(INTEGRAL);
    }
    match form {
        1 => format!("{number}.0"),
        2 => format!("{number}e0"),
        3 if number.ends_with("00") => format!("{}E+2", &number[..number.len() - 2]),
        4 => format!("{number}00e-2"),
        5 => format!("{number}.000"),
        6..10 => quoted(&number),
        _ => number,
    }
}

fn integer(random: &mut Maker, width: u8, is_signed: bool) -> String {
    let bits = u32::from(width) * 8 - u32::from(is_signed);
    let (minus, most) = (if is_signed && random.one_in(2) { "-" } else { "" }, power_of_two(bits));
    let digits = match random.below(12) {
        0 if minus.is_empty() => "0".to_owned(),
        1 => less_one(&most),
        2 if minus == "-" => most,
        3 if minus.is_empty() && random.one_in(15) => {
            random.because(WRAPPED);
            most
        }
        4 if random.one_in(15) => {
            random.because(WRAPPED);
            format!("{most}0")
        }
        5 => format!("{}", random.below(1 << 7) * 100 % (1 << bits.min(62))),
        6 if random.one_in(8) => {
            return pick(random, &["1.5", "\"1.5\"", "\"1e2\"", "\"+5\"", "\"007\"", "\"1 \"", "\"x1\""]).to_owned();
        }
        _ => (random.next() % (1 << random.below(u64::from(bits.min(63)) + 1).min(62))).to_string(),
    };
    let number = format!("{minus}{digits}");
    spelled(random, number)
}

/// 2 to this power, in decimal.
fn power_of_two(bits: u32) -> String {
    let mut digits = vec![1u8];
    for _ in 0..bits {
        let mut carry = 0;
        for digit in &mut digits {
            let doubled = *digit * 2 + carry;
            (*digit, carry) = (doubled % 10, doubled / 10);
        }
        digits.extend((carry > 0).then_some(carry));
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

/// A power of two less one: it never ends with 0.
fn less_one(number: &str) -> String {
    let (front, last) = number.split_at(number.len() - 1);
    format!("{front}{}", last.parse::<u8>().unwrap() - 1)
}

fn float(random: &mut Maker, largest: f64) -> String {
    let json = any_float(random);
    if json.trim_matches('"').parse::<f64>().is_ok_and(|number| number.abs() >= largest && !json.contains("inf")) {
        random.because(WRAPPED);
    }
    json
}

fn any_float(random: &mut Maker) -> String {
    let borderline = [
        "3.4028235e38",
        "1e39",
        "1e308",
        "1e400",
        "1e-400",
        "-0.0",
        "0.1",
        "16777217",
        "0.30000000000000004",
        "\"nan\"",
        "\"inf\"",
        "\"-inf\"",
        "\"1.5\"",
        "\"1e3\"",
        "12345678901234567890123",
        "5e-324",
        "1.0000000596046448",
    ];
    match random.below(5) {
        0 => pick(random, &borderline).to_owned(),
        1 => (random.next() as i64 >> random.below(63)).to_string(),
        2 if random.one_in(3) => format!("{:e}", f64::from_bits(random.next())).replace("NaN", "0").replace("inf", "1"),
        _ => {
            let number = (random.next() as i32) as f64 / 1000.0;
            number.to_string()
        }
    }
}

fn decimal(random: &mut Maker, precision: u8, scale: u8) -> String {
    let integers = usize::from(precision - scale);
    let digits = |random: &mut Maker, count: usize| -> String {
        (0..count).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
    };
    let count = random.below(integers as u64 + 1) as usize + usize::from(random.one_in(25));
    let front = digits(random, count);
    let front = front.trim_start_matches('0');
    let front = if front.is_empty() { "0" } else { front };
    let places = random.below(u64::from(scale) + 3) as usize;
    let fraction = digits(random, places);
    let minus = if random.one_in(3) { "-" } else { "" };
    let number = if fraction.is_empty() { format!("{minus}{front}") } else { format!("{minus}{front}.{fraction}") };
    match random.below(12) {
        0 => quoted(&number),
        1 if front == "0" || precision < 10 => {
            random.because(DECIMAL_FORM);
            format!("{number}e{}", random.below(5) as i64 - 2)
        }
        1 => format!("{number}e{}", random.below(5) as i64 - 2),
        2 if random.one_in(4) => {
            random.because(DECIMAL_TEXT);
            pick(random, &["\"x\"", "\"1e\"", "\"1.2.3\"", "1e300", "1e-300"]).to_owned()
        }
        _ => number,
    }
}

fn uuid(random: &mut Maker) -> String {
    let (high, low) = (random.next(), random.next());
    let plain = format!("{high:016x}{low:016x}");
    let dashed = [&plain[..8], &plain[8..12], &plain[12..16], &plain[16..20], &plain[20..]].join("-");
    quoted(&match random.below(8) {
        0 => plain,
        1 => dashed.to_uppercase(),
        2 if random.one_in(4) => dashed[..20].to_owned(),
        _ => dashed,
    })
}

fn day(random: &mut Maker, from: u64, to: u64) -> (u64, u64, u64) {
    (from + random.below(to + 1 - from), 1 + random.below(12), 1 + random.below(28))
}

fn date(random: &mut Maker, from: u64, to: u64) -> String {
    let (year, month, day) = day(random, from, to - 1);
    match random.below(14) {
        0 => quoted(&format!("{year}{month:02}{day:02}")),
        1 => quoted(&format!("{year}/{month}/{day}")),
        2 if random.one_in(12) => {
            random.because(WRAPPED);
            quoted(&format!("{year}-02-30"))
        }
        3 if random.one_in(12) => {
            random.because(WRAPPED);
            quoted(&format!("{}-{month:02}-{day:02}", to + 1))
        }
        4 => random.below(30_000).to_string(),
        5 if random.one_in(3) => quoted(&format!("{year}-{month:02}-{day:02} 10:20:30")),
        6 => quoted(&format!("{year}-{month}-{day}")),
        _ => quoted(&format!("{year}-{month:02}-{day:02}")),
    }
}

fn moment(random: &mut Maker, from: u64, to: u64, precision: u8) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = day(random, from + 1, to - 1);
    let (hour, minute, second) = (random.below(24), random.below(60), random.below(60));
    let places = if precision > 0 { random.below(u64::from(precision) + 2) as usize } else { 0 };
    let fraction =
        if places > 0 { format!(".{:0places$}", random.below(10u64.pow(places as u32))) } else { String::new() };
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    let unix = random.below(4_000_000_000);
    quoted(&match random.below(20) {
        0 => format!("{year}-{month:02}-{day:02}T{clock}{fraction}Z"),
        1 => format!("{year}-{month:02}-{day:02}T{clock}{fraction}+02:00"),
        2 => format!("{year}-{month:02}-{day:02} {clock}{fraction} -0530"),
        3 => format!("{year}{month:02}{day:02}{hour:02}{minute:02}{second:02}"),
        4 => format!("{year}-{month:02}-{day:02}"),
        5 => format!("{year}/{month:02}/{day:02} {clock}"),
        6 => format!("{day:02} {} {year} {clock}", MONTHS[month as usize - 1]),
        7 => format!("{day:02}/{month:02}/{year} {clock}"),
        8 => format!("{day:02}.{month:02}.{year}"),
        9 => format!("{year}-{month:02}-{day:02} {hour}:{minute:02}"),
        10 => (1_000_000_000 + unix % 3_000_000_000).to_string(),
        11 if to < 2200 || random.one_in(6) => {
            if to > 2200 {
                random.because(UNIX_TIMES);
            }
            return unix.to_string();
        }
        12 if random.one_in(4) => {
            random.because(UNIX_TIMES);
            return match random.below(3) {
                0 => ((1_000_000_000 + unix) * 1000).to_string(),
                1 => format!("{unix}.25"),
                _ => format!("-{unix}"),
            };
        }
        13 if random.one_in(6) => {
            random.because(WRAPPED);
            format!("{year}-{month:02}-{day:02} 25:00:00")
        }
        16 if random.one_in(6) => format!("{year}-13-{day:02} {clock}"),
        17 => format!("Tue, {day:02} {} {year} {clock} GMT", MONTHS[month as usize - 1]),
        _ => format!("{year}-{month:02}-{day:02} {clock}{fraction}"),
    })
}

fn time_of_day(random: &mut Maker, precision: u8) -> String {
    let (minute, second) = (random.below(60), random.below(60));
    let places = if precision > 0 { random.below(u64::from(precision) + 2) as usize } else { 0 };
    let fraction =
        if places > 0 { format!(".{:0places$}", random.below(10u64.pow(places as u32))) } else { String::new() };
    let minus = if random.one_in(5) { "-" } else { "" };
    match random.below(10) {
        0 => (random.below(200_000) as i64 - 90_000).to_string(),
        1 => quoted(&format!("{minus}{}:{minute:02}:{second:02}{fraction}", random.below(1000))),
        2 => quoted(&format!("{minute:02}:{second:02}")),
        3 => quoted(&random.below(1000).to_string()),
        4 if random.one_in(6) => {
            random.because(CARRIED);
            quoted(pick(random, &["12:60:00", "1000:00:00", "1:", ":1", "12:34:5x"]))
        }
        _ => quoted(&format!("{minus}{:02}:{minute:02}:{second:02}{fraction}", random.below(24))),
    }
}

fn ipv4(random: &mut Maker) -> String {
    if random.one_in(25) {
        return pick(random, &["256.1.1.1", "1.2.3", "1.2.3.4.5", "::1", ""]).to_owned();
    }
    let bytes = (random.next() as u32).to_be_bytes();
    std::net::Ipv4Addr::from(bytes).to_string()
}

fn ipv6(random: &mut Maker) -> String {
    let address = std::net::Ipv6Addr::from((u128::from(random.next()) << 64) | u128::from(random.next()));
    quoted(&match random.below(8) {
        0 => ipv4(random),
        1 => pick(random, &["::", "::1", "::ffff:1.2.3.4", "fe80::1:2", "2001:db8::"]).to_owned(),
        2 => format!("{address}").to_uppercase(),
        3 if random.one_in(4) => pick(random, &["1::2::3", "12345::", "g::1", ":"]).to_owned(),
        _ => address.to_string(),
    })
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
