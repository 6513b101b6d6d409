//! Types that hold values of several types, against ClickHouse's own `JSONEachRow`: JSON and Variant.

use crate::oracle::{Line, compare};
use crate::support::shared_clickhouse;

const OBJECTS: [&str; 48] = [
    "{}",
    "{\"a\":1}",
    "{\"a\":{\"b\":[1,2]},\"c\":null}",
    "{ \"a\" : \"x\\n\\u0041\" , \"b\" : [ ] }",
    "{\"a\":\"2020-01-01\",\"b\":\"2020-01-01T00:00:00Z\",\"c\":true}",
    "{\"\\u0061\":1,\"\\ud83d\\ude00\":2}",
    "{\"a\":1,\"a\":2}",
    "{\"a\":null,\"a\":1}",
    "{\"a\":1,\"\\u0061\":2}",
    "{\"a\":{\"b\":1},\"a\":{\"c\":2}}",
    "{\"a\":{\"b\":1},\"a.b\":2}",
    "{\"a.b\":{\"c\":1},\"a\":{\"b\":{\"d\":1}}}",
    "{\"a\":{\"a\":{\"a\":1}}}",
    "{\"a\":[{\"b\":1,\"b\":2}]}",
    "{\"a\":[{\"b\":1},{\"b\":2}],\"b\":1}",
    "{\"a\":[[{\"b\":1}],[2]],\"c\":[{\"b\":{\"c\":1},\"b.c\":1}]}",
    "{\"a\":[1,\"x\",null,true,1.5,{\"b\":1}]}",
    "{\"a\":18446744073709551615}",
    "{\"a\":18446744073709551616}",
    "{\"a\":-9223372036854775808}",
    "{\"a\":-9223372036854775809}",
    "{\"a\":[18446744073709551616]}",
    "{\"a\":1e308}",
    "{\"a\":1e309}",
    "{\"a\":-1E400}",
    "{\"a\":1e-400}",
    "{\"a\":123456789012345678901234567890.5}",
    "{\"a\":-0}",
    "{\"a\":-0.0}",
    "{\"a\":\"\\ud800\"}",
    "{\"\\ud800\":1}",
    "{\"a\":[{\"b\":\"\\ud800\"}]}",
    "{\"\":1}",
    "{\"\":{\"\":1},\".\":1}",
    "{\"a\":{},\"b\":[{}]}",
    "{\"a\":\"x\\u0000y\"}",
    "{\"a\":[[],[[]]]}",
    "null",
    "1",
    "true",
    "\"{}\"",
    "\"x\"",
    "[]",
    "[{\"a\":1}]",
    "[1]",
    "{\"a\":1,}",
    "{\"a\":[1,]}",
    "{\"a\":01}",
];

#[test]
fn a_json_is_what_clickhouse_makes_of_it_wherever_it_stands() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let columns = "plain JSON, nullable Nullable(JSON), list Array(JSON), map Map(String, JSON), \
                   tuple Tuple(a UInt8, v JSON), fewer JSON(max_dynamic_paths = 1, SKIP b), \
                   defaulted JSON DEFAULT '{\"made\":\"here\"}'";
    let positions = ["plain", "nullable", "list", "map", "tuple", "fewer", "defaulted"];
    let lines = positions.into_iter().flat_map(|position| {
        OBJECTS.iter().map(move |value| {
            let json = match position {
                "list" => format!("[{value},{value}]"),
                "map" => format!("{{\"k\":{value}}}"),
                "tuple" => format!("{{\"v\":{value},\"a\":1}}"),
                _ => (*value).to_owned(),
            };
            Line { json: format!("\"{position}\":{json}"), exception: None }
        })
    });
    compare(clickhouse, &database, columns, &lines.collect::<Vec<_>>());
}

const VALUES: [&str; 40] = [
    "1",
    "-1",
    "0",
    "300",
    "70000",
    "1.5",
    "1e3",
    "0.1",
    "true",
    "false",
    "null",
    "\"5\"",
    "\"x\"",
    "\"1.5\"",
    "\"true\"",
    "\"\"",
    "\"2020-01-01\"",
    "\"2020-01-01 00:00:00\"",
    "\"1.2.3.4\"",
    "\"::1\"",
    "\"0287d9aa-4adf-4b37-a60f-3e9e645c821e\"",
    "\"12:34:56\"",
    "18446744073709551615",
    "99999999999999999999",
    "[]",
    "[1,2]",
    "[\"a\"]",
    "[null]",
    "[1,\"a\"]",
    "[[1]]",
    "[[1,2],[3,4]]",
    "[[[1,2]]]",
    "[[[[1,2]]]]",
    "{}",
    "{\"a\":1}",
    "{\"a\":[1]}",
    "{\"a\":\"x\"}",
    "{\"b\":1}",
    "\"abc\"",
    "[300]",
];

/// Each with the values that are something else here, and the reason.
const VARIANTS: [(&str, &[(&str, &str)]); 13] = [
    ("Variant(UInt8, String)", &[]),
    ("Variant(Int64, Float64, Bool)", &[]),
    ("Variant(Int8, UInt16, Int32, UInt64, Int256)", &[]),
    ("Variant(UUID, IPv4, IPv6, Date, String)", &[]),
    ("Variant(Enum8('x' = 1, '5' = 5), String, Bool)", &[]),
    ("Variant(FixedString(2), String)", &[]),
    ("Variant(Array(UInt8), Array(String), Map(String, UInt8), Tuple(a UInt8))", &[]),
    ("Variant(String, Array(Variant(String, UInt8)))", &[]),
    ("Variant(Array(Nullable(UInt8)), Array(Array(UInt8)), UInt8)", &[]),
    ("Variant(Decimal(9, 2), String)", &[("\"5\"", QUOTED), ("\"1.5\"", QUOTED), ("\"\"", QUOTED)]),
    ("Variant(Float32, Date)", &[]),
    ("Variant(JSON, UInt8, Array(JSON))", &[]),
    ("Geometry", &[]),
];

const QUOTED: &str = "a quoted decimal is a decimal in a Variant too";

#[test]
fn a_variant_has_the_first_type_that_takes_the_value_as_in_clickhouse() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (mut columns, mut lines) = (Vec::new(), Vec::new());
    for (index, (type_name, different)) in VARIANTS.iter().enumerate() {
        columns.push(format!("c{index} {type_name}, t{index} LowCardinality(String) DEFAULT variantType(c{index})"));
        columns.push(format!("l{index} Array({type_name})"));
        for value in VALUES {
            let exception = different.iter().find(|(other, _)| *other == value).map(|(_, reason)| *reason);
            lines.push(Line { json: format!("\"c{index}\":{value}"), exception });
            lines.push(Line { json: format!("\"l{index}\":[{value}]"), exception });
        }
    }
    compare(clickhouse, &database, &columns.join(", "), &lines);
}
