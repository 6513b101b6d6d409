//! Paths of a JSON that have types: whatever the server takes for one is stored, with every version of
//! ClickHouse, which reads such values itself, in the INSERT.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::support::{Server, post, shared_clickhouse};

const SCALARS: [&str; 29] = [
    "Bool",
    "Int8",
    "Int32",
    "Int64",
    "Int128",
    "UInt8",
    "UInt16",
    "UInt64",
    "UInt256",
    "Float32",
    "Float64",
    "Decimal(9, 2)",
    "Decimal(30, 5)",
    "Decimal(70, 10)",
    "String",
    "FixedString(4)",
    "UUID",
    "Date",
    "Date32",
    "DateTime",
    "DateTime('Europe/Berlin')",
    "DateTime64(3)",
    "DateTime64(6, 'Asia/Tokyo')",
    "Time",
    "Time64(3)",
    "IPv4",
    "IPv6",
    "Enum8('a' = 1, '5' = 2)",
    "Enum16('x' = 300)",
];

/// What the types above are not put into one by one.
const OTHERS: [&str; 20] = [
    "LowCardinality(String)",
    "LowCardinality(Nullable(String))",
    "LowCardinality(Int32)",
    "LowCardinality(Date)",
    "Array(Nullable(DateTime))",
    "Array(Array(Int32))",
    "JSON",
    "Array(JSON)",
    "Dynamic",
    "Array(Dynamic)",
    "Map(String, Array(Time64(3)))",
    "Array(Tuple(a DateTime, b Float64))",
    "Tuple(DateTime, Int32)",
    "JSON(a DateTime, b Time64(3), c Float64)",
    "Array(Variant(Float64, Bool))",
    "Tuple(a Variant(Time, Bool), b Variant(DateTime, String))",
    "Variant(Array(Time), Map(String, Float32), Tuple(a DateTime))",
    "Variant(Map(String, Time64(3)), JSON)",
    "Variant(Array(Decimal(9, 2)), Tuple(Float64))",
    "Variant(Map(String, Decimal(9, 2)), JSON)",
];

/// Each is one value of JSON.
const VALUES: &str = r#"
null true false 0 1 -1 5 300 1.5 1.0 -0.0 1e2 1e400 1e-400 1e308 3.4e38 3.5e38 70000 4294967295 4294967296
-4294967296 9007199254740993 9223372036854775807 18446744073709551615 1606863600 1606863600.0 1606863600.5
1606863600123 12345.678 0.001 123456789.12 86399 86400 3599999 3600000
"" "5" "null" "x" "a" "true" "false" "1" "0" "-1" "1.5" "1.0" "1e2" "nan" "inf" "-inf" "NaN" "+5" "007" "1 " " 1"
"300" "1606863600" "1606863600.5" "1606863600123" "12345.678" "2020-12-01" "2020-12-01 23:09:54"
"2020-12-01T23:09:54Z" "2020-12-01T23:09:54+03:00" "2020-12-01 23:09:54.123" "2020-12-01T23:09:54.123456Z"
"2020-12-01T23:09:54.123456789" "1899-12-31" "1900-01-01" "1970-01-01" "2149-06-06" "2149-06-07" "2299-12-31"
"2300-01-01" "1969-12-31 23:59:59" "2106-02-07 06:28:15" "2106-02-07 06:28:16" "1960-01-01 00:00:00"
"2200-01-01 00:00:00.5" "2020-02-30" "01.12.2020" "20201201" "20201201230954" "2020-1-2" "23:09:54" "12:30:00.5"
"12:30:00.123" "12:30:00.123456" "-12:30:00" "-12:30:00.25" "999:59:59" "1000:00:00" "1:2:3" "00:00:00" "12:30"
"12:60:00" "3600" "-3600" "1.2.3.4" "::1" "1.2.3" "2001:db8::1" "::ffff:1.2.3.4"
"61f0c404-5cb3-11e7-907b-a6006ad3dba0" "61f0c4045cb311e7907ba6006ad3dba0" "abcd" "abcde" "abc" "\u00e9" "\u0035" "A"
"tru\u0065" "\u0031" "\u006eull" "2020-12-0\u0031" "1.\u0035" "1606863\u0036\u0030\u0030" "\u0061" "12:30:0\u0030" "1.2.3.\u0034"
[] [1] [null] [1,2] ["a"] [[1]] [true] ["true"] ["12:30:00.5"] [1606863600] ["2020-12-01T23:09:54Z"] [1.5] [1,"x"]
["tru\u0065"] [1e308] [4294967296] [{"a":1606863600,"b":true}] {"a":["12:30:00"]}
{} {"a":1} {"a":null} {"b":"x"} {"a":"5","b":"y"} {"a":true} {"a":"12:30:00.5"} {"a":1606863600} {"a":"2020-12-01"}
{"a":1e308} {"a":4294967296} {"a":1.5} {"a":"true"} {"b":"12:30:00.5"} {"c":true} {"zz":1} {"\u0061":1}
{"\u0061":"tru\u0065","b":"x"} {"\u0061":"true","b":"x"} {"\u0061":1606863600,"b":"x"} {"\u0061":4294967296,"b":"x"}
"#;

/// Lines of a request: a reply lists so many errors.
const LINES_AT_ONCE: usize = 100;

/// The types: scalars alone and inside of others, every two of them in a Variant, and some more.
fn types() -> Vec<String> {
    let mut types: Vec<String> = OTHERS.map(str::to_owned).into();
    for (index, scalar) in SCALARS.iter().enumerate() {
        types.push((*scalar).to_owned());
        types.push(format!("Nullable({scalar})"));
        types.push(format!("Array({scalar})"));
        types.push(format!("Map(String, {scalar})"));
        types.push(format!("Tuple(a {scalar}, b String)"));
        types.extend(SCALARS[index + 1..].iter().map(|other| format!("Variant({scalar}, {other})")));
    }
    types
}

fn values() -> Vec<String> {
    let values = serde_json::Deserializer::from_str(VALUES).into_iter::<Box<serde_json::value::RawValue>>();
    values.map(|value| value.unwrap().get().to_owned()).collect()
}

#[test]
fn what_is_taken_for_a_path_with_a_type_is_stored_with_every_version() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (types, values) = (types(), values());
    // A path for each type, in as few tables as ClickHouse allows: it makes a thousand paths in one JSON.
    let paths: String = types.iter().enumerate().fold(String::new(), |mut paths, (index, name)| {
        write!(paths, "{}p{index} {name}", if index == 0 { "" } else { ", " }).unwrap();
        paths
    });
    clickhouse.query(&format!(
        "CREATE TABLE {database}.typed (j JSON({paths})) ENGINE = MergeTree ORDER BY tuple() \
         SETTINGS min_bytes_for_wide_part = 10000000000, allow_suspicious_low_cardinality_types = 1, \
         enable_time_time64_type = 1, allow_suspicious_variant_types = 1, allow_suspicious_fixed_string_types = 1"
    ));
    let server = Server::start(clickhouse, &database, &["--table", "typed"]);
    let cases: Vec<(&str, &str, String)> = types
        .iter()
        .enumerate()
        .flat_map(|(index, name)| {
            values.iter().map(move |value| (&**name, &**value, format!("{{\"j\":{{\"p{index}\":{value}}}}}\n")))
        })
        .collect();
    let (mut accepted, mut taken) = (0, BTreeMap::<&str, BTreeSet<&str>>::new());
    for cases in cases.chunks(LINES_AT_ONCE) {
        let body: String = cases.iter().map(|(_, _, line)| &**line).collect();
        let reply = post(server.address(), "/api/typed", body.as_bytes()).text();
        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
        let errors = reply["errors"].as_array().into_iter().flatten();
        let refused: BTreeSet<u64> = errors.map(|error| error["line"].as_u64().unwrap()).collect();
        for ((name, value, _), _) in cases.iter().zip(1..).filter(|(_, line)| !refused.contains(line)) {
            taken.entry(name).or_default().insert(value);
        }
        accepted += reply["accepted"].as_u64().unwrap();
        assert_eq!(reply["accepted"].as_u64(), Some((cases.len() - refused.len()) as u64), "{reply}");
    }
    server.wait_until_drained();
    let refused = clickhouse.query(&format!(
        "SELECT extract(line, 'p([0-9]+)'), extract(line, '^.{{10,13}}:(.*)}}}}$'), message FROM {database}.typed_quarantine \
         WHERE code = 'refused_by_clickhouse' FORMAT TSVRaw"
    ));
    let refused: Vec<String> = refused
        .lines()
        .filter_map(|row| row.split_once('\t'))
        .map(|(index, rest)| format!("{}\t{rest}", types[index.parse::<usize>().unwrap()]))
        .collect();
    assert!(refused.is_empty(), "{} values are taken and not stored:\n{}", refused.len(), refused.join("\n"));
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.typed")).trim(), accepted.to_string());
    // What the releases differ in. One that is not listed takes what the newest does.
    let version = clickhouse.query("SELECT version()");
    let is_before = |release: &str| {
        let number = |version: &str| version.split('.').take(2).map(|part| part.trim().parse().unwrap()).collect();
        let (this, release): (Vec<u32>, Vec<u32>) = (number(&version), number(release));
        this < release
    };
    for (name, value, since) in [
        ("DateTime", "1606863600", "26.5"),
        ("Map(String, DateTime)", "{\"a\":1606863600}", "26.5"),
        ("Time", "86400", "26.5"),
        ("Float64", "true", "26.1"),
        ("Time", "\"23:09:54\"", "26.1"),
        ("Time64(3)", "\"12:30:00.5\"", "26.1"),
        ("Time64(3)", "300", "25.8"),
        ("DateTime", "\"2020-12-01T23:09:54Z\"", "25.8"),
        ("Float64", "1.5", "25.8"),
        ("Int8", "true", "25.8"),
        ("Array(UInt256)", "[true]", "25.8"),
        ("Variant(Bool, Float64)", "true", "25.8"),
    ] {
        let is_taken = taken.get(name).is_some_and(|taken| taken.contains(value));
        assert_eq!(is_taken, !is_before(since), "{value} for {name} with {version}");
    }
    let idle: Vec<&String> = types.iter().filter(|name| taken.get(&***name).is_none_or(BTreeSet::is_empty)).collect();
    assert!(idle.is_empty(), "nothing is taken for {idle:?}");
    assert!(server.stop().success());
}
