//! Mappings: paths, several sources, the line, what is left of it, and what no line says. Both paths of the
//! encoder must agree on them, as in `twin`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::twin::{space, value};
use super::*;
use crate::schema::{AddressKind, ColumnSource, Dialect, Mapping, RequestInput, TimeUnit, UnknownFields};

fn described(columns: &[(&str, &str)]) -> Vec<ColumnDescription> {
    let column = |(name, type_name): &(&str, &str)| {
        let (type_name, default) = type_name.split_once(" DEFAULT ").unwrap_or((type_name, ""));
        ColumnDescription {
            name: (*name).to_owned(),
            type_name: type_name.to_owned(),
            default_kind: if default.is_empty() { "" } else { "DEFAULT" }.to_owned(),
            default_expression: default.to_owned(),
        }
    };
    columns.iter().map(column).collect()
}

pub(super) fn mapped(columns: &[(&str, &str)], mapping: &Mapping) -> Arc<Plan> {
    Arc::new(Plan::compile_mapped(&described(columns), Dialect::newest("UTC"), mapping).unwrap())
}

pub(super) fn fields(names: &[&str]) -> ColumnSource {
    ColumnSource::Fields { names: names.iter().map(|name| (*name).to_owned()).collect(), unit: None }
}

pub(super) fn mapping(columns: &[(&str, ColumnSource)]) -> Mapping {
    let columns: BTreeMap<String, ColumnSource> =
        columns.iter().map(|(column, source)| ((*column).to_owned(), source.clone())).collect();
    Mapping { columns, ..Mapping::default() }
}

/// The rows of a body without rejected lines.
fn rows(plan: &Arc<Plan>, body: &str) -> Vec<Vec<Value>> {
    let outcome = encode(plan, body.as_bytes());
    assert_eq!(outcome.report.errors, [], "{body}");
    decode(plan, &outcome.rows)
}

/// The codes and columns of the rejected lines of a body.
fn rejected(plan: &Arc<Plan>, body: &str) -> Vec<(u32, &'static str, Option<String>)> {
    let errors = encode(plan, body.as_bytes()).report.errors;
    let error = |error: LineError| (error.line, error.code.as_str(), error.column.map(|column| column.to_string()));
    errors.into_iter().map(error).collect()
}

#[test]
fn a_path_goes_into_objects_and_the_key_that_is_spelled_like_it_comes_first() {
    let columns = [("id", "String"), ("name", "String"), ("user", "String")];
    let plan = mapped(&columns, &mapping(&[("id", fields(&["user.id"])), ("name", fields(&["user.name.first"]))]));
    for (line, id, name, user) in [
        ("{\"user\":{\"id\":\"a\",\"name\":{\"first\":\"b\"}}}", "a", "b", "{\"id\":\"a\",\"name\":{\"first\":\"b\"}}"),
        ("{ \"user\" : { \"x\" : [1] , \"id\" : \"a\" } , \"y\":1 }", "a", "", "{ \"x\" : [1] , \"id\" : \"a\" }"),
        ("{\"USER\":{\"ID\":\"a\"}}", "a", "", "{\"ID\":\"a\"}"),
        ("{\"us\\u0065r\":{\"\\u0069d\":\"\\u0061\"}}", "a", "", "{\"\\u0069d\":\"\\u0061\"}"),
        ("{\"user.id\":\"c\",\"user\":{\"id\":\"a\"}}", "c", "", "{\"id\":\"a\"}"),
        ("{\"user\":{\"id\":\"a\"},\"user.id\":\"c\"}", "c", "", "{\"id\":\"a\"}"),
        ("{\"user.id\":null,\"user\":{\"id\":\"a\"}}", "a", "", "{\"id\":\"a\"}"),
        ("{\"user\":\"whole\"}", "", "", "whole"),
        ("{\"user\":{\"name\":\"whole\",\"id\":\"a\"}}", "a", "", "{\"name\":\"whole\",\"id\":\"a\"}"),
        ("{\"user\":[{\"id\":\"a\"}]}", "", "", "[{\"id\":\"a\"}]"),
        ("{\"user\":{}}", "", "", "{}"),
        ("{\"user\":null}", "", "", ""),
        (
            "{\"user\":{\"name.first\":\"b\",\"name\":{\"first\":\"c\"}}}",
            "",
            "b",
            "{\"name.first\":\"b\",\"name\":{\"first\":\"c\"}}",
        ),
        ("{\"user.name\":{\"first\":\"b\"}}", "", "b", ""),
        ("{}", "", "", ""),
    ] {
        assert_eq!(rows(&plan, line), [[text(id), text(name), text(user)]], "{line}");
    }
    assert_eq!(
        rejected(&plan, "{\"user\":{\"id\":1,\"id\":2}}\n{\"user.id\":1,\"User.Id\":2}"),
        [(1, "duplicate_field", Some("id".to_owned())), (2, "duplicate_field", Some("id".to_owned()))]
    );
}

#[test]
fn the_first_of_several_fields_that_is_there_and_not_null_counts_whatever_their_order() {
    let columns = [("n", "Nullable(Int32)"), ("after", "Int8")];
    let plan = mapped(&columns, &mapping(&[("n", fields(&["a", "b.c", "d"]))]));
    let n =
        |value: Option<i32>| value.map_or(Value::Nullable(None), |n| Value::Nullable(Some(Box::new(Value::Int32(n)))));
    for (line, expected) in [
        ("{\"a\":1,\"b\":{\"c\":2},\"d\":3}", Some(1)),
        ("{\"d\":3,\"b\":{\"c\":2},\"a\":1}", Some(1)),
        ("{\"d\":3,\"after\":7,\"b\":{\"c\":2}}", Some(2)),
        ("{\"b\":{\"c\":2},\"d\":3}", Some(2)),
        ("{\"b\":{\"c\":2},\"b.c\":4,\"d\":3}", Some(4)),
        ("{\"a\":null,\"b\":{\"c\":null},\"d\":3}", Some(3)),
        ("{\"a\":null,\"d\":null}", None),
        ("{\"a\":1,\"d\":\"what does not count need not fit\"}", Some(1)),
        ("{\"d\":\"no\",\"a\":1,\"b\":{\"c\":[]}}", Some(1)),
        ("{\"d\":\"\\u0033\"}", Some(3)),
    ] {
        assert_eq!(rows(&plan, line)[0][0], n(expected), "{line}");
    }
    assert_eq!(rejected(&plan, "{\"a\":\"no\",\"d\":3}"), [(1, "type_mismatch", Some("n".to_owned()))]);
    assert_eq!(rejected(&plan, "{\"a\":null,\"a\":1}"), [(1, "duplicate_field", Some("n".to_owned()))]);
    assert_eq!(rejected(&plan, "{\"n\":1}"), [(1, "no_known_field", None)], "its own name is another one now");
}

#[test]
fn null_in_a_column_with_a_default_is_null_and_a_missing_field_is_the_default() {
    let plan = mapped(&[("n", "Nullable(UInt8) DEFAULT 7")], &mapping(&[("n", fields(&["a", "b"]))]));
    for (line, row) in [
        ("{\"a\":1}", &[0, 0, 1][..]),
        ("{\"b\":1,\"a\":null}", &[0, 0, 1]),
        ("{\"a\":null,\"b\":null}", &[0, 1]),
        ("{\"b\":null}", &[0, 1]),
        ("{}", &[1, 1]),
    ] {
        assert_eq!(encode(&plan, line.as_bytes()).rows, row, "{line}");
    }
}

#[test]
fn one_field_goes_to_several_columns() {
    let columns = [("x", "Int64"), ("t", "String"), ("f", "Float64")];
    let plan = mapped(&columns, &mapping(&[("t", fields(&["x"])), ("f", fields(&["x"]))]));
    assert_eq!(rows(&plan, "{\"x\":5}"), [[Value::Int64(5), text("5"), Value::Float64(5.0)]]);
    assert_eq!(rejected(&plan, "{\"x\":5.5}\n{\"x\":1,\"x\":1}").len(), 2);
}

#[test]
fn a_bare_number_has_the_unit_that_the_mapping_says() {
    let columns = [("s", "DateTime('UTC')"), ("ms", "DateTime64(3, 'UTC')"), ("guessed", "DateTime64(3, 'UTC')")];
    let source = |unit| ColumnSource::Fields { names: vec!["t".to_owned()], unit: Some(unit) };
    let plan = mapped(
        &columns,
        &mapping(&[
            ("s", source(TimeUnit::Seconds)),
            ("ms", source(TimeUnit::Milliseconds)),
            ("guessed", fields(&["t"])),
        ]),
    );
    assert_eq!(plan.guessed_units().collect::<Vec<_>>(), ["guessed"]);
    let outcome = encode(&plan, b"{\"t\":1606864194}\n{\"t\":\"2020-12-01 23:09:54\"}\n");
    let row = |ticks: [i64; 2]| {
        [&1_606_864_194u32.to_le_bytes()[..], &ticks[0].to_le_bytes(), &ticks[1].to_le_bytes()].concat()
    };
    let text = row([1_606_864_194_000, 1_606_864_194_000]);
    assert_eq!(outcome.rows, [row([1_606_864_194, 1_606_864_194_000]), text].concat(), "a text is what it says");
    assert_eq!(rejected(&plan, "{\"t\":1606864194123}"), [(1, "out_of_range", Some("s".to_owned()))]);
}

#[test]
fn what_no_column_takes_is_counted_with_its_path_collected_or_refused() {
    let columns = [("id", "String"), ("rest", "Map(String, String)"), ("n", "Int8")];
    let of = |unknown_fields| Mapping { unknown_fields, ..mapping(&[("id", fields(&["user.id"]))]) };
    let collecting = mapped(&columns, &of(UnknownFields::Collect("rest".to_owned())));
    let map =
        |entries: &[(&str, &str)]| Value::Map(entries.iter().map(|(key, value)| (text(key), text(value))).collect());
    for (line, rest) in [
        (
            "{\"a\":1,\"user\":{\"id\":\"x\",\"b\":[1, 2],\"c\":\"t\\u0065xt\"},\"n\":1}",
            map(&[("a", "1"), ("user.b", "[1, 2]"), ("user.c", "text")]),
        ),
        ("{\"user\":7,\"z\":null}", map(&[("user", "7"), ("z", "")])),
        ("{\"user\":null}", map(&[])),
        ("{ \"a\" : { } , \"\\u0061\":true }", map(&[("a", "{ }"), ("a", "true")])),
        ("{\"rest\":{\"a\":1}}", map(&[("rest", "{\"a\":1}")])),
    ] {
        assert_eq!(rows(&collecting, line)[0][1], rest, "{line}");
    }
    let whole = [("id", "String"), ("user", "String"), ("x", "String")];
    let paths = [("id", fields(&["user.id"])), ("x", fields(&["user.a.x"]))];
    let taken = mapped(&whole, &Mapping { unknown_fields: UnknownFields::Reject, ..mapping(&paths) });
    for user in ["{\"id\":\"i\",\"b\":1,\"a\":{\"c\":1}}", "{\"id\":\"i\",\"a\":[1]}", "{\"id\":\"i\",\"a\":7}"] {
        let line = format!("{{\"user\":{user}}}");
        assert_eq!(rows(&taken, &line), [[text("i"), text(user), text("")]], "a column takes the object whole");
    }
    let refusing = mapped(&columns[..2], &of(UnknownFields::Reject));
    for (line, is_good) in [
        ("{\"user\":{\"id\":\"x\"},\"rest\":{}}", true),
        ("{\"user\":null}", true),
        ("{}", true),
        ("{\"user\":{\"id\":\"x\"},\"a\":1}", false),
        ("{\"user\":{\"id\":\"x\",\"a\":1}}", false),
        ("{\"user\":1}", false),
        ("{\"a\":1}", false),
    ] {
        let expected: &[_] = if is_good { &[] } else { &[(1, "unknown_field", None)] };
        assert_eq!(rejected(&refusing, line), expected, "{line}");
    }
    let message = encode(&refusing, b"{\"user\":1}").report.errors[0].message.clone();
    assert!(message.ends_with("no object"), "{message}");
    let message = encode(&refusing, b"{\"user\":{\"ab\":1}}").report.errors[0].message.clone();
    assert_eq!(message, "no column takes the field `user.ab`");
}

#[test]
fn collected_fields_are_an_object_in_a_text_or_json_column() {
    for (type_name, column) in [("String", "s"), ("JSON", "j")] {
        let collect = Mapping { unknown_fields: UnknownFields::Collect(column.to_owned()), ..Mapping::default() };
        let plan = mapped(&[("n", "Int8"), (column, type_name)], &collect);
        let of = |line: &str| encode(&plan, line.as_bytes());
        let row = |object: &str| [&[1, object.len() as u8], object.as_bytes()].concat();
        assert_eq!(of("{\"a\" : [1, 2],\"n\":1, \"b\":\"\\u00e4\"}").rows, row("{\"a\":[1, 2],\"b\":\"\\u00e4\"}"));
        assert_eq!(of("{\"n\":1}").rows, row("{}"));
        assert_eq!(of("{\"a\":1}").count, 1, "an object without a known field is something here");
        assert_eq!(of("{\"a\":1,\"a\":2}").count, u32::from(type_name == "String"), "JSON has each key once");
    }
}

#[test]
fn the_whole_line_is_stored_without_the_space_around_it() {
    let columns = [("n", "Int8"), ("raw", "String"), ("after", "Int8")];
    let plan = mapped(&columns, &mapping(&[("raw", ColumnSource::Line)]));
    for line in
        ["{\"n\":1}", "{ \"after\" : 2 , \"n\":1, \"x\":\"\\ud800\" }", "{}", "{\"x\":1}", "{\"n\":\"\\u0031\"}"]
    {
        assert_eq!(rows(&plan, &format!("\n \t{line} \t\r\n"))[0][1], text(line));
    }
    let replaced = encode_with(&plan, b"{\"x\":\"\\ud800\"}\n{\"x\":\"\xff\"}", InvalidText::Replace);
    let lines: Vec<Value> = decode(&plan, &replaced.rows).into_iter().map(|mut row| row.swap_remove(1)).collect();
    assert_eq!(lines, [text("{\"x\":\"\\ufffd\"}"), text("{\"x\":\"\u{fffd}\"}")]);
}

#[test]
fn a_line_without_a_required_column_is_rejected_with_its_name() {
    let columns = [("a", "Int8"), ("b", "Nullable(String)"), ("c", "Int8")];
    let mapping = Mapping { required: vec!["a".into(), "b".into()], ..mapping(&[("b", fields(&["x", "y.z"]))]) };
    let plan = mapped(&columns, &mapping);
    for (line, missing) in [
        ("{\"a\":1,\"x\":\"\"}", None),
        ("{\"y\":{\"z\":1},\"a\":0}", None),
        ("{\"c\":1,\"x\":1}", Some("a")),
        ("{\"a\":null,\"x\":1}", Some("a")),
        ("{\"a\":1,\"c\":1}", Some("b")),
        ("{\"a\":1,\"x\":null,\"y\":{\"z\":null}}", Some("b")),
        ("{}", Some("a")),
    ] {
        let expected: Vec<_> =
            missing.map(|column| (1, "missing_field", Some(column.to_owned()))).into_iter().collect();
        assert_eq!(rejected(&plan, line), expected, "{line}");
    }
}

#[test]
fn what_no_line_says_is_the_same_in_each_row_of_a_request() {
    let columns = [
        ("app", "LowCardinality(String)"),
        ("n", "Int8"),
        ("country", "String DEFAULT 'xx'"),
        ("agent", "Nullable(String)"),
        ("list", "Array(UInt8)"),
        ("port", "UInt16"),
        ("seen", "DateTime('UTC')"),
        ("part", "String"),
    ];
    let header = |name: &str| ColumnSource::Request(RequestInput::Header(name.into()));
    let mapping = mapping(&[
        ("app", ColumnSource::Value("\"g\\u00e4me\"".to_owned())),
        ("country", header("cf-ipcountry")),
        ("agent", ColumnSource::Request(RequestInput::UserAgent)),
        ("list", ColumnSource::Value("[1,2]".to_owned())),
        ("port", header("x-port")),
        ("seen", ColumnSource::ServerTime),
        ("part", ColumnSource::ClientAddress(AddressKind::Truncated)),
    ]);
    let plan = mapped(&columns, &mapping);
    assert!(check_constants(&plan).is_ok());
    let inputs = mapping.request_inputs();
    let of = |values: &[(&RequestInput, &str)]| {
        let value = |input| values.iter().find(|(of, _)| *of == input).map(|(_, value)| (*value).into());
        Arc::new(RequestValues::new(inputs.iter().map(value)))
    };
    let (country, port) = (RequestInput::Header("cf-ipcountry".into()), RequestInput::Header("x-port".into()));
    let mut encoder = RowEncoder::new(plan.clone(), LIMITS);
    let body = b"{\"n\":1,\"app\":\"forged\"}\n{\"n\":2}\n";
    encoder.set_request(of(&[(&country, "DE"), (&RequestInput::UserAgent, "curl"), (&port, "80")]));
    let outcome = run(&mut encoder, true, body);
    assert_eq!(outcome, run(&mut encoder, false, body));
    let seen = 1_606_864_194u32.to_le_bytes();
    let row = |n: u8, request: [&[u8]; 3]| {
        [b"\x05g\xc3\xa4me", &[n][..], request[0], request[1], &[2, 1, 2], request[2], &seen, b"\x078.8.8.0"].concat()
    };
    let known = |n| row(n, [b"\0\x02DE", b"\0\x04curl", &80u16.to_le_bytes()]);
    assert_eq!(outcome.rows, [known(1), known(2)].concat());
    let mut encoder = RowEncoder::new(plan.clone(), LIMITS);
    let outcome = run(&mut encoder, true, body);
    let unknown = |n| row(n, [b"\x01\0", b"\x01", &[0; 2]]);
    assert_eq!(outcome.rows, [unknown(1), unknown(2)].concat(), "a value that is missing is the column's default");
    encoder.set_request(of(&[(&port, "none")]));
    let outcome = run(&mut encoder, true, b"{\"n\":1}\nno\n");
    assert_eq!(outcome, run(&mut encoder, false, b"{\"n\":1}\nno\n"));
    let codes: Vec<_> = outcome.report.errors.iter().map(|error| (error.code, error.column.as_deref())).collect();
    assert_eq!(codes, [(LineCode::TypeMismatch, Some("port")), (LineCode::InvalidJson, None)]);
}

#[test]
fn a_header_fills_a_bool() {
    let input = RequestInput::Header("x-b".into());
    let mapping = mapping(&[("b", ColumnSource::Request(input))]);
    for (type_name, lead) in [("Bool", &b""[..]), ("Nullable(Bool)", b"\0"), ("LowCardinality(Nullable(Bool))", b"\0")]
    {
        let plan = mapped(&[("n", "Int8"), ("b", type_name)], &mapping);
        for (text, value) in
            [("true", Some(1)), ("false", Some(0)), ("1", Some(1)), ("0", Some(0)), ("null", None), ("yes", None)]
        {
            let mut encoder = RowEncoder::new(plan.clone(), LIMITS);
            encoder.set_request(Arc::new(RequestValues::new(std::iter::once(Some(text.into())))));
            let outcome = run(&mut encoder, true, b"{\"n\":1}\n");
            let expected = value.map(|value| [&[1], lead, &[value]].concat()).unwrap_or_default();
            assert_eq!(outcome.rows, expected, "{type_name} {text}");
            assert_eq!(outcome.report.errors.len(), usize::from(value.is_none()), "{type_name} {text}");
        }
    }
}

#[test]
fn a_column_gets_the_address_in_its_own_form() {
    let kinds = [AddressKind::Usual, AddressKind::Full, AddressKind::Truncated, AddressKind::Hashed, AddressKind::None];
    let names = ["usual", "full", "truncated", "hashed", "none"];
    let columns: Vec<(&str, &str)> = names.iter().map(|name| (*name, "String")).chain([("n", "Int8")]).collect();
    let sources: Vec<_> = names.into_iter().zip(kinds.map(ColumnSource::ClientAddress)).collect();
    let plan = mapped(&columns, &mapping(&sources));
    let hash = "6465e60c2535c8b22f1ac3232cbbc839";
    let key = || AddressKey::new(b"0123456789abcdef");
    for (form, key, usual, hashed) in [
        (AddressForm::Full, Some(key()), "8.8.8.8", hash),
        (AddressForm::Truncated, Some(key()), "8.8.8.0", hash),
        (AddressForm::Hashed(key()), Some(key()), hash, hash),
        (AddressForm::None, None, "", ""),
    ] {
        let mut encoder = RowEncoder::new(plan.clone(), LIMITS).writing_addresses(form).hashing_addresses(key);
        let row = decode(&plan, &run(&mut encoder, true, b"{\"n\":1}").rows).remove(0);
        let expected = [usual, "8.8.8.8", "8.8.8.0", hashed, ""].map(text);
        assert_eq!(row[..5], expected);
    }
}

#[test]
fn an_event_is_identified_by_a_column_that_gets_its_value_from_elsewhere() {
    let plan = mapped(&[("a", "String"), ("id", "UInt64")], &mapping(&[("id", fields(&["meta.id", "id"]))]));
    let mut encoder = RowEncoder::new(plan, LIMITS).identifying(Some("id"));
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let body = b"{\"meta\":{\"id\":7}}\n{\"id\":\"7\",\"a\":\"x\"}\n{\"id\":8}\n{\"a\":\"none\"}\n";
    encoder.encode(body, &origin(), &mut batch, &mut report).unwrap();
    let ids = &batch.ids;
    assert_eq!(ids.len(), 3);
    assert!(ids[0] == ids[1] && ids[1] != ids[2]);
}

#[test]
fn what_is_counted_is_the_same_on_both_paths_and_each_line_counts_once() {
    let columns = [("id", "String"), ("t", "DateTime"), ("n", "Int8")];
    let plan = mapped(&columns, &mapping(&[("id", fields(&["user.id"]))]));
    let body = "{\"a\":1,\"user\":{\"x\":\"\",\"id\":\"1\"},\"t\":1606864194}\n\
                {\"a\":-1,\"user\":[1],\"t\":1606864194123,\"n\":\"\\u0031\"}\n\
                {\"a\":1.5,\"n\":\"slow because of a number\",\"b\":true}\n\
                {\"a\":null,\"\\u0061\":true,\"t\":\"2020-12-01 00:00:00\"}\n{\"a\":1\n";
    let counted = |fast: bool| {
        let counts = Arc::new(FieldCounts::default());
        let mut encoder = RowEncoder::new(plan.clone(), LIMITS).counting(counts.clone());
        for _ in 0..3 {
            run(&mut encoder, fast, body.as_bytes());
        }
        let mut sum = Counts::default();
        counts.add_to(&mut sum);
        sum
    };
    let (fast, slow) = (counted(true), counted(false));
    assert_eq!((&fast.unknown, fast.others, &fast.guessed), (&slow.unknown, slow.others, &slow.guessed));
    let named: Vec<(&str, u64, String)> =
        fast.unknown.iter().map(|(name, field)| (&**name, field.count, field.kinds.column_type())).collect();
    let expected = [("a", 15, "Nullable(String)"), ("user", 3, "Array(Int64)"), ("user.x", 3, "String")];
    assert_eq!(named, expected.map(|(name, count, of)| (name, count, of.to_owned())));
    assert_eq!(fast.guessed.get("t"), Some(&[3, 3, 0, 0]));
}

#[test]
fn the_fast_path_takes_lines_with_paths_several_sources_and_fields_that_are_left() {
    let columns = [("id", "String"), ("n", "Int64"), ("t", "DateTime64(3)"), ("raw", "String"), ("rest", "String")];
    let mapping = Mapping {
        unknown_fields: UnknownFields::Collect("rest".to_owned()),
        required: vec!["id".to_owned()],
        ..mapping(&[
            ("id", fields(&["user.id", "uid"])),
            ("n", fields(&["a.b.c"])),
            ("t", ColumnSource::Fields { names: vec!["t.ms".to_owned()], unit: Some(TimeUnit::Milliseconds) }),
            ("raw", ColumnSource::Line),
        ])
    };
    let mut encoder = RowEncoder::new(mapped(&columns, &mapping), LIMITS);
    for line in [
        "{\"user\":{\"id\":\"x\",\"name\":\"y\"},\"a\":{\"b\":{\"c\":7}},\"t\":{\"ms\":1}}",
        "{\"uid\":\"w\",\"a\":{\"x\":[1,{}],\"b\":{\"c\":7}},\"user\":{\"id\":\"a\\nb\"},\"more\":null}",
        "{\"user\":null,\"uid\":\"w\",\"a.b\":{\"c\":\"7\"}}",
        "{\"user\":7,\"uid\":\"w\"}",
    ] {
        for _ in 0..3 {
            // At the end of a body as well, where fewer bytes follow.
            for body in [line.to_owned(), format!("{line}\n{line}\n")] {
                let bounds = Bounds { lines: 1, bytes: usize::MAX, line_bytes: usize::MAX };
                assert_eq!(
                    encoder.walk().lines(body.as_bytes(), &mut Lines::new(body.as_bytes(), 0), bounds),
                    1,
                    "{body}"
                );
                encoder.window.clear();
            }
        }
    }
}

/// The keys that lines and mappings of the twin test are made of.
const KEYS: [&str; 9] = ["a", "b", "c", "a.b", "a.b.c", "b.c", "C", "x", "a.x"];

const COLUMNS: [(&str, &str); 9] = [
    ("a", "String"),
    ("b", "Nullable(Int64) DEFAULT 7"),
    ("c", "DateTime64(3, 'UTC')"),
    ("x", "UInt8"),
    ("list", "Array(Nullable(Int16))"),
    ("obj", "Tuple(a UInt8, b Nullable(String))"),
    ("server_time", "DateTime"),
    ("rest", "String"),
    ("map", "Map(String, String)"),
];

fn any_mapping() -> impl Strategy<Value = Mapping> {
    let names = prop::collection::hash_set(prop::sample::select(&KEYS[..]), 1..4);
    let source = prop_oneof![
        8 => (names, prop::option::weighted(0.2, Just(TimeUnit::Milliseconds))).prop_map(|(names, unit)| {
            ColumnSource::Fields { names: names.into_iter().map(str::to_owned).collect(), unit }
        }),
        1 => Just(ColumnSource::Line),
        1 => Just(ColumnSource::Value("null".to_owned())),
    ];
    let column = prop::sample::select(COLUMNS.map(|(name, _)| name.to_owned()).to_vec());
    let unknown = prop_oneof![
        3 => Just(UnknownFields::Skip),
        1 => Just(UnknownFields::Reject),
        2 => Just(UnknownFields::Collect("rest".to_owned())),
        1 => Just(UnknownFields::Collect("map".to_owned())),
    ];
    (prop::collection::btree_map(column.clone(), source, 0..6), prop::collection::vec(column, 0..2), unknown).prop_map(
        |(mut columns, required, unknown_fields)| {
            // What the table would refuse is another test's matter.
            columns.retain(|column, source| match source {
                ColumnSource::Line => column == "rest" && unknown_fields != UnknownFields::Collect(column.clone()),
                ColumnSource::Fields { unit: Some(_), .. } => column == "c",
                _ => unknown_fields != UnknownFields::Collect(column.clone()),
            });
            Mapping { columns, required, unknown_fields }
        },
    )
}

/// A value, or an object of the same keys, two levels deep.
fn member() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![4 => value(), 3 => "[0-9]{1,2}|\"[a-c]{0,3}\"|null"];
    leaf.prop_recursive(3, 12, 4, |inner| object(inner).boxed())
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        12 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned),
        1 => Just("\\u0061".to_owned()),
        1 => Just("\\ud800".to_owned()),
        1 => Just("A".to_owned()),
        1 => Just("server_time".to_owned()),
        1 => "[a-z]{2,3}",
    ];
    (prop::collection::vec((key, value), 0..5), space(), space(), space()).prop_map(|(members, a, b, c)| {
        let members: Vec<String> =
            members.into_iter().map(|(key, value)| format!("{a}\"{key}\"{b}:{c}{value}")).collect();
        format!("{{{}{b}}}", members.join(&format!("{c},")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn both_paths_agree_on_every_mapping(
        mapping in any_mapping(),
        lines in prop::collection::vec((object(member()), 1usize..3), 1..6),
    ) {
        let plan = mapped(&COLUMNS, &mapping);
        let body: String = lines.iter().map(|(line, times)| format!("{line}\n").repeat(*times)).collect();
        for invalid_text in [InvalidText::Reject, InvalidText::Replace] {
            let outcome = encode_with(&plan, body.as_bytes(), invalid_text);
            prop_assert_eq!(outcome.done, Ok(()));
            prop_assert_eq!(outcome.count + outcome.report.rejected, body.lines().count() as u32);
        }
    }
}
