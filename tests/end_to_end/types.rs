//! The types of columns against ClickHouse's own `JSONEachRow`: for each type good, borderline and bad
//! values, in a column of their own, as elements of an array, as values of a map and as elements of a tuple.

use crate::oracle::{Line, compare};
use crate::support::shared_clickhouse;

/// A type, and values for it as JSON.
struct Case {
    type_name: &'static str,
    values: Vec<&'static str>,
    /// Why ClickHouse makes something else of a value; see the list in `src/ndjson/mod.rs`.
    exception: fn(&str) -> Option<&'static str>,
}

/// Values that are tried with every type.
const ANY: [&str; 22] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "-0",
    "5",
    "300",
    "1.5",
    "1e2",
    "\"\"",
    "\"5\"",
    "\"true\"",
    "\"null\"",
    "\" 1\"",
    "\"x\"",
    "[]",
    "[1]",
    "{}",
    "{\"a\":1}",
    "\"\\u0035\"",
];

fn none(_: &str) -> Option<&'static str> {
    None
}

const WRAPPED: Option<&str> = Some("what is outside of the type is not wrapped");

const INTEGRAL: Option<&str> = Some("a number with an integer value is an integer");

fn exception_of_unsigned(value: &str) -> Option<&'static str> {
    if value == "1e2" {
        return INTEGRAL;
    }
    let magnitude = value.trim_matches('"').parse::<f64>().ok().filter(|_| !value.contains(['.', 'e']))?;
    if magnitude > 255.0 { WRAPPED } else { None }
}

fn exception_of_wide(value: &str) -> Option<&'static str> {
    if value == "1e2" {
        INTEGRAL
    } else if value.trim_matches('"').trim_start_matches('-').len() > 39 {
        WRAPPED
    } else {
        None
    }
}

fn exception_of_widest(value: &str) -> Option<&'static str> {
    if value == "1e2" {
        INTEGRAL
    } else if value.len() > 77 {
        WRAPPED
    } else {
        None
    }
}

fn exception_of_float(value: &str) -> Option<&'static str> {
    matches!(value, "1e39" | "1e400" | "\"1e400\"").then_some("a number that overflows is not infinite")
}

fn exception_of_double(value: &str) -> Option<&'static str> {
    matches!(value, "1e400" | "\"1e400\"").then_some("a number that overflows is not infinite")
}

fn exception_of_decimal(value: &str) -> Option<&'static str> {
    match value {
        "\"1e\"" | "\".\"" | "\"-\"" | "\"1.2.3\"" => Some("a text that is no number is not a part of one"),
        _ => None,
    }
}

fn exception_of_small_decimal(value: &str) -> Option<&'static str> {
    match value {
        "1000000000000000000000000000000000e-30" => Some("how a number is written does not decide whether it fits"),
        other => exception_of_decimal(other),
    }
}

fn exception_of_time(value: &str) -> Option<&'static str> {
    match value {
        "\"12:60:00\"" | "\"12:00:60\"" | "\"99:99:99\"" | "\"1:60\"" => {
            Some("a minute or second that does not exist is not carried over")
        }
        "3600000" | "-3600000" | "123456789012" => Some("what is outside of the type is not clamped"),
        _ => None,
    }
}

fn exception_of_time64(value: &str) -> Option<&'static str> {
    exception_of_time(value).filter(|_| !value.trim_start_matches('-').starts_with("3600000"))
}

fn exception_of_date(value: &str) -> Option<&'static str> {
    match value {
        "-0" => Some("-0 is 0"),
        "\"2020-02-30\"" => Some("a day that does not exist is not replaced"),
        _ => None,
    }
}

/// True for a type of numbers, which may stand in quotes.
fn cell_takes_quotes(type_name: &str) -> bool {
    !["Bool", "UUID", "IP", "Date"].iter().any(|other| type_name.starts_with(other))
}

fn scalars() -> Vec<Case> {
    let case = |type_name, own: &[&'static str], exception| Case {
        type_name,
        values: ANY.iter().chain(own).copied().collect(),
        exception,
    };
    let wide = [
        "123456789012345678901234567890",
        "\"-123456789012345678901234567890\"",
        "170141183460469231731687303715884105727",
        "-170141183460469231731687303715884105728",
        "99999999999999999999999999999999999999999999999999999999999999999999999999999999",
        "\"007\"",
        "\"+5\"",
        "\"+\"",
        "\"1_000\"",
    ];
    let decimals = [
        "1.23456",
        "-1.239",
        "9999999.994",
        "9999999.999",
        "-9999999.99",
        "99999999999999999999999999999999999999999999999999999999999999999999999999999999",
        "1e300",
        "1e-300",
        "1E+2",
        "123e-3",
        "1000000000000000000000000000000000e-30",
        "\"+5.5\"",
        "\".5\"",
        "\"5.\"",
        "\"1e2\"",
        "\"1e\"",
        "\".\"",
        "\"-\"",
        "\"1.2.3\"",
        "\"--1\"",
        "\"1,5\"",
        "\"0x1\"",
        "\"inf\"",
        "\"nan\"",
        "\"007.5\"",
    ];
    let floats = [
        "0.1",
        "3.4028235e38",
        "1e39",
        "1e400",
        "\"1e400\"",
        "1e-400",
        "\"nan\"",
        "\"NaN\"",
        "\"-nan\"",
        "\"inf\"",
        "\"-Inf\"",
        "\"Infinity\"",
        "\".5\"",
        "\"5.\"",
        "\"+1\"",
        "\"1e\"",
        "\"0x10\"",
        "16777217",
        "0.30000000000000004",
    ];
    let times = [
        "\"12:34:56\"",
        "\"1:02:03\"",
        "\"12:34\"",
        "\"60:00\"",
        "\"99\"",
        "\"-12:34:56\"",
        "\"+1:00:00\"",
        "\"999:59:59\"",
        "\"1000:00:00\"",
        "\"12:60:00\"",
        "\"12:00:60\"",
        "\"99:99:99\"",
        "\"1:60\"",
        "\"12:34:56.5\"",
        "\"12:34:56.789123456\"",
        "\"12:34:56.\"",
        "\"12:3:4\"",
        "\"1:\"",
        "\":1\"",
        "\"-00:00:01\"",
        "\"5.5\"",
        "\"5.x\"",
        "3600000",
        "-3600000",
        "123456789012",
        "\"123:45\"",
    ];
    let uuids = ["\"0287d9aa-4adf-4b37-a60f-3e9e645c821e\"", "\"0287D9AA4ADF4B37A60F3E9E645C821E\"", "\"0287d9aa\""];
    vec![
        case("UInt8", &["255", "256", "\"256\""], exception_of_unsigned),
        case("Int128", &wide, exception_of_wide),
        case("UInt128", &wide, exception_of_wide),
        case("Int256", &wide, exception_of_widest),
        case("UInt256", &wide, exception_of_widest),
        case("Decimal(9, 2)", &decimals, exception_of_small_decimal),
        case("Decimal(18, 4)", &decimals, exception_of_small_decimal),
        case("Decimal(38, 10)", &decimals, exception_of_decimal),
        case("Decimal(76, 20)", &decimals, exception_of_decimal),
        case("Float32", &floats, exception_of_float),
        case("Float64", &floats, exception_of_double),
        case("BFloat16", &floats, exception_of_float),
        case("Bool", &["\"1\"", "2"], none),
        case("String", &["\"a\\nb\"", "\"\\u0000\"", "[1, {\"b\":2}]"], none),
        case("FixedString(3)", &["\"abc\"", "\"abcd\"", "\"\\u043f\"", "\"\\u043f\\u0440\""], none),
        case("LowCardinality(String)", &["\"a\""], none),
        case("UUID", &uuids, none),
        case("IPv4", &["\"1.2.3.4\"", "\"256.1.1.1\"", "\"1.2.3\""], none),
        case("IPv6", &["\"::1\"", "\"1.2.3.4\"", "\"1::2::3\""], none),
        case("Date", &["\"2020-12-01\"", "\"2020-02-30\""], exception_of_date),
        case("Date32", &["\"1900-01-01\"", "\"2299-12-31\""], none),
        case("Enum8('zero' = 0, 'a' = 1, 'b' = 2)", &["\"a\"", "2", "\"2\"", "3", "\"c\""], none),
        case("Time", &times, exception_of_time),
        case("Time64(3)", &times, exception_of_time64),
    ]
}

#[test]
fn every_scalar_is_what_clickhouse_makes_of_it_wherever_it_stands() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (mut columns, mut lines) = (Vec::new(), Vec::new());
    for (index, Case { type_name, values, exception }) in scalars().into_iter().enumerate() {
        let nullable = type_name.replace("LowCardinality(String)", "LowCardinality(Nullable(String))");
        let nullable = if nullable == type_name { format!("Nullable({type_name})") } else { nullable };
        for (position, kind) in [
            ("plain", type_name.to_owned()),
            ("nullable", nullable.clone()),
            ("array", format!("Array({type_name})")),
            ("nullables", format!("Array({nullable})")),
            ("map", format!("Map(String, {type_name})")),
            ("tuple", format!("Tuple(a UInt8, v {type_name})")),
        ] {
            let column = format!("{position}_{index}");
            for value in &values {
                let json = match position {
                    "array" | "nullables" => format!("[{value},{value}]"),
                    "map" => format!("{{\"k\":{value}}}"),
                    "tuple" => format!("{{\"v\":{value},\"a\":1}}"),
                    _ => (*value).to_owned(),
                };
                let is_text = type_name.contains("String") || type_name.contains("Enum");
                let escaped = (*value == "\"\\u0035\"" && !is_text && cell_takes_quotes(type_name))
                    .then_some("escapes in a quoted number are decoded");
                let exception = exception(value).or(escaped);
                lines.push(Line { json: format!("\"{column}\":{json}"), exception });
            }
            columns.push(format!("{column} {kind}"));
        }
    }
    compare(clickhouse, &database, &columns.join(", "), &lines);
}

/// A type with values inside, values for it, and the values that are something else here, with the reason.
type Nested = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const LENIENT: &str = "a line is valid JSON, also inside of a value";
const FROM_ARRAY: &str = "a Tuple with names may come as an array as well";
const DECODED: &str = "escapes in a key are decoded";
const NOT_WRAPPED: &str = "what is outside of the type is not wrapped";

const NESTED: [Nested; 27] = [
    (
        "Array(UInt8)",
        &["[]", "[ ]", "[1 , 2]", "null", "\"[1]\"", "\"\"", "1", "{}", "{\"0\":1}", "[[1]]", "[1 2]"],
        &[("[1,]", LENIENT), ("[,1]", LENIENT), ("[300]", NOT_WRAPPED)],
    ),
    ("Array(Array(Nullable(Int32)))", &["[[1,null],[],[2]]", "[null]", "[[null]]", "[1]", "[[[1]]]"], &[]),
    (
        "Array(String)",
        &[
            "[\"a\",1,true,null,{\"a\" : [1]},[1, 2],\"\\u0041\",1.50,1e5]",
            "\"a\"",
            "[\"\\ud83d\\ude00\"]",
            "[\"\\ud800\"]",
        ],
        &[],
    ),
    ("Array(LowCardinality(Nullable(String)))", &["[\"a\",null,\"\",5]", "null"], &[]),
    ("Array(DateTime('UTC'))", &["[\"2020-12-01 23:09:54\",\"2020-12-01T23:09:54+03:00\",1606864194]", "[\"x\"]"], &[]),
    ("Array(Enum8('a' = 1, 'b' = 2))", &["[\"a\",\"b\",2,\"1\"]", "[\"c\"]", "[3]"], &[]),
    ("Array(UUID)", &["[\"0287d9aa-4adf-4b37-a60f-3e9e645c821e\",null]", "[5]"], &[]),
    (
        "Map(String, UInt8)",
        &[
            "{}",
            "{ }",
            "{\"a\":1}",
            "{\"b\":1,\"a\":\"2\"}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":null}",
            "null",
            "[]",
            "[[\"a\",1]]",
            "[{\"key\":\"a\",\"value\":1}]",
            "{\"\":0}",
            "\"x\"",
            "{\"\\u0061\\n\":1}",
            "{\"a\" : 1 , \"b\" : 2}",
            "{\"a\":[1]}",
        ],
        &[("{\"a\":1,}", LENIENT), ("{\"a\":300}", NOT_WRAPPED)],
    ),
    (
        "Map(UInt8, String)",
        &[
            "{\"1\":\"a\"}",
            "{\"x\":\"a\"}",
            "{\"true\":\"a\"}",
            "{\"\":\"a\"}",
            "{\"01\":5}",
            "{\" 1\":\"a\"}",
            "{\"-1\":\"\"}",
        ],
        &[("{1:\"a\"}", LENIENT), ("{\"300\":\"a\"}", NOT_WRAPPED)],
    ),
    ("Map(Date, UInt8)", &["{\"2020-01-01\":1}", "{\"x\":1}"], &[]),
    ("Map(DateTime('UTC'), UInt8)", &["{\"2020-01-01T00:00:00Z\":1}", "{\"1606864194\":1}"], &[]),
    ("Map(UUID, UInt8)", &["{\"0287d9aa-4adf-4b37-a60f-3e9e645c821e\":1}", "{\"x\":1}"], &[]),
    ("Map(IPv4, UInt8)", &["{\"1.2.3.4\":1}", "{\"1\":1}"], &[]),
    ("Map(FixedString(2), UInt8)", &["{\"a\":1}", "{\"abc\":1}"], &[]),
    ("Map(LowCardinality(String), Array(UInt8))", &["{\"a\":[1,2],\"b\":[]}", "{\"a\":null}", "{\"a\":1}"], &[]),
    ("Map(Enum8('a' = 1, 'b' = 2), UInt8)", &["{\"a\":1}", "{\"2\":1}", "{\"c\":1}"], &[]),
    ("Map(String, Map(String, Float64))", &["{\"a\":{\"b\":1.5}}", "{\"a\":{}}", "{\"a\":null}", "{\"a\":1}"], &[]),
    ("Map(Bool, UInt8)", &["{}", "{\"true\":1}", "{\"1\":1}"], &[]),
    (
        "Tuple(a UInt8, b String)",
        &[
            "{\"a\":1,\"b\":\"x\"}",
            "{\"b\":\"x\",\"a\":1}",
            "{\"a\":1}",
            "{}",
            "{\"c\":5}",
            "{\"a\":1,\"a\":2}",
            "{\"A\":1}",
            "[1]",
            "[]",
            "[1,\"x\",3]",
            "null",
            "{\"a\":null,\"b\":null}",
            "{\"a\":1,\"c\":{\"d\":[1]}}",
            "\"x\"",
            "1",
            "{\"a\":\"x\"}",
            "{\"a\":1,}",
            "{\"b\":{\"q\":1}}",
            "{\"a\":1,\"c\":\"\\ud83d\\ude00\",\"b\":\"y\"}",
        ],
        &[
            ("[1,\"x\"]", FROM_ARRAY),
            ("[null,null]", FROM_ARRAY),
            ("{\"\\u0061\":1}", DECODED),
            ("{\"a\":300}", NOT_WRAPPED),
        ],
    ),
    (
        "Tuple(UInt8, String)",
        &["[1,\"x\"]", "[1]", "[]", "[1,\"x\",2]", "{\"1\":1,\"2\":\"x\"}", "{}", "null", "[null,null]", "[\"1\",2]"],
        &[],
    ),
    (
        "Tuple(t Tuple(b UInt8, c Array(String)), d Nullable(Int8), `e f` Map(String, UInt8))",
        &[
            "{\"t\":{\"b\":1,\"c\":[\"x\"]},\"d\":null}",
            "{\"e f\":{\"k\":1},\"d\":5,\"t\":{\"c\":[],\"b\":2}}",
            "{\"t\":null}",
            "{\"t\":{}}",
            "{}",
            "{\"d\":\"7\"}",
        ],
        &[("{\"t\":[1,[\"x\"]],\"d\":1}", FROM_ARRAY)],
    ),
    (
        "Array(Tuple(a UInt8, b Array(Tuple(x Int8, y String))))",
        &["[{\"a\":1,\"b\":[{\"y\":\"q\",\"x\":1},{}]},null,{\"b\":[]}]", "[{}]", "[[]]", "[1]"],
        &[],
    ),
    ("Point", &["[1.5,-2]", "[1]", "[1,2,3]", "{\"x\":1,\"y\":2}", "\"(1,2)\"", "null", "[1,\"2\"]", "[1,null]"], &[]),
    ("Ring", &["[[1,2],[3,4]]", "[]", "[1,2]", "null"], &[]),
    ("LineString", &["[[1,2],[3,4]]"], &[]),
    ("MultiLineString", &["[[[1,2],[3,4]],[]]", "[[1,2]]"], &[]),
    ("MultiPolygon", &["[[[[1,2],[3,4]]],[[]]]", "null", "[[[1,2]]]"], &[]),
];

#[test]
fn every_value_with_values_inside_is_what_clickhouse_makes_of_it() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (mut columns, mut lines) = (Vec::new(), Vec::new());
    for (index, (type_name, values, different)) in NESTED.iter().enumerate() {
        columns.push(format!("c{index} {type_name}"));
        let same = values.iter().map(|value| (value, None));
        let different = different.iter().map(|(value, reason)| (value, Some(*reason)));
        lines.extend(
            same.chain(different).map(|(value, exception)| Line { json: format!("\"c{index}\":{value}"), exception }),
        );
    }
    columns.push("polygon Polygon, simple SimpleAggregateFunction(groupArrayArray, Array(UInt8))".to_owned());
    columns.push("`flat.a` Array(UInt8), `flat.b` Array(String)".to_owned());
    for json in [
        r#""polygon":[[[1,2],[3,4]]]"#,
        r#""simple":[1,2]"#,
        r#""flat.a":[1,2],"flat.b":["x","y"]"#,
        r#""flat.b":[],"flat.a":null"#,
    ] {
        lines.push(Line { json: json.to_owned(), exception: None });
    }
    compare(clickhouse, &database, &columns.join(", "), &lines);
}
