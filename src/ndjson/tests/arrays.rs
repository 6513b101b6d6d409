//! Tests of bodies that are one JSON array: the elements are what they would be as lines.

use super::slices::run_in_slices;
use super::*;

const COLUMNS: [(&str, &str); 3] = [("s", "String"), ("n", "Int64"), ("ip", "String")];

/// Elements, good and bad, each on one line.
const ELEMENTS: [&str; 14] = [
    r#"{"s":"a","n":1}"#,
    r#"{ "n" : 2 , "s" : "b\n\u00e9" }"#,
    r#"{"s":{"deep":[1, 2]},"n":"3"}"#,
    "{}",
    r#"{"n":"x"}"#,
    r#"{"n":1,"n":2}"#,
    r#"{"unknown":1}"#,
    "1",
    "null",
    "[]",
    "[{\"n\":1}]",
    r#"{"s":"\ud800"}"#,
    r#"{"n":99999999999999999999}"#,
    r#"{"s":"é","n":4}"#,
];

/// The body, encoded on both paths and in slices.
fn encode_all(plan: &Arc<Plan>, body: &[u8], invalid_text: InvalidText) -> Outcome {
    let outcome = encode_with(plan, body, invalid_text);
    for bytes in [1, 7, 64, 1 << 20] {
        let mut encoder = RowEncoder::new(Arc::clone(plan), LIMITS).with_invalid_text(invalid_text);
        let (parts, _) = run_in_slices(&mut encoder, body, bytes);
        assert_eq!(parts.done, outcome.done, "in slices of {bytes}");
        if outcome.done.is_ok() {
            assert_eq!(parts, outcome, "in slices of {bytes}");
        }
    }
    outcome
}

fn without_layout(outcome: Outcome) -> Outcome {
    Outcome { report: Report { has_elements: false, ..outcome.report }, ..outcome }
}

#[test]
fn the_elements_of_an_array_become_what_they_become_as_lines() {
    let plan = plan(&COLUMNS);
    let lines = encode(&plan, ELEMENTS.join("\n").as_bytes());
    assert_eq!((lines.count, lines.report.rejected), (5, 9));
    for separator in [",", " ,\n", ",\r\n\t", "\n,"] {
        for (front, end) in [("[", "]"), ("\u{feff} [\n", "\n]\n"), ("\n\n[ ", "]  ")] {
            let body = [front, &ELEMENTS.join(separator), end].concat();
            let array = encode_all(&plan, body.as_bytes(), InvalidText::Reject);
            assert!(array.report.has_elements);
            assert_eq!(without_layout(array), lines, "{body}");
        }
    }
}

#[test]
fn an_element_over_several_lines_is_one_with_spaces_in_place_of_the_line_feeds() {
    let plan = plan(&COLUMNS);
    let element = "{\n\t\"s\" :\r\n \"a\" ,\n\"n\"\n:\n5\n}";
    let nested = "{\"s\":{\n\"x\":[\n1\n]},\"n\":6}";
    let bad = "{\n\"n\":\n{}\n}";
    let pretty = format!("[\n{element},\n{nested},{bad}\n]");
    let array = encode_all(&plan, pretty.as_bytes(), InvalidText::Reject);
    let lines: Vec<String> = [element, nested, bad].map(|element| element.replace('\n', " ")).into();
    assert_eq!(without_layout(array.clone()), encode(&plan, lines.join("\n").as_bytes()));
    assert_eq!((array.count, array.report.rejected), (2, 1));
    assert_eq!(array.report.errors[0].line, 3);
    let rejected = String::from_utf8_lossy(&array.rejected).into_owned();
    assert!(rejected.contains("{ \"n\": {} }"), "a line of the quarantine is one line: {rejected}");
}

#[test]
fn what_begins_as_an_array_and_is_none_as_a_whole_stores_nothing() {
    let plan = plan(&COLUMNS);
    for (body, at) in [
        ("[{\"n\":1},{\"n\":2}", 16),
        ("[{\"n\":1},{\"n\":2},]", 17),
        ("[{\"n\":1}]\n{\"n\":2}", 10),
        (" \n[{\"n\":1},{\"n\":2]", 17),
        ("[{\"n\":1} {\"n\":2}]", 9),
        ("[1,2", 4),
        ("[", 1),
    ] {
        let outcome = encode_all(&plan, body.as_bytes(), InvalidText::Reject);
        assert_eq!(outcome.done, Err(EncodeRefusal::InvalidArray { at }), "{body}");
    }
    let body = format!("[{}]", ELEMENTS.join(","));
    for end in 1..body.len() {
        let front = body.as_bytes().get(..end).unwrap();
        let done = encode_all(&plan, front, InvalidText::Reject).done;
        assert!(matches!(done, Err(EncodeRefusal::InvalidArray { .. })), "{end}");
    }
    let empty = encode_all(&plan, b" [ \n ] ", InvalidText::Reject);
    assert_eq!((empty.done, empty.count, empty.report.rejected), (Ok(()), 0, 0));
}

#[test]
fn invalid_text_and_the_limits_of_lines_hold_for_elements() {
    let plan = plan(&COLUMNS);
    let body = b"[{\"s\":\"\xff\",\"n\":1},{\"s\":\"\\ud800\"},{\"n\":2}]";
    let codes = |outcome: &Outcome| outcome.report.errors.iter().map(|error| error.code).collect::<Vec<_>>();
    let rejected = encode_all(&plan, body, InvalidText::Reject);
    assert_eq!(codes(&rejected), [LineCode::InvalidUtf8, LineCode::InvalidJson]);
    assert_eq!(encode_all(&plan, body, InvalidText::Replace).count, 3);

    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let outcome = encode_all(&plan, format!("[{{\"s\":{deep}}},{{\"n\":1}}]").as_bytes(), InvalidText::Reject);
    assert_eq!((codes(&outcome), outcome.count), (vec![LineCode::TooDeep], 1));

    let limits = EncodeLimits { line_bytes_max: 20, ..LIMITS };
    let encoder = || RowEncoder::new(Arc::clone(&plan), limits);
    let long = b"[{\"n\":1,          \"s\":\"aaaaaaaaaaaa\"},\n{\"n\":2,\"s\":\"aaaaaaa\"},{\"n\":3,\"s\":\"aaaaaa\"}]";
    let outcome = run(&mut encoder(), true, long);
    assert_eq!((codes(&outcome), outcome.count), (vec![LineCode::LineTooLong; 2], 1));

    let body = format!("[{}]", ["{\"n\":1}"; 10].join(","));
    let limits = EncodeLimits { events_max: 9, ..LIMITS };
    for bytes in [1, 1000] {
        let mut encoder = RowEncoder::new(Arc::clone(&plan), limits);
        assert_eq!(run_in_slices(&mut encoder, body.as_bytes(), bytes).0.done, Err(EncodeRefusal::TooManyEvents));
    }
    let bad = format!("[{}]", vec!["1"; limits::BAD_LINES_MAX as usize + 1].join(","));
    assert_eq!(run(&mut encoder(), true, bad.as_bytes()).done, Err(EncodeRefusal::TooManyBadLines));
}

#[test]
fn an_object_over_several_lines_is_refused_with_what_would_be_read() {
    let plan = plan(&COLUMNS);
    let body = "{\n  \"s\": \"a\",\n  \"n\": 1\n}\n";
    let outcome = encode(&plan, body.as_bytes());
    assert_eq!((outcome.count, outcome.report.rejected), (0, 4));
    let first = outcome.report.errors[0].clone();
    assert_eq!(first.code, LineCode::InvalidJson);
    assert!(first.message.contains("an object must stand on one line"), "{}", first.message);
    for cut in ["{\"s\"", "{\"s\":", "{\"s\":1", "{\"s\":1,", "{\"s\":{\"x\":["] {
        let outcome = encode(&plan, cut.as_bytes());
        assert!(outcome.report.errors[0].message.contains("an object must stand on one line"), "{cut}");
    }
    let other = encode(&plan, b"{\"s\":x");
    assert!(other.report.errors[0].message.contains("from byte 6"));
}
