//! What ClickHouse has of events with invalid text: unpaired surrogates, and bytes that are not UTF-8.

use crate::support::{Server, Variant, each_engine, post, shared_clickhouse};

const LINES: [&[u8]; 8] = [
    br#"{"sequence":1,"param_str":"cut \ud83d"}"#,
    br#"{"sequence":2,"param_str":"whole \ud83d\ude00","\ud83d":"a key that no column has"}"#,
    b"{\"sequence\":3,\"param_str\":\"cut \xf0\x9f\x98\"}",
    b"{\"sequence\":4,\"param_str\":\"sound\",\"other\xff\":\"\xc3\"}",
    br#"{"sequence":5,"param_str":{"text":["\ude00"]}}"#,
    br#"{"sequence":6,"param_str":"sound","other":"\ude00"}"#,
    // Wrong whatever happens to their text.
    b"{\"sequence\":\"\xff seven\",\"param_str\":\"\\ud83d\"}",
    b"{\"sequence\":8,\"param_str\":\"\xff\"",
];

/// Sends all lines to a server with this flag; the texts in the table, and how many lines are in the
/// quarantine and how many of those are UTF-8.
fn stored(variant: Variant, invalid_text: &str, rejected: usize) -> (Vec<String>, String) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--invalid-text", invalid_text]));
    let reply = post(server.address(), "/api/events", &LINES.join(&b'\n'));
    let counts = format!("{{\"accepted\":{},\"rejected\":{rejected},", LINES.len() - rejected);
    assert!(reply.status == 200 && reply.text().starts_with(&counts), "{}", reply.text());
    server.wait_until_drained();
    let texts = format!(
        "SELECT concat(toString(sequence), ' ', param_str) FROM {database}.events ORDER BY sequence FORMAT TSVRaw"
    );
    let texts = clickhouse.query(&texts).lines().map(str::to_owned).collect();
    let invalid = format!("SELECT countIf(NOT isValidUTF8(param_str)) FROM {database}.events");
    assert_eq!(clickhouse.query(&invalid).trim(), "0");
    let quarantine = format!(
        "SELECT count(), countIf(isValidUTF8(line)), countIf(isValidUTF8(message)) FROM {database}.events_quarantine \
         FORMAT TSV"
    );
    let quarantine = clickhouse.query(&quarantine).trim().to_owned();
    assert!(server.stop().success());
    (texts, quarantine)
}

each_engine!(invalid_text_rejects_its_line, invalid_text_is_replaced_if_the_operator_wants_it);

fn invalid_text_rejects_its_line(variant: Variant) {
    let (texts, quarantine) = stored(variant, "reject", 5);
    assert_eq!(texts, ["2 whole \u{1f600}", r#"5 {"text":["\ude00"]}"#, "6 sound"]);
    assert_eq!(quarantine, "5\t1\t5", "a line is not set aside as it came");
}

fn invalid_text_is_replaced_if_the_operator_wants_it(variant: Variant) {
    let (texts, quarantine) = stored(variant, "replace", 2);
    let expected =
        ["1 cut \u{fffd}", "2 whole \u{1f600}", "3 cut \u{fffd}", "4 sound", r#"5 {"text":["\ufffd"]}"#, "6 sound"];
    assert_eq!(texts, expected);
    assert_eq!(quarantine, "2\t2\t2");
}
