//! Compiling descriptions of columns to a plan, and what of it is refused.

use super::*;

fn column(name: &str, type_name: &str, default_kind: &str) -> ColumnDescription {
    ColumnDescription {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        default_kind: default_kind.to_owned(),
        default_expression: "now()".to_owned(),
    }
}

fn compile(columns: &[ColumnDescription]) -> Result<Plan, SchemaError> {
    Plan::compile(columns, "UTC")
}

#[test]
fn every_column_has_its_source() {
    let plan = compile(&[
        column("a", "Int8", ""),
        column("m", "DateTime", "MATERIALIZED"),
        column("ip", "LowCardinality(String)", ""),
        column("l", "JSON", "ALIAS"),
        column("e", "String", "EPHEMERAL"),
        column("d", "String", "DEFAULT"),
        column("server_time", "DateTime64(3)", ""),
        column("b", "Nullable(String)", ""),
    ])
    .unwrap();
    let columns: Vec<(&str, Source)> =
        plan.columns().iter().map(|column| (column.name.as_str(), column.source.clone())).collect();
    assert_eq!(
        columns,
        [
            ("a", Source::Field),
            ("ip", Source::ClientAddress(AddressKind::Usual)),
            ("e", Source::Field),
            ("d", Source::Field),
            ("server_time", Source::ServerTime),
            ("b", Source::Field),
        ]
    );
    let ephemeral: Vec<Option<bool>> =
        plan.columns().iter().map(|column| column.default.as_ref().map(|default| default.ephemeral)).collect();
    assert_eq!(ephemeral, [None, None, Some(true), Some(false), None, None]);
    let runs: Vec<usize> = plan.server_runs().iter().map(Vec::len).collect();
    assert_eq!(runs, [0, 1, 0, 1, 0]);
    assert_eq!(plan.target(b"b"), KeyTarget::Field(3));
    for key in ["m", "l", "c", ""] {
        assert_eq!(plan.target(key.as_bytes()), KeyTarget::Unknown, "{key}");
    }
    for key in ["ip", "IP", "server_time", "Server_Time"] {
        assert_eq!(plan.target(key.as_bytes()), KeyTarget::Server, "{key}");
    }
    assert_eq!(plan.target(b"A"), KeyTarget::Field(0));
}

#[test]
fn the_servers_columns_are_its_own_in_any_case() {
    let plan = compile(&[column("IP", "IPv6", ""), column("Server_Time", "DateTime", ""), column("a", "Int8", "")]);
    let plan = plan.unwrap();
    let sources: Vec<Source> = plan.columns().iter().map(|column| column.source.clone()).collect();
    assert_eq!(sources, [Source::ClientAddress(AddressKind::Usual), Source::ServerTime, Source::Field]);
    assert_eq!(plan.target(b"ip"), KeyTarget::Server);
    let plan = compile(&[column("ip", "UInt32", ""), column("a", "Int8", "")]).unwrap();
    assert_eq!((plan.target(b"IP"), plan.unfillable().len()), (KeyTarget::Server, 1));
}

#[test]
fn columns_with_points_in_time_anywhere_inside_guess_a_numbers_unit() {
    let guesses = |type_name: &str| {
        let plan = compile(&[column("a", "Int8", ""), column("t", type_name, "")]).unwrap();
        plan.guessed_units().collect::<Vec<_>>() == ["t"]
    };
    for name in [
        "DateTime",
        "LowCardinality(Nullable(DateTime))",
        "Array(Array(DateTime64(3)))",
        "Map(String, DateTime)",
        "Tuple(a Int8, b Tuple(DateTime))",
        "Variant(DateTime64(3), String)",
    ] {
        assert!(guesses(name), "{name}");
    }
    for name in ["Date", "Time64(3)", "Int64", "Array(Date32)", "JSON(a DateTime)", "Dynamic", "Tuple(a String)"] {
        assert!(!guesses(name), "{name}");
    }
}

#[test]
fn the_header_has_the_names_and_types() {
    let plan = compile(&[column("a", "Int8", ""), column("ip", "String", "")]).unwrap();
    assert_eq!(plan.rowbinary_header().unwrap(), b"\x02\x01a\x02ip\x04Int8\x06String");
}

#[test]
fn the_header_spells_types_as_clickhouse_does() {
    let type_name = r"Enum8('it\'s' = 1, 'b\\c' = 2, 'x,y' = 3, 'q = 4' = 5)";
    let plan = compile(&[column("a", type_name, "")]).unwrap();
    assert!(plan.rowbinary_header().unwrap().ends_with(type_name.as_bytes()));
    let ColumnType::Enum8(elements) = &plan.fields()[0].cell.column_type else {
        panic!("{:?}", plan.fields());
    };
    for (name, value) in [("it's", 1), ("b\\c", 2), ("x,y", 3), ("q = 4", 5)] {
        assert_eq!(elements.value(name.as_bytes()), Some(value), "{name}");
    }
}

#[test]
fn a_column_of_a_type_that_is_not_known_is_left_to_clickhouse_unless_it_is_mapped() {
    for type_name in [
        "Nothing",
        "QBit(Float32, 4)",
        "Array(Nothing)",
        "Tuple(a Int8, b AggregateFunction(sum, UInt64))",
        "gibberish(",
        "DateTime('Mars/Olympus')",
        "LowCardinality(LowCardinality(String))",
        "Nullable(Nullable(String))",
        "",
    ] {
        let columns = [column("a", "Int8", ""), column("the_column", type_name, "")];
        let plan = compile(&columns).unwrap();
        assert_eq!((plan.columns().len(), &*plan.unfillable()[0].column), (1, "the_column"), "{type_name}");
        let source = ColumnSource::Fields { names: vec!["x".to_owned()], unit: None };
        let mapping = Mapping { columns: [("the_column".to_owned(), source)].into(), ..Mapping::default() };
        let error = Plan::compile_mapped(&columns, Dialect::newest("UTC"), &mapping).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, SchemaError::UnsupportedType { .. }), "{message}");
        assert!(message.contains("the_column") && message.contains("UUID"), "{message}");
    }
    let error = compile(&[column("the_column", "DateTime", "SURPRISE")]).unwrap_err();
    assert!(error.to_string().contains("`the_column` has a default of the kind SURPRISE"), "{error}");
    assert_eq!(compile(&[]).unwrap_err(), SchemaError::NoColumns);
    let only = [column("m", "Int8", "MATERIALIZED")];
    assert_eq!(compile(&only).unwrap_err(), SchemaError::NoColumns);
    let many: Vec<_> = (0..=limits::COLUMNS_MAX).map(|index| column(&format!("c{index}"), "Int8", "")).collect();
    assert_eq!(compile(&many).unwrap_err(), SchemaError::TooManyColumns(many.len()));
    assert!(compile(many.get(1..).unwrap()).is_ok());
}

#[test]
fn a_state_of_an_aggregate_function_is_left_to_clickhouse() {
    let plan = compile(&[column("a", "Int8", ""), column("s", "AggregateFunction(uniq, String)", "")]).unwrap();
    assert_eq!(plan.columns().len(), 1);
    assert_eq!(plan.unfillable()[0].column, "s");
    assert_eq!(plan.target(b"s"), KeyTarget::Unknown);
    let only = [column("s", "AggregateFunction(uniq, String)", "")];
    assert_eq!(compile(&only).unwrap_err(), SchemaError::NoColumns);
}

#[test]
fn a_byte_in_front_of_a_value_says_whether_the_column_gets_its_default() {
    for (type_name, default_kind, lead, missing, null) in [
        ("UInt8", "", 0, &[0][..], &[0][..]),
        ("UInt8", "DEFAULT", 1, &[1, 0], &[1, 0]),
        ("Array(UInt8)", "EPHEMERAL", 1, &[1, 0], &[1, 0]),
        ("Nullable(UInt16)", "", 1, &[1], &[1]),
        ("Nullable(UInt16)", "DEFAULT", 2, &[1, 1], &[0, 1]),
    ] {
        let plan = compile(&[column("x", type_name, default_kind)]).unwrap();
        let field = &plan.fields()[0];
        assert_eq!(
            (field.lead, &*field.absent.missing, &*field.absent.null),
            (lead, missing, null),
            "{type_name} {default_kind}"
        );
    }
}

#[test]
fn the_default_of_a_nested_type_is_that_of_its_elements() {
    for (type_name, expected) in [
        ("Array(UInt8)", &[0][..]),
        ("Map(String, UInt8)", &[0]),
        ("Tuple(a UInt16, b Nullable(String), c Array(String), d Enum8('x' = 5))", &[0, 0, 1, 0, 5]),
        ("Point", &[0; 16]),
        ("Int256", &[0; 32]),
        ("Decimal(38, 2)", &[0; 16]),
        ("Nullable(Tuple(a UInt8))", &[1]),
        ("Variant(String, UInt8)", &[255]),
        ("JSON", b"\x02{}"),
    ] {
        let plan = compile(&[column("x", type_name, "")]).unwrap();
        assert_eq!(&*plan.fields()[0].cell.null, expected, "{type_name}");
    }
}

#[test]
fn a_column_without_a_time_zone_has_the_servers() {
    let type_of = |type_name: &str, zone: &str| {
        let plan = Plan::compile(&[column("x", type_name, "")], zone);
        plan.map(|plan| plan.fields()[0].cell.column_type.clone())
    };
    assert_eq!(type_of("DateTime", "Etc/UTC"), Ok(ColumnType::DateTime(Zone::Utc)));
    assert_eq!(
        type_of("DateTime", "Europe/Berlin"),
        Ok(ColumnType::DateTime(Zone::Named(chrono_tz::Tz::Europe__Berlin)))
    );
    assert_eq!(type_of("DateTime('UTC')", "Europe/Berlin"), Ok(ColumnType::DateTime(Zone::Utc)));
    assert!(type_of("DateTime", "Nowhere").is_err());
}

#[test]
fn a_time_without_a_zone_depends_on_the_servers() {
    for type_name in ["DateTime", "DateTime64(3)", "Nullable(DateTime)", "LowCardinality(Nullable(DateTime))"] {
        assert!(depends_on_timezone(type_name), "{type_name}");
    }
    for type_name in
        ["DateTime('UTC')", "DateTime64(3, 'UTC')", "Nullable(DateTime64(9, 'Asia/Tokyo'))", "Date", "Time64(3)"]
    {
        assert!(!depends_on_timezone(type_name), "{type_name}");
    }
    assert!(depends_on_timezone("Tuple(DateTime('UTC'), DateTime)"));
}

#[test]
fn what_the_mapping_says_and_the_table_can_t_hold_is_named() {
    let columns = [
        column("a", "String", ""),
        column("n", "UInt8", ""),
        column("list", "Array(String)", ""),
        column("m", "String", "MATERIALIZED"),
        column("t", "Nullable(DateTime64(3))", ""),
        column("map", "Map(String, UInt8)", ""),
    ];
    let of = |name: &str, source: ColumnSource| Mapping {
        columns: [(name.to_owned(), source)].into(),
        ..Mapping::default()
    };
    let fields = |unit| ColumnSource::Fields { names: vec!["x".to_owned()], unit };
    let collect = |name: &str| UnknownFields::Collect(name.to_owned());
    let agent = ColumnSource::Request(RequestInput::UserAgent);
    for (mapping, parts) in [
        (of("z", fields(None)), &["`columns` names the column `z`", "no column of this name"][..]),
        (of("m", fields(None)), &["`m`", "can be inserted into"]),
        (Mapping { required: vec!["q".into()], ..Mapping::default() }, &["`required` names the column `q`"]),
        (Mapping { unknown_fields: collect("q"), ..Mapping::default() }, &["`unknown-fields` names the column `q`"]),
        (
            Mapping { unknown_fields: collect("n"), ..Mapping::default() },
            &["`n`, whose type is UInt8", "Map(String, String)"],
        ),
        (Mapping { unknown_fields: collect("map"), ..Mapping::default() }, &["`map`", "Map(String, String)"]),
        (Mapping { unknown_fields: collect("a"), ..of("a", ColumnSource::Line) }, &["`a`", "no other source"]),
        (of("a", fields(Some(TimeUnit::Seconds))), &["`a`", "takes no `unit`"]),
        (of("n", ColumnSource::Line), &["`n`", "to hold the whole line"]),
        (of("n", ColumnSource::ServerTime), &["`n`", "to hold the server's time"]),
        (of("n", ColumnSource::ClientAddress(AddressKind::Full)), &["`n`", "to hold the client's address"]),
        (of("list", agent.clone()), &["`list`", "holds no text"]),
    ] {
        let error = Plan::compile_mapped(&columns, Dialect::newest("UTC"), &mapping).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    }
    for mapping in [
        of("t", fields(Some(TimeUnit::Nanoseconds))),
        of("t", ColumnSource::ServerTime),
        of("n", agent),
        Mapping { unknown_fields: collect("a"), ..Mapping::default() },
    ] {
        assert!(Plan::compile_mapped(&columns, Dialect::newest("UTC"), &mapping).is_ok(), "{mapping:?}");
    }
}

#[test]
fn a_mapped_column_leaves_its_own_name_and_the_servers_columns_may_be_mapped() {
    let columns = [column("ip", "String", ""), column("server_time", "DateTime", ""), column("a", "String", "")];
    let fields = |name: &str| ColumnSource::Fields { names: vec![name.to_owned()], unit: None };
    let mapping = Mapping {
        columns: [("ip".to_owned(), fields("context.ip")), ("a".to_owned(), fields("b"))].into(),
        ..Mapping::default()
    };
    let plan = Plan::compile_mapped(&columns, Dialect::newest("UTC"), &mapping).unwrap();
    assert_eq!(plan.target(b"b"), KeyTarget::Field(1));
    assert_eq!(plan.target(b"Server_Time"), KeyTarget::Server);
    assert!(matches!(plan.target(b"context"), KeyTarget::Node(_)));
    for key in ["ip", "a", "server"] {
        assert_eq!(plan.target(key.as_bytes()), KeyTarget::Unknown, "{key}");
    }
}
