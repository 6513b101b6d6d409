//! Tests of whole bodies: lines, limits, columns that the server fills, and rejected lines.

use super::*;
use crate::quarantine;

const CORPUS: &[u8] = include_bytes!("../../../bench/corpus/events-30.ndjson");

#[test]
fn the_sample_events_are_encoded() {
    let plan = plan(&EVENTS);
    let outcome = encode(&plan, CORPUS);
    assert_eq!((outcome.count, outcome.report.rejected), (30, 0));
    let rows = decode(&plan, &outcome.rows);
    assert_eq!(
        rows[0],
        [
            Value::DateTime(1_606_864_194),
            text("00000000-0000-4000-A000-000000000000"),
            text("iOS 13.5.1"),
            text("hoIf9bRIYQAk1pP1"),
            Value::Int64(0),
            text("app_stop"),
            Value::Int64(501_926),
            text("привет"),
            text("8.8.8.8"),
            Value::DateTime(1_606_864_194),
        ]
    );
    // Every row is compared with the line as `serde_json` parses it.
    for (row, line) in rows.iter().zip(CORPUS.split(|byte| *byte == b'\n')) {
        let object: serde_json::Value = serde_json::from_slice(line).unwrap();
        for (value, (name, _)) in row.iter().zip(EVENTS) {
            match (value, &object[name]) {
                (Value::Int64(value), expected) => assert_eq!(expected.as_i64(), Some(*value)),
                (Value::String(value), serde_json::Value::String(expected)) => {
                    assert_eq!(value, expected.as_bytes());
                }
                _ => assert!(name.ends_with("time") || name == "ip"),
            }
        }
    }
}

#[test]
fn line_numbers_count_blank_lines() {
    let plan = plan(&[("x", "UInt8")]);
    let body = "\n{\"x\":1}\r\n \t\n[]\n{\"x\":2} \n{\"x\":}\n\n  {\"x\":300}\r\n{\"x\":3}";
    let outcome = encode(&plan, body.as_bytes());
    let lines: Vec<(u32, LineCode)> = outcome.report.errors.iter().map(|error| (error.line, error.code)).collect();
    assert_eq!(lines, [(4, LineCode::NotAnObject), (6, LineCode::InvalidJson), (8, LineCode::OutOfRange),]);
    let values: Vec<Value> = decode(&plan, &outcome.rows).into_iter().flatten().collect();
    assert_eq!(values, [Value::UInt8(1), Value::UInt8(2), Value::UInt8(3)]);
}

#[test]
fn every_code_rejects_its_line_alone() {
    let plan = plan(&[("x", "UInt8"), ("s", "String")]);
    let deep = format!("{{\"y\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!("{{\"s\":\"{}\"}}", "a".repeat(LIMITS.line_bytes_max));
    for (line, code) in [
        (&b"{\"x\":1} x"[..], LineCode::InvalidJson),
        (b"{\"x\":1}{\"x\":1}", LineCode::InvalidJson),
        (b"{\"y\":nul}", LineCode::InvalidJson),
        (b"{\"y\":\"\\x\"}", LineCode::InvalidJson),
        (b"{\"\\ud800\":1}", LineCode::NoKnownField),
        (b"x", LineCode::InvalidJson),
        (b"\0", LineCode::InvalidJson),
        (b"null", LineCode::NotAnObject),
        (b"[{\"x\":1}]", LineCode::NotAnObject),
        (b"{\"x\":[]}", LineCode::TypeMismatch),
        (b"{\"x\":1,\"x\":1}", LineCode::DuplicateField),
        (b"{\"s\":1,\"x\":1,\"s\":1}", LineCode::DuplicateField),
        (b"{\"x\":1,\"\\u0078\":1}", LineCode::DuplicateField),
        (b"{\"X\":1,\"x\":1}", LineCode::DuplicateField),
        (b"{\"x\":1,\"X\":1}", LineCode::DuplicateField),
        (b"{\"y\":1}", LineCode::NoKnownField),
        (b"{\"y\":[{\"x\":1}],\"\":null,\"z\":2}", LineCode::NoKnownField),
        (b"{\"s\":\"\xff\"}", LineCode::InvalidUtf8),
        (b"\xff", LineCode::InvalidUtf8),
        (deep.as_bytes(), LineCode::TooDeep),
        (long.as_bytes(), LineCode::LineTooLong),
    ] {
        let body = [b"{\"x\":1}\n", line, b"\n{\"x\":2}"].concat();
        let outcome = encode(&plan, &body);
        let shown = String::from_utf8_lossy(line.get(..40).unwrap_or(line)).into_owned();
        assert_eq!((outcome.count, outcome.report.rejected), (2, 1), "{shown}");
        assert_eq!(outcome.report.errors[0].code, code, "{shown}");
        assert_eq!(outcome.report.errors[0].line, 2, "{shown}");
        assert_eq!(outcome.report.rejected_by_code[code as usize], 1);
    }
}

#[test]
fn fields_without_a_column_are_skipped() {
    let plan = plan(&[("x", "UInt8"), ("ip", "String")]);
    for line in [
        r#"{"x":7}"#,
        r#"{"y":1,"x":7,"y":"\ud800","y":{"x":[1,{"x":9}]}}"#,
        r#"{"":null,"x":7}"#,
        r#"{ "x" : 7 , "z" : [ ] }"#,
        r#"{"\u0078":7}"#,
        r#"{"X":7,"y":8}"#,
        r#"{"IP":"1.1.1.1","X":7,"Ip":5}"#,
        r#"{"ip":5,"x":7,"ip":{},"ip":"1.1.1.1"}"#,
        "\t{\"x\":7\t}\r",
    ] {
        let outcome = encode(&plan, line.as_bytes());
        let row = vec![Value::UInt8(7), text("8.8.8.8")];
        assert_eq!(decode(&plan, &outcome.rows), [row], "{line}");
    }
}

#[test]
fn a_key_of_another_case_fills_the_column_and_an_ambiguous_one_is_refused() {
    let plan = plan(&[("abc", "UInt8"), ("ABC", "UInt8"), ("Long_Column_Name", "String")]);
    for (line, row) in [
        (r#"{"abc":1,"ABC":2,"LONG_COLUMN_NAME":"x"}"#, (1, 2, "x")),
        (r#"{"ABC":2,"long_column_name":"x"}"#, (0, 2, "x")),
        (r#"{"\u0061bc":1,"lONG_cOLUMN_nAME":"x"}"#, (1, 0, "x")),
        ("{}", (0, 0, "")),
        (" { } ", (0, 0, "")),
    ] {
        let outcome = encode(&plan, format!("{line}\n{line}\n").as_bytes());
        let row = vec![Value::UInt8(row.0), Value::UInt8(row.1), text(row.2)];
        assert_eq!(decode(&plan, &outcome.rows), [row.clone(), row], "{line}");
    }
    let outcome = encode(&plan, b"{\"abc\":1,\"Abc\":2}\n");
    let error = &outcome.report.errors[0];
    assert_eq!((error.code, outcome.count), (LineCode::DuplicateField, 0));
    assert_eq!(error.message, "the key `Abc` may mean each of the columns `abc`, `ABC`");
    let outcome = encode(&plan, b"{\"longColumnName\":1,\"LongColumnNme\":2,\"z\":3,\"y\":4}\n{\"ab\":1}");
    let messages: Vec<&str> = outcome.report.errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "no key of the line is a column of the table: `longColumnName` (is `Long_Column_Name` meant?), \
             `LongColumnNme`, `z`, \u{2026}",
            "no key of the line is a column of the table: `ab` (is `abc` meant?)",
        ]
    );
}

#[test]
fn the_server_fills_its_columns_at_any_position_and_of_any_type() {
    let client = |ip: &str, columns: &[(&str, &str)]| {
        let plan = plan(columns);
        let mut encoder = RowEncoder::new(Arc::clone(&plan), LIMITS);
        let mut batch = Batch::new(0);
        let origin = Origin { client_ip: ip.parse().ok(), ..origin() };
        let body = b"{\"a\":1,\"b\":2,\"ip\":0}\n{\"ip\":0,\"b\":2,\"a\":1}";
        encoder.encode(body, &origin, &mut batch, &mut Report::default()).unwrap();
        let rows = decode(&plan, &batch.rows.bytes);
        assert_eq!(rows[0], rows[1]);
        rows[0].clone()
    };
    let between = [("ip", "IPv6"), ("a", "Int8"), ("server_time", "DateTime64(6)"), ("b", "Int8")];
    assert_eq!(
        client("8.8.8.8", &between),
        [
            Value::Ipv6("::ffff:8.8.8.8".parse().unwrap()),
            Value::Int8(1),
            Value::DateTime64(1_606_864_194_123_456),
            Value::Int8(2),
        ]
    );
    for (ip, written) in [("8.8.8.8", "8.8.8.8"), ("::ffff:8.8.8.8", "8.8.8.8"), ("2001:DB8::1", "2001:db8::1")] {
        assert_eq!(client(ip, &[("ip", "LowCardinality(String)")]), [text(written)]);
        let nullable = Value::Nullable(Some(Box::new(text(written))));
        assert_eq!(client(ip, &[("ip", "Nullable(String)")]), [nullable]);
    }
    assert_eq!(client("::ffff:8.8.8.8", &[("ip", "IPv4")]), [Value::Ipv4("8.8.8.8".parse().unwrap())]);
    for (ip, written) in [("::ffff:8.8.8.8", Some("8.8.8.8")), ("2001:db8::1", None), ("none", None)] {
        let written = written.map(|ip| Box::new(Value::Ipv4(ip.parse().unwrap())));
        assert_eq!(client(ip, &[("ip", "Nullable(IPv4)")]), [Value::Nullable(written)]);
    }
    assert_eq!(client("none", &[("ip", "String")]), [text("")]);
    assert_eq!(client("none", &[("ip", "Nullable(String)")]), [Value::Nullable(None)]);
    assert_eq!(client("none", &[("ip", "IPv4")]), [Value::Ipv4("0.0.0.0".parse().unwrap())]);
    assert_eq!(client("none", &[("ip", "IPv6")]), [Value::Ipv6("::".parse().unwrap())]);
}

#[test]
fn whatever_types_the_servers_columns_have_no_client_fills_them() {
    let row = |columns: &[(&str, &str)], body: &str| {
        let outcome = run(&mut RowEncoder::new(plan(columns), LIMITS), true, body.as_bytes());
        assert_eq!(outcome, run(&mut RowEncoder::new(plan(columns), LIMITS), false, body.as_bytes()), "{columns:?}");
        assert_eq!(outcome.report.errors.len(), 0, "{columns:?}");
        outcome.rows
    };
    let seconds = 1_606_864_194u64;
    let day = (seconds / 86400) as u32;
    let (address, time) = (b"8.8.8.8", b"2020-12-01T23:09:54.123Z");
    let string = |text: &[u8]| [&[text.len() as u8], text].concat();
    let padded = |text: &[u8]| [text, &[0; 50]].concat()[..50].to_vec();
    for (name, type_name, value) in [
        ("ip", "FixedString(50)", padded(address)),
        ("IP", "Nullable(FixedString(50))", [&[0][..], &padded(address)].concat()),
        ("ip", "Variant(Int8, String)", [vec![1], string(address)].concat()),
        ("ip", "Dynamic", [vec![0x15], string(address)].concat()),
        ("server_time", "Date", (day as u16).to_le_bytes().to_vec()),
        ("server_time", "Date32", day.to_le_bytes().to_vec()),
        ("Server_Time", "UInt32", (seconds as u32).to_le_bytes().to_vec()),
        ("server_time", "Nullable(Int64)", [&[0][..], &seconds.to_le_bytes()].concat()),
        ("server_time", "Decimal(18, 3)", (seconds * 1000).to_le_bytes().to_vec()),
        ("server_time", "Float64", (seconds as f64).to_le_bytes().to_vec()),
        ("server_time", "String", string(time)),
        ("server_time", "FixedString(50)", padded(time)),
        // These hold nothing that the server says: they are left to their defaults.
        ("ip", "UInt32", Vec::new()),
        ("ip", "FixedString(16)", Vec::new()),
        ("ip", "Array(String)", Vec::new()),
        ("server_time", "UInt16", Vec::new()),
        ("server_time", "Decimal(9, 2)", Vec::new()),
        ("server_time", "FixedString(19)", Vec::new()),
        ("server_time", "Time", Vec::new()),
        ("server_time", "Tuple(DateTime)", Vec::new()),
    ] {
        let columns = [("a", "Int8"), (name, type_name)];
        for forged in ["", ",\"ip\":7,\"server_time\":7", ",\"IP\":\"9.9.9.9\",\"Server_Time\":\"1999-01-01 00:00:00\""]
        {
            let rows = row(&columns, &format!("{{\"a\":1{forged}}}\n"));
            assert_eq!(rows, [&[1], &value[..]].concat(), "{name} {type_name} {forged}");
        }
        let left = plan(&columns).unfillable().len();
        assert_eq!(left, usize::from(value.is_empty()), "{name} {type_name}");
    }
}

#[test]
fn limits_hold_at_zero_one_and_the_limit() {
    let plan = plan(&[("x", "UInt8")]);
    let with = |limits: EncodeLimits, body: &str| {
        let mut encoder = RowEncoder::new(Arc::clone(&plan), limits);
        let fast = run(&mut encoder, true, body.as_bytes());
        assert_eq!(fast.done, run(&mut encoder, false, body.as_bytes()).done);
        fast
    };
    let line = "{\"x\":1}\n";
    for events_max in [0, 1, 5] {
        let limits = EncodeLimits { events_max, ..LIMITS };
        let at_limit = line.repeat(events_max as usize) + "\n \n";
        assert_eq!(with(limits, &at_limit).done, Ok(()));
        for over in [at_limit.clone() + line, at_limit + "bad"] {
            assert_eq!(with(limits, &over).done, Err(EncodeRefusal::TooManyEvents));
        }
    }
    for encoded_bytes_max in [0, 1, 5] {
        let limits = EncodeLimits { encoded_bytes_max, ..LIMITS };
        let at_limit = line.repeat(encoded_bytes_max);
        assert_eq!(with(limits, &at_limit).done, Ok(()));
        for over in [at_limit.clone() + line, at_limit + "bad"] {
            assert_eq!(with(limits, &over).done, Err(EncodeRefusal::EncodedTooLarge));
        }
    }
    for (line_bytes_max, rejected) in [(0, 1), (1, 1), (6, 1), (7, 0)] {
        let limits = EncodeLimits { line_bytes_max, ..LIMITS };
        for body in ["{\"x\":1}", "{\"x\":1}\r\n", "  {\"x\":1} \n"] {
            let report = with(limits, body).report;
            assert_eq!(report.rejected_by_code[LineCode::LineTooLong as usize], rejected);
        }
    }
    let bad = "x\n".repeat(limits::BAD_LINES_MAX as usize);
    let outcome = with(LIMITS, &bad);
    assert_eq!(outcome.done, Ok(()));
    assert_eq!(outcome.report.errors.len(), limits::LINE_ERRORS_LISTED_MAX);
    assert_eq!(outcome.report.rejected, limits::BAD_LINES_MAX);
    assert_eq!(with(LIMITS, &(bad + "x")).done, Err(EncodeRefusal::TooManyBadLines));
}

#[test]
fn a_rejected_line_is_in_the_quarantine_with_its_reason() {
    let plan = plan(&[("x", "UInt8")]);
    let outcome = encode(&plan, b"{\"x\":1}\n{\"x\":\"a\"}\r\n");
    let mut table = quarantine::rowbinary_header().unwrap();
    table.extend_from_slice(&outcome.rejected);
    let format = RowBinaryFormat::RowBinaryWithNamesAndTypes;
    let mut reader = RowBinaryValueReader::new(&table[..], format).unwrap();
    let row = reader.read_row().unwrap().unwrap();
    assert_eq!(row[2], text("type_mismatch"));
    assert_eq!(row[3], text("\"a\" is not a value of type UInt8"));
    assert_eq!(row[4], text("{\"x\":\"a\"}"));
    assert!(reader.read_row().unwrap().is_none());
}

#[test]
fn every_prefix_of_a_line_is_rejected() {
    let plan = plan(&EVENTS);
    for line in CORPUS.split(|byte| *byte == b'\n').take(6) {
        for end in 1..line.len() {
            let body = [line.get(..end).unwrap(), b"\n", line].concat();
            let outcome = encode(&plan, &body);
            assert_eq!((outcome.count, outcome.report.rejected), (1, 1), "{end}");
            assert_eq!(outcome.report.errors[0].code, LineCode::InvalidJson);
        }
    }
}

/// A step learned with the opening brace does not match after a value, and one learned with a comma
/// does not match at the start of an object.
#[test]
fn a_brace_is_learned_for_the_first_key_only() {
    let plan = plan(&[("a", "Int64"), ("b", "Int64")]);
    let learned = ["{\"a\":1,\"b\":2}", "{\"b\":3,\"a\":4}", "{\"b\":5}"];
    let broken = ["{\"a\":1{\"b\":2}", ",\"b\":2}", ",\"a\":1,\"b\":2}", "{\"b\":1{\"a\":2}", "{\"a\":1,{\"b\":2}"];
    for first in learned {
        for then in learned {
            for bad in broken {
                let outcome = encode(&plan, [first, then, bad, first, bad].join("\n").as_bytes());
                let lines: Vec<u32> = outcome.report.errors.iter().map(|error| error.line).collect();
                assert_eq!((outcome.count, lines), (3, vec![3, 5]), "{bad} after {first} and {then}");
            }
        }
    }
}

/// Rows are moved to the batch in pieces. The boundaries of the pieces have no effect on the rows, on
/// their identities, or on a rollback.
#[test]
fn a_body_of_any_size_gives_the_rows_of_its_lines() {
    let plan = plan(&[("s", "String"), ("n", "Int64")]);
    let held = row::FLUSH_BYTES;
    let line = |index: usize, length: usize| format!("{{\"s\":\"{index:06}{}\",\"n\":{index}}}\n", "a".repeat(length));
    for length in [0, 5, 100, held / 2, held - 20, held, held * 3] {
        let count = held * 3 / (length + 15) + 3;
        let mut encoder = RowEncoder::new(Arc::clone(&plan), LIMITS).identifying(Some("s"));
        let mut one_by_one = Vec::new();
        let mut body = String::new();
        for index in 0..count {
            one_by_one.push(run(&mut encoder, true, line(index, length).as_bytes()).rows);
            body += &line(index, length);
            if index % 7 == 3 {
                body += "{\"s\":\"rejected\",\"n\":[]}\n";
            }
        }
        for _ in 0..2 {
            let whole = encode(&plan, body.as_bytes());
            assert_eq!((whole.done, whole.count as usize), (Ok(()), count), "{length}");
            assert!(whole.rows == one_by_one.concat(), "{length}");
        }
        let mut batch = Batch::new(0);
        encoder.encode(body.as_bytes(), &origin(), &mut batch, &mut Report::default()).unwrap();
        batch.close();
        let taken = batch.ids.iter().copied().step_by(2).collect::<Vec<_>>();
        batch.remove_repeats(|id| taken.contains(id));
        let left: Vec<&[u8]> = one_by_one.iter().skip(1).step_by(2).map(Vec::as_slice).collect();
        assert!(batch.rows.bytes == left.concat(), "{length}");
    }
    // The limit of encoded bytes is exceeded after some rows were moved to the batch: `run` checks that
    // all of them are rolled back.
    for over in 0..2 {
        let lines = (0..400).map(|index| line(index, 200)).collect::<String>();
        let encoded_bytes_max = run(&mut RowEncoder::new(Arc::clone(&plan), LIMITS), true, lines.as_bytes()).rows.len();
        assert!(encoded_bytes_max > 2 * held);
        let limits = EncodeLimits { encoded_bytes_max: encoded_bytes_max - over, ..LIMITS };
        for fast in [true, false] {
            let done = run(&mut RowEncoder::new(Arc::clone(&plan), limits), fast, lines.as_bytes()).done;
            assert_eq!(done, if over == 0 { Ok(()) } else { Err(EncodeRefusal::EncodedTooLarge) });
        }
    }
}

/// A reply lists a hundred messages, and each rejected line is stored with its own.
#[test]
fn a_message_does_not_repeat_a_long_type_or_a_long_value() {
    let elements: Vec<String> = (0..3000).map(|number| format!("'element number {number}' = {number}")).collect();
    let plan = plan(&[("e", &format!("Enum16({})", elements.join(", ")))]);
    let long = "x".repeat(100_000);
    for value in ["\"none of them\"", "70000", &format!("\"{long}\""), &format!("[\"{long}\"]")] {
        let outcome = encode(&plan, format!("{{\"e\":{value}}}\n").as_bytes());
        let message = &outcome.report.errors[0].message;
        assert!(message.len() < 300 && message.contains("Enum16("), "{message}");
    }
}

/// Invalid UTF-8, including an incomplete character, rejects its own line and no other, at any position:
/// in keys and values of columns, in skipped ones, in nested ones, and beside escapes.
#[test]
fn a_line_with_invalid_utf8_at_any_position_is_rejected() {
    let plan = plan(&[("s", "String"), ("x", "FixedString(40)"), ("e", "Enum8('ä'=1)")]);
    let good = "{\"s\":\"é and \\n text that is longer than a block, or than two, by far: 0123456789\",\"x\":\"ж\",\"e\":\"ä\",\"ключ\":{\"я\":[\"\\u00e9п\",1]}}";
    for place in 0..good.len() {
        for bad in [&[0x80][..], &[0xff], &[0xc3], &[0xe2, 0x82], &[0xed, 0xa0, 0x80], &[0xc0, 0x80]] {
            let (front, back) = good.as_bytes().split_at(place);
            let body = [good.as_bytes(), b"\n", front, bad, back, b"\n", good.as_bytes(), b"\n"].concat();
            let outcome = encode(&plan, &body);
            let errors: Vec<_> = outcome.report.errors.iter().map(|error| (error.line, error.code)).collect();
            assert_eq!((outcome.count, errors), (2, vec![(2, LineCode::InvalidUtf8)]), "{bad:x?} at {place}");
        }
        let body = [good.as_bytes(), b"\n", &good.as_bytes()[..place]].concat();
        let cut_in_a_character = !good.is_char_boundary(place);
        let code = if cut_in_a_character { LineCode::InvalidUtf8 } else { LineCode::InvalidJson };
        let errors: Vec<_> = encode(&plan, &body).report.errors.iter().map(|error| error.code).collect();
        assert_eq!(errors, if place == 0 { vec![] } else { vec![code] }, "cut at {place}");
    }
}
