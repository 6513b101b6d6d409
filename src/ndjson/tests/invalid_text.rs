//! Invalid text: unpaired surrogates and bytes that are not UTF-8, rejected or replaced.

use super::*;

/// The text of the column `s`, or why the line is rejected; with the line that is set aside.
fn stored(line: &[u8], invalid_text: InvalidText) -> Result<Vec<u8>, LineCode> {
    let plan = plan(&[("s", "String"), ("n", "UInt8")]);
    let body = [line, b"\n", line, b"\n"].concat();
    let outcome = encode_with(&plan, &body, invalid_text);
    if let Some(error) = outcome.report.errors.first() {
        return Err(error.code);
    }
    let rows = decode(&plan, &outcome.rows);
    assert!(rows.len() == 2 && rows[0] == rows[1]);
    let Value::String(text) = &rows[0][0] else { panic!("{rows:?}") };
    Ok(text.clone())
}

#[test]
fn invalid_text_is_rejected_in_values_and_replaced_everywhere() {
    use LineCode::{InvalidJson, InvalidUtf8, NoKnownField};
    for (line, rejecting, replacing) in [
        (&br#"{"s":"a\ud83d"}"#[..], Err(InvalidJson), Ok("a\u{fffd}")),
        (br#"{"s":"\ude00\ud83d"}"#, Err(InvalidJson), Ok("\u{fffd}\u{fffd}")),
        (br#"{"s":"\ud83d\ude00"}"#, Ok("\u{1f600}"), Ok("\u{1f600}")),
        (b"{\"s\":\"\xf0\x9f\x98\"}", Err(InvalidUtf8), Ok("\u{fffd}")),
        (b"{\"s\":\"\xff\xfe\"}", Err(InvalidUtf8), Ok("\u{fffd}\u{fffd}")),
        // A key that no column has, and its value.
        (br#"{"s":"a","\ud83d":1}"#, Ok("a"), Ok("a")),
        (br#"{"s":"a","x":"\ud83d"}"#, Ok("a"), Ok("a")),
        (b"{\"s\":\"a\",\"x\xff\":\"\xff\"}", Err(InvalidUtf8), Ok("a")),
        (br#"{"\ud83d":1,"\ude00":2}"#, Err(NoKnownField), Err(NoKnownField)),
        // The text of an array.
        (br#"{"s":["\ud83d","\ud83d\ude00"]}"#, Ok(r#"["\ud83d","\ud83d\ude00"]"#), Ok(r#"["\ufffd","\ud83d\ude00"]"#)),
        (b"{\"s\":[\"\xff\"]}", Err(InvalidUtf8), Ok("[\"\u{fffd}\"]")),
        // No text at all.
        (b"{\"s\":\"a\\\xff\"}", Err(InvalidUtf8), Err(InvalidJson)),
        (b"{\"s\":\xff}", Err(InvalidUtf8), Err(InvalidJson)),
    ] {
        let expected = |expected: Result<&str, LineCode>| expected.map(|text| text.as_bytes().to_vec());
        let shown = String::from_utf8_lossy(line);
        assert_eq!(stored(line, InvalidText::Reject), expected(rejecting), "{shown}");
        assert_eq!(stored(line, InvalidText::Replace), expected(replacing), "{shown}");
    }
}

#[test]
fn a_column_whose_name_has_the_replacement_character_gets_no_invalid_key_unless_text_is_replaced() {
    let plan = plan(&[("\u{fffd}", "String"), ("s", "String")]);
    let line = br#"{"s":"a","\ud83d":"b"}"#;
    let cells = |invalid_text| decode(&plan, &encode_with(&plan, line, invalid_text).rows).remove(0);
    assert_eq!(cells(InvalidText::Reject), [text(""), text("a")]);
    assert_eq!(cells(InvalidText::Replace), [text("b"), text("a")]);
}

#[test]
fn a_rejected_line_is_set_aside_as_it_came_or_as_valid_text_of_the_same_bound() {
    let plan = plan(&[("n", "UInt8")]);
    let long = [b"{\"n\":\"".to_vec(), vec![0xff; limits::QUARANTINE_LINE_BYTES_MAX], b"\"}".to_vec()].concat();
    let too_long = vec![0xff; LIMITS.line_bytes_max + 1];
    let cut = [vec![b'x'; limits::QUARANTINE_LINE_BYTES_MAX - 1], "\u{1f600}".into()].concat();
    for line in [&b"{\"n\":\"\xff\"}"[..], &long, &too_long, &cut] {
        let received = encode_with(&plan, line, InvalidText::Reject).rejected;
        let end = line.len().min(limits::QUARANTINE_LINE_BYTES_MAX - 1);
        assert!(received.windows(end).any(|window| window == &line[..end]), "the line is not as it came");
        let replaced = encode_with(&plan, line, InvalidText::Replace).rejected;
        // Behind the time and the lengths, which are no text.
        let text = &replaced[memchr::memmem::find(&replaced, b"8.8.8.8").unwrap()..];
        let line_text = &text[text.len() - text.len().min(limits::QUARANTINE_LINE_BYTES_MAX) / 2..];
        let valid = std::str::from_utf8(&line_text[line_text.iter().position(|byte| byte & 0xc0 != 0x80).unwrap()..]);
        assert!(valid.is_ok(), "{valid:?}");
        assert!(replaced.len() < limits::QUARANTINE_LINE_BYTES_MAX + 500);
    }
}

#[test]
fn a_new_plan_keeps_the_treatment_of_invalid_text() {
    let mut encoder = RowEncoder::new(plan(&[("a", "String")]), LIMITS).with_invalid_text(InvalidText::Replace);
    encoder.follow(plan(&[("s", "String")]));
    assert_eq!(run(&mut encoder, true, br#"{"s":"\ud83d"}"#).report.accepted, 1);
}
