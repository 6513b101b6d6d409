//! Types that hold values of several types, against ClickHouse's own `JSONEachRow`: JSON and Variant.

use crate::oracle::{Line, compare};
use crate::support::{Server, post, shared_clickhouse};

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

#[test]
fn a_dynamic_has_the_type_that_its_value_alone_decides() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.open (id UInt32, v Dynamic, l Array(Dynamic), m Map(String, Dynamic), \
         n Int64 DEFAULT id + 1) ENGINE = MergeTree ORDER BY id"
    ));
    let server = Server::start(clickhouse, &database, &["--table", "open", "--insert-format", "native"]);
    let cases = [
        ("null", "None", ""),
        ("true", "Bool", "true"),
        ("-1", "Int64", "-1"),
        ("18446744073709551615", "UInt64", "18446744073709551615"),
        ("1e2", "Float64", "100"),
        ("\"x\"", "String", "x"),
        ("\"2020-01-01\"", "Date", "2020-01-01"),
        ("\"2020-01-01T00:00:00Z\"", "DateTime", "2020-01-01 00:00:00"),
        ("\"2020-01-01 00:00:00.5Z\"", "DateTime64(9)", "2020-01-01 00:00:00.500000000"),
        ("\"1 May 2020\"", "String", "1 May 2020"),
        ("[]", "Array(Nullable(String))", "[]"),
        ("[1,null]", "Array(Nullable(Int64))", "[1,NULL]"),
        ("[[1],[2.5]]", "Array(Array(Nullable(Float64)))", "[[1],[2.5]]"),
        ("[1,\"x\",[true]]", "Array(Dynamic)", "[1,'x',[true]]"),
        ("{\"b\":1,\"a\":{\"c\":[]}}", "JSON", "{\"a\":{\"c\":[]},\"b\":1}"),
        ("[{\"a\":1},{}]", "Array(JSON)", "['{\"a\":1}','{}']"),
    ];
    let line = |(id, (json, _, _)): (usize, &(&str, &str, &str))| {
        format!("{{\"id\":{id},\"v\":{json},\"l\":[{json},0],\"m\":{{\"k\":{json}}}}}\n")
    };
    let body: String = cases.iter().enumerate().map(line).collect();
    let reply = post(server.address(), "/api/open", body.as_bytes());
    assert_eq!(reply.text(), format!("{{\"accepted\":{},\"rejected\":0}}", cases.len()));
    server.wait_for_rows(clickhouse, &format!("{database}.open"), cases.len() as u64);
    for value in ["v", "l[1]", "m['k']"] {
        let rows = format!("SELECT dynamicType({value}), toString({value}) FROM {database}.open ORDER BY id");
        let rows = clickhouse.query(&format!("{rows} FORMAT TSVRaw"));
        let expected: Vec<String> = cases.iter().map(|(_, kind, text)| format!("{kind}\t{text}")).collect();
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected, "{value}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_path_of_a_json_that_has_a_type_is_checked_before_the_reply() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.typed (id UInt32, j JSON(a.b UInt8, `d e` DateTime('UTC'), SKIP s, max_dynamic_paths = 4), \
         n Array(JSON(x Array(Nullable(Int8))))) ENGINE = MergeTree ORDER BY id"
    ));
    let server = Server::start(clickhouse, &database, &["--table", "typed"]);
    let body = r#"{"id":1,"j":{"a":{"b":7,"c":1},"d e":"2020-01-01T00:00:00Z","s":"x","z":[1]},"n":[{"x":[1,null]},{}]}
{"id":2,"j":{"a":{"b":256}}}
{"id":3,"j":{"d e":"never"}}
{"id":4,"n":[{"x":["y"]}]}
{"id":5,"j":{"a.b":"8"}}"#;
    let reply: serde_json::Value =
        serde_json::from_str(&post(server.address(), "/api/typed", body.as_bytes()).text()).unwrap();
    let refused: Vec<_> = reply["errors"].as_array().unwrap().iter().map(|error| error["line"].clone()).collect();
    assert_eq!((&reply["accepted"], refused), (&2.into(), vec![2.into(), 3.into(), 4.into()]), "{reply}");
    server.wait_for_rows(clickhouse, &format!("{database}.typed"), 2);
    let rows =
        clickhouse.query(&format!("SELECT j.a.b, j.`d e`, j.z, n FROM {database}.typed ORDER BY id FORMAT TSVRaw"));
    assert_eq!(
        rows,
        "7\t2020-01-01 00:00:00\t[1]\t['{\"x\":[1,null]}','{\"x\":[]}']\n8\t1970-01-01 00:00:00\t\\N\t[]\n"
    );
    assert!(server.stop().success());
}
