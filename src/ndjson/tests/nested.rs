//! Arrays, maps and tuples: what they are made of, in which order, and what of them is refused. The
//! comparison with ClickHouse is in `tests/end_to_end/types.rs`.

use super::*;
use LineCode::{DuplicateField, InvalidJson, OutOfRange, TypeMismatch};

fn byte(value: u8) -> Value {
    Value::UInt8(value)
}

fn array(values: &[Value]) -> Result<Value, LineCode> {
    Ok(Value::Array(values.to_vec()))
}

#[test]
fn an_array_has_its_elements_in_order_and_null_is_their_default() {
    check(
        "Array(UInt8)",
        &[
            ("[]", array(&[])),
            ("[ ]", array(&[])),
            ("[1,2]", array(&[byte(1), byte(2)])),
            ("[\t1 ,\r2 ]", array(&[byte(1), byte(2)])),
            (r#"["1",true,null]"#, array(&[byte(1), byte(1), byte(0)])),
            ("null", array(&[])),
            ("[300]", Err(OutOfRange)),
            ("[1.5]", Err(TypeMismatch)),
            ("[[1]]", Err(TypeMismatch)),
            (r#""[1]""#, Err(TypeMismatch)),
            ("1", Err(TypeMismatch)),
            (r#"{"0":1}"#, Err(TypeMismatch)),
            ("[1,]", Err(InvalidJson)),
            ("[1 2]", Err(InvalidJson)),
            ("[1", Err(InvalidJson)),
        ],
    );
    check(
        "Array(String)",
        &[
            (
                r#"["a",1,true,null,{"a" : [1]},"\u0041"]"#,
                array(&[text("a"), text("1"), text("true"), text(""), text(r#"{"a" : [1]}"#), text("A")]),
            ),
            (r#"["\ud800"]"#, Err(InvalidJson)),
        ],
    );
    let some = |value| Value::Nullable(Some(Box::new(value)));
    check("Array(Nullable(UInt8))", &[("[null,5]", array(&[Value::Nullable(None), some(byte(5))]))]);
    check(
        "Array(Array(UInt8))",
        &[("[[],[1],null]", { array(&[Value::Array(vec![]), Value::Array(vec![byte(1)]), Value::Array(vec![])]) })],
    );
}

#[test]
fn an_array_of_any_length_has_its_number_in_front() {
    for length in [0, 1, 127, 128, 129, 16_383, 16_384, 20_000] {
        let json = format!("[{}]", vec!["7"; length].join(","));
        assert_eq!(cell("Array(UInt8)", &json), Ok(Value::Array(vec![byte(7); length])), "{length}");
        let json = format!("[{}]", vec!["\"\\u0041\""; length].join(","));
        assert_eq!(cell("Array(String)", &json), Ok(Value::Array(vec![text("A"); length])), "{length}");
    }
}

#[test]
fn a_map_is_an_object_whose_keys_are_texts_of_their_type() {
    let map = |pairs: &[(Value, Value)]| Ok(Value::Map(pairs.to_vec()));
    check(
        "Map(String, UInt8)",
        &[
            ("{}", map(&[])),
            (r#"{"b":1,"a":"2"}"#, map(&[(text("b"), byte(1)), (text("a"), byte(2))])),
            (r#"{"a":1,"a":2}"#, map(&[(text("a"), byte(1)), (text("a"), byte(2))])),
            (r#"{"\u0061":null,"":3}"#, map(&[(text("a"), byte(0)), (text(""), byte(3))])),
            ("null", map(&[])),
            (r#"{"a":300}"#, Err(OutOfRange)),
            (r#"{"\ud800":1}"#, Err(InvalidJson)),
            ("[]", Err(TypeMismatch)),
            (r#"[["a",1]]"#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
        ],
    );
    check(
        "Map(UInt8, Array(String))",
        &[
            (r#"{"1":["a"],"02":[]}"#, {
                map(&[(byte(1), Value::Array(vec![text("a")])), (byte(2), Value::Array(vec![]))])
            }),
            (r#"{"x":[]}"#, Err(TypeMismatch)),
            (r#"{"256":[]}"#, Err(OutOfRange)),
        ],
    );
}

#[test]
fn a_tuple_is_an_object_in_any_order_or_an_array_of_all_elements() {
    let pair = |a, b: &str| Ok(Value::Tuple(vec![byte(a), text(b)]));
    check(
        "Tuple(a UInt8, b String)",
        &[
            (r#"{"a":1,"b":"x"}"#, pair(1, "x")),
            (r#"{"b":"x","a":1}"#, pair(1, "x")),
            (r#"{"\u0062":"x","a":1}"#, pair(1, "x")),
            (r#"{"b":"x"}"#, pair(0, "x")),
            (r#"{"a":1}"#, pair(1, "")),
            ("{}", pair(0, "")),
            (r#"{"A":1,"other":[{"a":5}],"\ud800":7}"#, pair(0, "")),
            (r#"{"a":null,"b":null}"#, pair(0, "")),
            (r#"[1,"x"]"#, pair(1, "x")),
            ("[null,null]", pair(0, "")),
            ("null", pair(0, "")),
            (r#"{"a":1,"a":2}"#, Err(DuplicateField)),
            (r#"{"b":"","a":1,"b":""}"#, Err(DuplicateField)),
            (r#"{"a":300}"#, Err(OutOfRange)),
            (r#"{"b":"\ud800"}"#, Err(InvalidJson)),
            ("[]", Err(TypeMismatch)),
            ("[1]", Err(TypeMismatch)),
            (r#"[1,"x",2]"#, Err(TypeMismatch)),
            ("1", Err(TypeMismatch)),
            (r#""x""#, Err(TypeMismatch)),
        ],
    );
    check(
        "Tuple(UInt8, String)",
        &[(r#"[1,"x"]"#, pair(1, "x")), (r#"{"1":1,"2":"x"}"#, Err(TypeMismatch)), ("{}", Err(TypeMismatch))],
    );
    let inner = Value::Tuple(vec![Value::Tuple(vec![byte(1), text("y")]), byte(2), text("z")]);
    for json in [
        r#"{"t":{"a":1,"b":"y"},"c":2,"d":"z"}"#,
        r#"{"d":"z","c":2,"t":{"b":"y","a":1}}"#,
        r#"{"c":2,"t":[1,"y"],"d":"z"}"#,
        r#"[{"b":"y","a":1},2,"z"]"#,
    ] {
        assert_eq!(cell("Tuple(t Tuple(a UInt8, b String), c UInt8, d String)", json), Ok(inner.clone()), "{json}");
    }
}

#[test]
fn a_refused_value_leaves_nothing_behind_for_the_next_line() {
    let plan = plan(&[("x", "Array(Tuple(a UInt8, b Array(UInt8)))"), ("y", "UInt8")]);
    let body = b"{\"x\":[{\"b\":[1],\"a\":300}],\"y\":1}\n{\"y\":2,\"x\":[{\"b\":[3],\"a\":4}]}\n{\"x\":[{\"b\":[1,\n{\"y\":5}\n";
    let outcome = encode(&plan, body);
    assert_eq!((outcome.count, outcome.report.rejected), (2, 2));
    let inner = Value::Tuple(vec![byte(4), Value::Array(vec![byte(3)])]);
    assert_eq!(
        decode(&plan, &outcome.rows),
        [vec![Value::Array(vec![inner]), byte(2)], vec![Value::Array(vec![]), byte(5)]]
    );
}

#[test]
fn a_value_may_be_as_deep_as_its_type_and_no_line_deeper_than_the_limit() {
    let levels = crate::rowbinary::TYPE_DEPTH_MAX - 1;
    let deepest = format!("{}UInt8{}", "Array(".repeat(levels), ")".repeat(levels));
    let plan = plan(&[("x", &deepest), ("t", "Tuple(a UInt8)")]);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let line = format!("{{\"x\":{}}}\n", nested(levels));
    assert_eq!(encode(&plan, line.as_bytes()).count, 1);
    for (depth, code) in [(levels + 1, TypeMismatch), (100, TypeMismatch), (1000, LineCode::TooDeep)] {
        let outcome = encode(&plan, format!("{{\"x\":{}}}\n", nested(depth)).as_bytes());
        assert_eq!(outcome.report.errors[0].code, code, "{depth}");
    }
    for depth in [1, 60, 90, 100, 120, 125, 126, 127, 128, 1000] {
        let line = format!("{{\"t\":{{\"a\":1,\"other\":{}}}}}\n", nested(depth));
        let expected = u32::from(depth + 2 <= crate::limits::DEPTH_MAX);
        assert_eq!(encode(&plan, line.as_bytes()).count, expected, "{depth}");
    }
}

#[test]
fn the_arrays_of_a_nested_column_have_as_many_elements() {
    let arrays = [("id", "UInt8"), ("n.a", "Array(String)"), ("s", "String"), ("n.b", "Array(Array(UInt8))")];
    let plan = plan(&arrays);
    let body = r#"{"id":1,"n.a":["x","y"],"s":"z","n.b":[[],[1]]}
{"id":2,"n.b":[[1]],"n.a":["x","y"]}
{"id":3,"n.a":["x"]}
{"id":4,"n.b":[[]],"n.a":null}
{"id":5}
{"n.a":[],"n.b":[],"id":6}"#;
    let outcome = encode(&plan, body.as_bytes());
    let ids: Vec<Value> = decode(&plan, &outcome.rows).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, [1, 5, 6].map(Value::UInt8));
    let lines: Vec<u32> = outcome.report.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 4]);
    let first = &outcome.report.errors[0];
    assert_eq!((first.code, first.column.as_deref()), (LineCode::TypeMismatch, Some("n.b")));
    assert!(first.message.starts_with("`n.b` has 1 elements and `n.a` has 2"), "{}", first.message);
    // Other names, and what is no array, do not belong together.
    for (one, other) in [("n.a", "m.a"), ("n", "m"), (".a", ".b")] {
        let plan = super::plan(&[(one, "Array(UInt8)"), (other, "Array(UInt8)")]);
        let line = format!("{{\"{one}\":[1],\"{other}\":[]}}");
        assert_eq!(encode(&plan, line.as_bytes()).count, 1, "{line}");
    }
    let plan = super::plan(&[("n.a", "Array(UInt8)"), ("n.b", "Map(String, UInt8)"), ("n.c", "String")]);
    assert_eq!(encode(&plan, br#"{"n.a":[1],"n.b":{}}"#).count, 1);
}

#[test]
fn an_array_that_gets_its_default_is_not_compared() {
    let column = |name: &str, kind: &str| ColumnDescription {
        name: name.to_owned(),
        type_name: "Array(UInt8)".to_owned(),
        default_kind: kind.to_owned(),
        default_expression: String::new(),
    };
    let columns = [column("n.a", "DEFAULT"), column("n.e", "EPHEMERAL"), column("n.b", ""), column("n.c", "")];
    let plan = Arc::new(Plan::compile(&columns, "UTC").unwrap());
    for (line, accepted) in [
        (r#"{"n.b":[1,2],"n.c":[3,4]}"#, 1),
        (r#"{"n.b":[1,2],"n.c":[3]}"#, 0),
        (r#"{"n.a":[1],"n.b":[1],"n.c":[3]}"#, 1),
        (r#"{"n.a":[1],"n.b":[1,2],"n.c":[3,4]}"#, 0),
        (r#"{"n.e":[1],"n.b":[1,2],"n.c":[3,4]}"#, 1),
    ] {
        assert_eq!(encode(&plan, line.as_bytes()).count, accepted, "{line}");
    }
}
