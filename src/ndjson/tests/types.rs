//! One table of cases per type: valid values, defaults, null, mismatches and values out of range. The
//! expected values are those of ClickHouse 26.7, unless a comment says otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use LineCode::{InvalidJson, OutOfRange, TypeMismatch};

#[test]
fn any_value_but_null_becomes_a_string() {
    for type_name in ["String", "LowCardinality(String)"] {
        check(
            type_name,
            &[
                (r#""""#, Ok(text(""))),
                (r#""a""#, Ok(text("a"))),
                (r#""привет\n\u043f😀\ud83d\ude00""#, Ok(text("привет\nп😀😀"))),
                (r#""a\/b\\\"\u0000""#, Ok(text("a/b\\\"\0"))),
                ("null", Ok(text(""))),
                ("5", Ok(text("5"))),
                ("1.50", Ok(text("1.50"))),
                ("-0", Ok(text("-0"))),
                ("1e5", Ok(text("1e5"))),
                ("true", Ok(text("true"))),
                ("false", Ok(text("false"))),
                (r#"{"a" : 1}"#, Ok(text(r#"{"a" : 1}"#))),
                (r#"[1, 2, "x"]"#, Ok(text(r#"[1, 2, "x"]"#))),
                (r#""\ud800""#, Err(InvalidJson)),
                (r#""\udc00""#, Err(InvalidJson)),
                (r#""\ud83d\u0041""#, Err(InvalidJson)),
                (r#""\q""#, Err(InvalidJson)),
                ("\"a\tb\"", Err(InvalidJson)),
                ("007", Err(InvalidJson)),
                ("{\"a\":1,}", Err(InvalidJson)),
            ],
        );
    }
    for length in [0, 1, 7, 8, 31, 32, 33, 127, 128, 129, 300, 16_383, 16_384, 70_000] {
        let long = "x".repeat(length);
        assert_eq!(cell("String", &format!("\"{long}\"")), Ok(text(&long)));
    }
}

#[test]
fn a_fixed_string_is_padded_and_never_cut() {
    let fixed = |text: &str| Ok(Value::FixedString(text.as_bytes().to_vec()));
    check(
        "FixedString(4)",
        &[
            (r#""abcd""#, fixed("abcd")),
            (r#""ab""#, fixed("ab\0\0")),
            (r#""""#, fixed("\0\0\0\0")),
            (r#""\u043f\u0440""#, fixed("пр")),
            ("null", fixed("\0\0\0\0")),
            (r#""abcde""#, Err(OutOfRange)),
            (r#""abcd\u0065""#, Err(OutOfRange)),
            ("12", Err(TypeMismatch)),
            ("true", Err(TypeMismatch)),
            ("{}", Err(TypeMismatch)),
        ],
    );
}

#[test]
fn an_integer_outside_its_type_is_rejected() {
    let small = |value| Ok(Value::UInt8(value));
    check(
        "UInt8",
        &[
            ("0", small(0)),
            ("255", small(255)),
            (r#""5""#, small(5)),
            (r#""+5""#, small(5)),
            (r#""007""#, small(7)),
            (r#""\u0035""#, small(5)),
            (r#""""#, small(0)),
            ("true", small(1)),
            (r#""true""#, small(1)),
            (r#""false""#, small(0)),
            ("null", small(0)),
            ("256", Err(OutOfRange)),
            ("300", Err(OutOfRange)),
            ("-1", Err(OutOfRange)),
            ("-0", Err(OutOfRange)),
            ("1.0", small(1)),
            ("1e2", small(100)),
            ("0.25e3", small(250)),
            ("2550e-1", small(255)),
            ("256.0", Err(OutOfRange)),
            ("-1.0", Err(OutOfRange)),
            ("1e300", Err(OutOfRange)),
            ("0e999999999999999999999", small(0)),
            ("1.5", Err(TypeMismatch)),
            ("15e-1", Err(TypeMismatch)),
            ("1e-999999999999999999999", Err(TypeMismatch)),
            (r#""1.0""#, Err(TypeMismatch)),
            (r#"" 5""#, Err(TypeMismatch)),
            (r#""+""#, Err(TypeMismatch)),
            (r#""null""#, Err(TypeMismatch)),
            ("[]", Err(TypeMismatch)),
            ("{}", Err(TypeMismatch)),
            ("007", Err(InvalidJson)),
            ("+5", Err(InvalidJson)),
            ("--5", Err(InvalidJson)),
        ],
    );
    check(
        "Int8",
        &[
            ("-128", Ok(Value::Int8(-128))),
            ("127", Ok(Value::Int8(127))),
            (r#""-128""#, Ok(Value::Int8(-128))),
            ("-0", Ok(Value::Int8(0))),
            ("128", Err(OutOfRange)),
            ("-129", Err(OutOfRange)),
            (r#""-""#, Err(TypeMismatch)),
            (r#""- 5""#, Err(TypeMismatch)),
        ],
    );
}

#[test]
fn every_width_has_its_limits() {
    fn limits_of(type_name: &str, least: i128, most: i128) {
        for value in [least, least + 1, most - 1, most] {
            let json = value.to_string();
            let number = cell(type_name, &json).unwrap();
            let quoted = cell(type_name, &format!("\"{json}\"")).unwrap();
            assert_eq!(number, quoted);
            let written = match number {
                Value::Int8(value) => value.into(),
                Value::Int16(value) => value.into(),
                Value::Int32(value) => value.into(),
                Value::Int64(value) => value.into(),
                Value::UInt8(value) => value.into(),
                Value::UInt16(value) => value.into(),
                Value::UInt32(value) => value.into(),
                Value::UInt64(value) => i128::from(value),
                other => panic!("{other:?}"),
            };
            assert_eq!(written, value);
        }
        for value in [least - 1, most + 1, most * 10, i128::MAX, i128::MIN + 1] {
            assert_eq!(cell(type_name, &value.to_string()), Err(OutOfRange), "{value}");
        }
        assert_eq!(cell(type_name, &"9".repeat(500)), Err(OutOfRange));
    }
    limits_of("Int8", i8::MIN.into(), i8::MAX.into());
    limits_of("Int16", i16::MIN.into(), i16::MAX.into());
    limits_of("Int32", i32::MIN.into(), i32::MAX.into());
    limits_of("Int64", i64::MIN.into(), i64::MAX.into());
    limits_of("UInt8", 0, u8::MAX.into());
    limits_of("UInt16", 0, u16::MAX.into());
    limits_of("UInt32", 0, u32::MAX.into());
    limits_of("UInt64", 0, u64::MAX.into());
}

#[test]
fn floats_are_parsed_as_clickhouse_does() {
    let float = |value| Ok(Value::Float64(value));
    check(
        "Float64",
        &[
            ("1", float(1.0)),
            ("-1.5e3", float(-1500.0)),
            ("0.30000000000000004", float(0.300_000_000_000_000_04)),
            ("123456789012345678901234567890", float(1.234_567_890_123_456_8e29)),
            ("0.1e-400", float(0.0)),
            (r#""1.5""#, float(1.5)),
            (r#""+1.5""#, float(1.5)),
            (r#"".5""#, float(0.5)),
            (r#""5.""#, float(5.0)),
            (r#""inf""#, float(f64::INFINITY)),
            (r#""-Infinity""#, float(f64::NEG_INFINITY)),
            ("true", float(1.0)),
            (r#""true""#, float(1.0)),
            ("false", float(0.0)),
            ("null", float(0.0)),
            ("1e999", Err(OutOfRange)),
            (r#""-1e999""#, Err(OutOfRange)),
            (r#""""#, Err(TypeMismatch)),
            (r#""abc""#, Err(TypeMismatch)),
            (r#"" 1""#, Err(TypeMismatch)),
            (r#""1e""#, Err(TypeMismatch)),
            (r#""0x10""#, Err(TypeMismatch)),
            ("[]", Err(TypeMismatch)),
            ("nan", Err(InvalidJson)),
            ("inf", Err(InvalidJson)),
            ("1.", Err(InvalidJson)),
        ],
    );
    // NaN is not equal to itself, so `cell` can't be used.
    let plan = plan(&[("x", "Float64")]);
    for json in [r#""nan""#, r#""NaN""#, r#""-nan""#] {
        let outcome = encode(&plan, format!("{{\"x\":{json}}}").as_bytes());
        assert!(matches!(decode(&plan, &outcome.rows)[0][0], Value::Float64(value) if value.is_nan()));
    }
    check(
        "Float32",
        &[
            ("0.1", Ok(Value::Float32(0.1))),
            ("16777217", Ok(Value::Float32(16_777_216.0))),
            (r#""inf""#, Ok(Value::Float32(f32::INFINITY))),
            ("1e39", Err(OutOfRange)),
        ],
    );
}

#[test]
fn a_boolean_is_a_literal_or_0_or_1() {
    check(
        "Bool",
        &[
            ("true", Ok(Value::Bool(true))),
            ("false", Ok(Value::Bool(false))),
            ("1", Ok(Value::Bool(true))),
            ("0", Ok(Value::Bool(false))),
            ("null", Ok(Value::Bool(false))),
            ("2", Err(OutOfRange)),
            ("1.0", Err(TypeMismatch)),
            (r#""true""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
            ("truE", Err(InvalidJson)),
            ("truex", Err(InvalidJson)),
        ],
    );
}

#[test]
fn a_uuid_has_its_dashes_or_none() {
    let uuid = Ok(Value::Uuid("0287d9aa-4adf-4b37-a60f-3e9e645c821e".parse().unwrap()));
    let nil = Ok(Value::Uuid("00000000-0000-0000-0000-000000000000".parse().unwrap()));
    check(
        "UUID",
        &[
            (r#""0287D9AA-4ADF-4B37-A60F-3E9E645C821E""#, uuid.clone()),
            (r#""0287d9aa-4adf-4b37-a60f-3e9e645c821e""#, uuid.clone()),
            (r#""0287d9aa4adf4b37a60f3e9e645c821e""#, uuid.clone()),
            (
                r#""\u00300287d9aa4adf4b37a60f3e9e645c821""#,
                Ok(Value::Uuid("00287d9a-a4ad-f4b3-7a60-f3e9e645c821".parse().unwrap())),
            ),
            ("null", nil),
            (r#""0287d9aa-4adf-4b37-a60f-3e9e645c821""#, Err(TypeMismatch)),
            (r#""zz87d9aa-4adf-4b37-a60f-3e9e645c821e""#, Err(TypeMismatch)),
            (r#""0287D9AA+4ADF+4B37+A60F+3E9E645C821E""#, Err(TypeMismatch)),
            (r#""{0287D9AA-4ADF-4B37-A60F-3E9E645C821E}""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
            ("5", Err(TypeMismatch)),
        ],
    );
}

#[test]
fn addresses_are_parsed_from_text() {
    let v4 = |text: &str| Ok(Value::Ipv4(text.parse::<Ipv4Addr>().unwrap()));
    check(
        "IPv4",
        &[
            (r#""1.2.3.4""#, v4("1.2.3.4")),
            (r#""001.02.3.4""#, v4("1.2.3.4")),
            ("null", v4("0.0.0.0")),
            (r#""1.2.3""#, Err(TypeMismatch)),
            (r#""1.2.3.4.5""#, Err(TypeMismatch)),
            (r#""256.1.1.1""#, Err(TypeMismatch)),
            (r#""::1""#, Err(TypeMismatch)),
            (r#""1.2.3.4 ""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
            ("5", Err(TypeMismatch)),
        ],
    );
    let v6 = |text: &str| Ok(Value::Ipv6(text.parse::<Ipv6Addr>().unwrap()));
    check(
        "IPv6",
        &[
            (r#""2001:DB8::1""#, v6("2001:db8::1")),
            (r#""1.2.3.4""#, v6("::ffff:1.2.3.4")),
            ("null", v6("::")),
            (r#""fe80::1%eth0""#, Err(TypeMismatch)),
            (r#""1::2::3""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
        ],
    );
}

#[test]
fn an_enum_is_its_name_or_number() {
    let element = |value| Ok(Value::Enum8(value));
    check(
        "Enum8('a' = 1, 'b' = -2, '7' = 3)",
        &[
            (r#""a""#, element(1)),
            (r#""\u0061""#, element(1)),
            (r#""b""#, element(-2)),
            (r#""7""#, element(3)),
            ("1", element(1)),
            (r#""1""#, element(1)),
            (r#""+1""#, element(1)),
            (r#""-2""#, element(-2)),
            ("null", element(-2)),
            ("7", Err(OutOfRange)),
            (r#""9""#, Err(OutOfRange)),
            ("300", Err(OutOfRange)),
            (r#""c""#, Err(TypeMismatch)),
            (r#""c1""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
            ("1.0", Err(TypeMismatch)),
            ("true", Err(TypeMismatch)),
        ],
    );
    check(
        "Enum16('x' = 1000)",
        &[
            (r#""x""#, Ok(Value::Enum16(1000))),
            ("1000", Ok(Value::Enum16(1000))),
            ("null", Ok(Value::Enum16(1000))),
            ("-24", Err(OutOfRange)),
        ],
    );
}

#[test]
fn a_nullable_column_takes_null() {
    let some = |value| Ok(Value::Nullable(Some(Box::new(value))));
    let none = Ok(Value::Nullable(None));
    check(
        "Nullable(UInt8)",
        &[
            ("null", none.clone()),
            ("5", some(Value::UInt8(5))),
            (r#""""#, some(Value::UInt8(0))),
            ("true", some(Value::UInt8(1))),
            (r#""null""#, Err(TypeMismatch)),
            ("300", Err(OutOfRange)),
        ],
    );
    for type_name in ["Nullable(String)", "LowCardinality(Nullable(String))"] {
        check(
            type_name,
            &[
                ("null", none.clone()),
                (r#""null""#, some(text("null"))),
                ("5", some(text("5"))),
                (r#"{"a":1}"#, some(text(r#"{"a":1}"#))),
            ],
        );
    }
    check(
        "Nullable(DateTime('UTC'))",
        &[
            ("null", none),
            (r#""2020-12-01 23:09:54""#, some(Value::DateTime(1_606_864_194))),
            (r#""2020-12-01 23:09:54+00:00""#, some(Value::DateTime(1_606_864_194))),
            (r#""""#, Err(TypeMismatch)),
        ],
    );
}

#[test]
fn a_missing_field_is_what_null_is() {
    for type_name in [
        "String",
        "FixedString(3)",
        "Int64",
        "UInt8",
        "Float32",
        "Float64",
        "Bool",
        "UUID",
        "Date",
        "Date32",
        "DateTime",
        "DateTime64(3)",
        "IPv4",
        "IPv6",
        "Enum8('a'=5,'b'=-5)",
        "Enum16('b'=300)",
        "Nullable(Int8)",
        "LowCardinality(Nullable(String))",
        "LowCardinality(Int32)",
    ] {
        let plan = plan(&[("x", type_name), ("y", "UInt8")]);
        let outcome = encode(&plan, b"{}\n{\"x\":null}\n{\"y\":0}\n{\"y\":0,\"x\":null}\n");
        let rows = decode(&plan, &outcome.rows);
        assert_eq!(rows.len(), 4, "{type_name}");
        assert!(rows.iter().all(|row| *row == rows[0]), "{type_name}");
    }
}
