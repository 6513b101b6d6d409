//! Types that are rarer than those in `types`: their values, and what of them is refused.

use super::*;
use LineCode::{DuplicateField, InvalidJson, OutOfRange, TypeMismatch};

#[test]
fn integers_of_128_and_256_bits_have_their_limits() {
    let int = |value: i128| Ok(Value::Int128(value));
    check(
        "Int128",
        &[
            ("0", int(0)),
            ("-0", int(0)),
            ("-5", int(-5)),
            ("123456789012345678901234567890", int(123_456_789_012_345_678_901_234_567_890)),
            (r#""+5""#, int(5)),
            (r#""""#, int(0)),
            ("true", int(1)),
            (r#""false""#, int(0)),
            ("null", int(0)),
            ("170141183460469231731687303715884105727", int(i128::MAX)),
            ("-170141183460469231731687303715884105728", int(i128::MIN)),
            ("170141183460469231731687303715884105728", Err(OutOfRange)),
            ("-170141183460469231731687303715884105729", Err(OutOfRange)),
            ("1.0", int(1)),
            ("1e2", int(100)),
            ("1e38", int(10i128.pow(38))),
            ("170141183460469231731687303715884105728.0", Err(OutOfRange)),
            (r#"" 5""#, Err(TypeMismatch)),
            ("[]", Err(TypeMismatch)),
        ],
    );
    let most = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    check(
        "UInt256",
        &[
            (most, Ok(Value::UInt256([0xff; 32]))),
            ("115792089237316195423570985008687907853269984665640564039457584007913129639936", Err(OutOfRange)),
            ("-1", Err(OutOfRange)),
            ("-0", Err(OutOfRange)),
        ],
    );
    assert_eq!(cell("Int256", "-1"), Ok(Value::Int256([0xff; 32])));
    assert_eq!(cell("UInt128", "340282366920938463463374607431768211455"), Ok(Value::UInt128(u128::MAX)));
    assert_eq!(cell("UInt128", &"9".repeat(1000)), Err(OutOfRange));
}

#[test]
fn a_decimal_of_each_width_counts_its_smallest_unit() {
    check(
        "Decimal(9, 2)",
        &[
            ("1.5", Ok(Value::Decimal32(150))),
            ("-1.239", Ok(Value::Decimal32(-123))),
            (r#""1.5""#, Ok(Value::Decimal32(150))),
            (r#""\u0031""#, Ok(Value::Decimal32(100))),
            (r#""""#, Ok(Value::Decimal32(0))),
            ("null", Ok(Value::Decimal32(0))),
            ("10000000", Err(OutOfRange)),
            (r#""1e""#, Err(TypeMismatch)),
            (r#""inf""#, Err(TypeMismatch)),
            ("true", Err(TypeMismatch)),
            ("[]", Err(TypeMismatch)),
        ],
    );
    assert_eq!(cell("Decimal(18, 4)", "-0.5"), Ok(Value::Decimal64(-5000)));
    assert_eq!(cell("Decimal(38, 0)", "-7"), Ok(Value::Decimal128(-7)));
    assert_eq!(cell("Decimal(76, 1)", "-0.1"), Ok(Value::Decimal256([0xff; 32])));
}

#[test]
fn a_bfloat16_is_the_upper_half_of_a_float32() {
    check(
        "BFloat16",
        &[
            ("1.5", Ok(Value::BFloat16(1.5))),
            ("0.1", Ok(Value::BFloat16(0.099_609_375))),
            ("1.0078124", Ok(Value::BFloat16(1.0))),
            (r#""-inf""#, Ok(Value::BFloat16(f32::NEG_INFINITY))),
            ("1e39", Err(OutOfRange)),
            (r#""""#, Err(TypeMismatch)),
        ],
    );
}

#[test]
fn a_time_is_hours_minutes_and_seconds_in_either_direction() {
    let ticks = |type_name: &str, json: &str| {
        let plan = plan(&[("x", type_name)]);
        let outcome = encode(&plan, format!("{{\"x\":{json}}}\n").as_bytes());
        match outcome.report.errors.first() {
            Some(error) => Err(error.code),
            None if type_name == "Time" => Ok(i64::from(i32::from_le_bytes(outcome.rows[..].try_into().unwrap()))),
            None => Ok(i64::from_le_bytes(outcome.rows[..].try_into().unwrap())),
        }
    };
    for (json, expected) in [
        (r#""12:34:56""#, Ok(45_296)),
        (r#""1:02:03""#, Ok(3723)),
        (r#""12:34""#, Ok(754)),
        (r#""60:00""#, Ok(3600)),
        (r#""99""#, Ok(99)),
        (r#""-12:34:56""#, Ok(-45_296)),
        (r#""999:59:59""#, Ok(3_599_999)),
        ("3600", Ok(3600)),
        ("-3599999", Ok(-3_599_999)),
        ("null", Ok(0)),
        ("3600000", Err(OutOfRange)),
        ("123456789012", Err(OutOfRange)),
        (r#""12:60:00""#, Err(OutOfRange)),
        (r#""12:00:60""#, Err(OutOfRange)),
        (r#""12:34:56.5""#, Err(TypeMismatch)),
        (r#""1000:00:00""#, Err(TypeMismatch)),
        (r#""123:00""#, Err(TypeMismatch)),
        (r#""1:2:3""#, Err(TypeMismatch)),
        (r#""1:""#, Err(TypeMismatch)),
        (r#""+1:00:00""#, Err(TypeMismatch)),
        (r#""""#, Err(TypeMismatch)),
        ("1.5", Err(TypeMismatch)),
        ("true", Err(TypeMismatch)),
    ] {
        assert_eq!(ticks("Time", json), expected, "{json}");
    }
    for (json, expected) in [
        (r#""12:34:56.5""#, Ok(45_296_500)),
        (r#""-0:00:00.5""#, Ok(-500)),
        (r#""-00:00.25""#, Ok(-250)),
        (r#""5.0009999""#, Ok(5000)),
        (r#""12:34:56.""#, Ok(45_296_000)),
        ("5", Ok(5)),
        ("3599999999", Ok(3_599_999_999)),
        ("3600000000", Err(OutOfRange)),
        ("-9223372036854775808", Err(OutOfRange)),
        (r#""5.x""#, Err(TypeMismatch)),
        (r#"".5""#, Err(TypeMismatch)),
    ] {
        assert_eq!(ticks("Time64(3)", json), expected, "{json}");
    }
}

#[test]
fn a_geo_value_is_arrays_of_numbers() {
    let rows = |type_name: &str, json: &str| {
        let plan = plan(&[("x", type_name)]);
        let outcome = encode(&plan, format!("{{\"x\":{json}}}\n").as_bytes());
        (outcome.count == 1).then_some(outcome.rows)
    };
    let point = [1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat();
    assert_eq!(rows("Point", "[1.5,-2]"), Some(point.clone()));
    assert_eq!(rows("Ring", "[[1.5,-2]]"), Some([&[1], &point[..]].concat()));
    assert_eq!(rows("MultiPolygon", "[[[[1.5,-2]]]]"), Some([&[1, 1, 1], &point[..]].concat()));
    for json in ["[1]", "[1,2,3]", r#"{"x":1,"y":2}"#, r#""(1,2)""#] {
        assert_eq!(rows("Point", json), None, "{json}");
    }
}

#[test]
fn a_json_is_stored_as_its_text_if_clickhouse_takes_it() {
    let row = |json: &str| {
        let outcome = encode(&plan(&[("x", "Array(JSON)")]), format!("{{\"x\":[{json}]}}\n").as_bytes());
        outcome.report.errors.first().map_or(Ok(outcome.rows), |error| Err(error.code))
    };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(300));
    for json in [
        "{}",
        "{ \"a\" : [ ] }",
        r#"{"a":{"b":[1,{"c":2}]},"c":null,"d":"\u00e4"}"#,
        r#"{"a":[{"b":1},{"b":2}],"b":1,"c":{"b":3}}"#,
        r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1e308,"d":1e-400,"e":-0}"#,
        r#"{"a.b":{"c":1},"a":{"b":{"d":1}}}"#,
        r#"{"":{"":1},"b":[[],[[]],{}]}"#,
        &long,
    ] {
        let mut expected = Vec::new();
        clickhouse_rowbinary::io::write_uvarint(1, &mut expected).unwrap();
        clickhouse_rowbinary::io::write_string(json, &mut expected).unwrap();
        assert_eq!(row(json), Ok(expected), "{json}");
    }
    assert_eq!(row("null"), Ok(b"\x01\x02{}".to_vec()));
    for (json, code) in [
        (r#"{"a":1,"a":2}"#, DuplicateField),
        (r#"{"a":1,"\u0061":2}"#, DuplicateField),
        (r#"{"a":{},"a":{}}"#, DuplicateField),
        (r#"{"a":{"b":1},"a.b":2}"#, DuplicateField),
        (r#"{"":{"":1},".":1}"#, DuplicateField),
        (r#"{"a":[1,[{"b":1,"b":2}]]}"#, DuplicateField),
        (r#"{"a":[{"b":{"c":1},"b.c":2}]}"#, DuplicateField),
        (r#"{"a":18446744073709551616}"#, OutOfRange),
        (r#"{"a":[-9223372036854775809]}"#, OutOfRange),
        (r#"{"a":1e309}"#, OutOfRange),
        (r#"{"a":"\ud800"}"#, InvalidJson),
        (r#"{"\ud800":1}"#, InvalidJson),
        ("[]", TypeMismatch),
        ("1", TypeMismatch),
        (r#""{}""#, TypeMismatch),
        ("true", TypeMismatch),
    ] {
        assert_eq!(row(json), Err(code), "{json}");
    }
}

#[test]
fn a_variant_has_the_first_type_that_takes_the_value() {
    let of = |index, value| Ok(Value::Variant { index, value: Box::new(value) });
    check(
        "Variant(Array(UInt8), String, UInt8)",
        &[
            ("5", of(2, Value::UInt8(5))),
            (r#""5""#, of(2, Value::UInt8(5))),
            ("300", of(1, text("300"))),
            (r#""x""#, of(1, text("x"))),
            ("[1]", of(0, Value::Array(vec![Value::UInt8(1)]))),
            ("[300]", of(1, text("[300]"))),
            (r#"{"a":1}"#, of(1, text(r#"{"a":1}"#))),
            ("null", Ok(Value::VariantNull)),
        ],
    );
    check(
        "Variant(Date, UInt8)",
        &[("70000", Err(OutOfRange)), ("[]", Err(TypeMismatch)), (r#""2020-01-02""#, of(0, Value::Date(18263)))],
    );
}
