//! Tests of Dynamic columns, and of the paths of a JSON that have types of their own.

use super::*;
use crate::rowbinary::dynamic::DYNAMIC_DEPTH_MAX;
use crate::rowbinary::{DataType, skip_value};
use crate::schema::{ColumnDescription, Dialect, Mapping, PathRules};

/// The bytes that `json` becomes in a column of this type; none if it is rejected with the code.
fn bytes(type_name: &str, json: &str) -> Result<Vec<u8>, LineCode> {
    let outcome = encode(&plan(&[("x", type_name)]), format!("{{\"x\":{json}}}").as_bytes());
    outcome.report.errors.first().map_or(Ok(outcome.rows), |error| Err(error.code))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// As `formatRow('RowBinary', …)` of ClickHouse 26.7 shows them.
#[test]
fn a_dynamic_value_has_its_type_in_front() {
    for (json, expected) in [
        ("null", "00"),
        ("true", "2D01"),
        ("-1", "0AFFFFFFFFFFFFFFFF"),
        ("9223372036854775808", "040000000000000080"),
        ("1.5", "0E000000000000F83F"),
        ("1e2", "0E0000000000005940"),
        (r#""x""#, "150178"),
        (r#""\u0035""#, "150135"),
        (r#""1.5""#, "1503312E35"),
        (r#""2020-01-01""#, "0F5647"),
        (r#""1960-01-01""#, "13090000B58302B29EFB"),
        (r#""1800-01-01""#, "150A313830302D30312D3031"),
        (r#""2020-13-01""#, "150A323032302D31332D3031"),
        (r#""2020-01-01T00:00:00Z""#, "1100E10B5E"),
        (r#""2020-01-01 10:20:30+02:00""#, "114E560C5E"),
        (r#""2020-01-01 10:20:30.5""#, "13090031442012BCE515"),
        (r#""2200-01-01 10:20:30""#, "130900CCA6121726BA64"),
        (r#""2020/01/01""#, "150A323032302F30312F3031"),
        ("[]", "1E231500"),
        ("[null]", "1E23150101"),
        ("[1,null]", "1E230A0200010000000000000001"),
        ("[1,18446744073709551615]", "1E2304020001000000000000000 0FFFFFFFFFFFFFFFF"),
        ("[1,1.5]", "1E230E0200000000000000F03F00000000000000F83F"),
        (r#"[1,"x"]"#, "1E2B20020A0100000000000000150178"),
        ("[true,1]", "1E2B20022D010A0100000000000000"),
        (r#"["2020-01-01","x"]"#, "1E231502000A323032302D30312D3031000178"),
        (r#"["2020-01-01",null]"#, "1E230F0200564701"),
        (r#"["2020-01-01","2020-01-01 10:00:00"]"#, "1E2311020000E10B5E00A06D0C5E"),
        ("[[1],[]]", "1E1E230A020100010000000000000000"),
        ("[[],[[]]]", "1E1E1E231502000100"),
        ("[[[]],[]]", "1E1E1E231502010000"),
        ("[[1],[\"x\"]]", "1E2B20021E230A010001000000000000001E2315010001 78"),
        ("[[1,\"x\"],[2]]", "1E1E2B2002020A0100000000000000150178010A0200000000000000"),
        ("[null,[]]", "1E2B2002001E231500"),
        (r#"{"a":1}"#, "3000800820000000077B2261223A317D"),
        (r#"[{"a":1},{}]"#, "1E300080082000000002077B2261223A317D027B7D"),
        (r#"[{},null]"#, "1E2B2002300080082000000002 7B7D00"),
    ] {
        let row = bytes("Dynamic", json).unwrap();
        assert_eq!(hex(&row), expected.replace(' ', ""), "{json}");
        let followed = [&row[..], b"rest"].concat();
        assert_eq!(skip_value(&DataType::Dynamic, &followed), Some(&b"rest"[..]), "{json}");
        for cut in 0..row.len() {
            assert_eq!(skip_value(&DataType::Dynamic, &row[..cut]), None, "{json}, cut at {cut}");
        }
    }
}

#[test]
fn what_no_type_of_a_dynamic_holds_is_rejected() {
    use LineCode::{DuplicateField, InvalidJson, OutOfRange};
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let (deep, deeper) = (nested(DYNAMIC_DEPTH_MAX), nested(DYNAMIC_DEPTH_MAX + 1));
    let mixed = (0..DYNAMIC_DEPTH_MAX).fold("1".to_owned(), |inner, _| format!("[\"x\",{inner}]"));
    for (json, expected) in [
        ("18446744073709551616", Some(OutOfRange)),
        ("-9223372036854775809", Some(OutOfRange)),
        ("1e400", Some(OutOfRange)),
        ("[1,18446744073709551616]", Some(OutOfRange)),
        (r#""\ud800""#, Some(InvalidJson)),
        (r#"["\ud800"]"#, Some(InvalidJson)),
        (r#"{"a":"\ud800"}"#, Some(InvalidJson)),
        (r#"{"a":1,"a":2}"#, Some(DuplicateField)),
        (&deep, None),
        (&mixed, None),
        (&deeper, Some(OutOfRange)),
        (&format!("[\"x\",{mixed}]"), Some(OutOfRange)),
    ] {
        let row = bytes("Dynamic", json);
        assert_eq!(row.as_ref().err().copied(), expected, "{json}");
        if let Ok(row) = row {
            assert_eq!(skip_value(&DataType::Dynamic, &row), Some(&[][..]), "{json}");
        }
    }
}

#[test]
fn a_dynamic_stands_in_arrays_maps_and_tuples_and_is_null_if_it_is_missing() {
    assert_eq!(hex(&bytes("Array(Dynamic)", r#"[1,"x",null]"#).unwrap()), "030A010000000000000015017800");
    assert_eq!(hex(&bytes("Map(String, Dynamic)", r#"{"k":true}"#).unwrap()), "01016B2D01");
    assert_eq!(hex(&bytes("Tuple(a Dynamic, b Dynamic)", r#"{"b":[]}"#).unwrap()), "001E231500");
    let plan = plan(&[("d", "Dynamic(max_types=3)"), ("n", "UInt8")]);
    assert_eq!(encode(&plan, br#"{"n":7}"#).rows, [0, 7]);
    let lines = "{\"d\":[1,\"x\"],\"n\":1}\n".repeat(3) + "{\"n\":2,\"d\":{\"a\":[{}]}}\n{\"d\":1e999,\"n\":3}";
    let outcome = encode(&plan, lines.as_bytes());
    assert_eq!((outcome.count, outcome.report.rejected), (4, 1));
}

#[test]
fn damaged_types_of_a_dynamic_are_no_values() {
    for damaged in ["13080000000000000000", "2300", "1E00", "2B", "3000800820", "30010000000000", "FF", "1E", ""] {
        let bytes: Vec<u8> =
            (0..damaged.len() / 2).map(|at| u8::from_str_radix(&damaged[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert_eq!(skip_value(&DataType::Dynamic, &bytes), None, "{damaged}");
    }
    // An array of Dynamic in each other, without end.
    let endless = [0x1e, 0x2b, 32, 1].repeat(1000);
    assert_eq!(skip_value(&DataType::Dynamic, &endless), None);
    assert_eq!(skip_value(&DataType::Dynamic, &[0x1e; 1000]), None);
}

#[test]
fn a_path_with_a_type_takes_what_a_column_and_clickhouse_take() {
    use LineCode::{DuplicateField, OutOfRange, TypeMismatch};
    let json = "JSON(max_dynamic_paths=5, a UInt8, `b.c` Array(Nullable(DateTime('UTC'))), f Float64, d Date, \
                m Map(String, Int8), k Map(UInt8, Int8), t Tuple(x UInt8, y String), e Enum8('a' = 1, '5' = 5), \
                h BFloat16, w Int256, SKIP s)";
    for (object, expected) in [
        ("{}", None),
        (r#"{"a":255,"z":[1,"x"]}"#, None),
        (r#"{"\u0061":"7"}"#, None),
        (r#"{"a":1.0}"#, None),
        (r#"{"a":null}"#, None),
        (r#"{"a":256}"#, Some(OutOfRange)),
        (r#"{"a":1.5}"#, Some(TypeMismatch)),
        (r#"{"a":""}"#, Some(TypeMismatch)),
        (r#"{"a":"true"}"#, Some(TypeMismatch)),
        (r#"{"a":{"x":1}}"#, Some(TypeMismatch)),
        (r#"{"x":{"a":"no number, and another path"}}"#, None),
        (r#"{"x":[{"a":"in an array, an object of its own"}]}"#, None),
        (r#"{"b":{"c":["2020-01-01 00:00:00",null,1600000000]}}"#, None),
        (r#"{"b.c":[]}"#, None),
        (r#"{"b":5}"#, None),
        (r#"{"b":{"c":[1600000000.5]}}"#, Some(TypeMismatch)),
        (r#"{"b":{"c":[1600000000000]}}"#, Some(TypeMismatch)),
        (r#"{"b":{"c":"2020-01-01 00:00:00"}}"#, Some(TypeMismatch)),
        (r#"{"b":{"c":[]},"b.c":[]}"#, Some(DuplicateField)),
        (r#"{"f":"false"}"#, Some(TypeMismatch)),
        (r#"{"f":"fals\u0065"}"#, Some(TypeMismatch)),
        (r#"{"f":"1.\u0035"}"#, None),
        (r#"{"a":"tru\u0065"}"#, Some(TypeMismatch)),
        (r#"{"d":"2020-01-01"}"#, None),
        (r#"{"d":5}"#, Some(TypeMismatch)),
        (r#"{"m":{"x":1,"y":"-5"}}"#, None),
        (r#"{"m":{"x":""}}"#, Some(TypeMismatch)),
        (r#"{"k":{}}"#, Some(TypeMismatch)),
        (r#"{"k":null}"#, Some(TypeMismatch)),
        (r#"{"t":{"y":"z","other":[]}}"#, None),
        (r#"{"t":[1,"x"]}"#, None),
        (r#"{"t":{}}"#, Some(TypeMismatch)),
        (r#"{"t":{"x":""}}"#, Some(TypeMismatch)),
        (r#"{"t":{"\u0078":1}}"#, None),
        (r#"{"t":{"\u0078":"true","y":"z"}}"#, Some(TypeMismatch)),
        (r#"{"e":"5"}"#, None),
        (r#"{"e":1}"#, None),
        (r#"{"e":"1"}"#, Some(TypeMismatch)),
        (r#"{"e":"\u0031"}"#, Some(TypeMismatch)),
        (r#"{"e":"\u0061"}"#, None),
        (r#"{"h":1}"#, Some(TypeMismatch)),
        (r#"{"w":-1e3}"#, None),
        (r#"{"w":1e20}"#, Some(TypeMismatch)),
        (r#"{"s":{"x":"skipped"}}"#, None),
    ] {
        let row = bytes(json, object);
        assert_eq!(row.as_ref().err().copied(), expected, "{object}");
        if let Ok(row) = row {
            assert_eq!(row[1..], *object.as_bytes(), "the text as it is");
        }
    }
}

/// As 25.8, 26.1 to 26.3, and 26.5 and later take them.
#[test]
fn older_releases_take_less_for_a_path_with_a_type() {
    let json = "JSON(d DateTime, t Time, u Time64(3), f Float32, a Array(DateTime), v Variant(DateTime, Bool))";
    let column = ColumnDescription {
        name: "x".to_owned(),
        type_name: json.to_owned(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    let plan = |path_rules| {
        let dialect = Dialect { timezone: "UTC", path_rules };
        Arc::new(Plan::compile_mapped(std::slice::from_ref(&column), dialect, &Mapping::default()).unwrap())
    };
    let newest = PathRules::NEWEST;
    let middle = PathRules { numbers_as_seconds: false, ..newest };
    let plans = [PathRules { bools_as_floats: false, texts_as_spans: false, ..middle }, middle, newest].map(plan);
    for (object, taken) in [
        (r#"{"d":1600000000}"#, [false, false, true]),
        (r#"{"a":[1600000000]}"#, [false, false, true]),
        (r#"{"v":1600000000}"#, [false, false, true]),
        (r#"{"t":86399}"#, [false, false, true]),
        (r#"{"u":300}"#, [true; 3]),
        (r#"{"u":"12:30:00.5"}"#, [false, true, true]),
        (r#"{"t":"12:30:00"}"#, [false, true, true]),
        (r#"{"f":true}"#, [false, true, true]),
        (r#"{"f":1.5}"#, [true; 3]),
        (r#"{"v":true}"#, [true; 3]),
        (r#"{"d":"2020-01-01T00:00:00Z","t":null,"u":null,"f":null}"#, [true; 3]),
    ] {
        for (plan, taken) in plans.iter().zip(taken) {
            let outcome = encode(plan, format!("{{\"x\":{object}}}").as_bytes());
            assert_eq!(outcome.report.errors.is_empty(), taken, "{object}");
        }
    }
}

/// As ClickHouse 26.7 takes them: a number that overflows a type ends the search for one.
#[test]
fn a_variant_of_a_path_takes_what_one_of_its_types_takes_if_no_type_before_it_overflows() {
    for (type_name, value, taken) in [
        // `"true"` is a float as a column, and a Bool for the paths, but no type takes it in both.
        ("Variant(Bool, Float64)", "\"true\"", false),
        ("Variant(Bool, Float64)", "true", true),
        ("Variant(Decimal(9, 2), String)", "4294967296", false),
        ("Variant(Decimal(9, 2), String)", "42", true),
        ("Variant(Decimal(9, 2), String)", "\"4294967296\"", true),
        ("Variant(Decimal(9, 2), Int64)", "4294967296", true),
        ("Variant(DateTime64(3), String)", "1e308", false),
        ("Variant(DateTime64(3), String)", "1.5", true),
        ("Variant(Map(String, Time64(3)), JSON)", "{\"k\":1e308}", false),
        ("Variant(Array(Decimal(9, 2)), String)", "[1,4294967296]", false),
        ("Variant(Map(String, Decimal(9, 2)), String)", "{\"k\":4294967296}", false),
        ("Variant(Tuple(k Decimal(9, 2)), String)", "{\"k\":4294967296}", false),
        ("Variant(Tuple(k Decimal(9, 2)), String)", "[4294967296]", false),
        ("Variant(Tuple(k Decimal(9, 2)), String)", "{\"k\":1}", true),
    ] {
        let row = bytes(&format!("JSON(a {type_name})"), &format!("{{\"a\":{value}}}"));
        assert_eq!(row.is_ok(), taken, "{value} for {type_name}");
    }
}
