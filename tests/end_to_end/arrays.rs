//! A body that is one JSON array of objects: small and larger than any buffer, in one piece, in chunks and
//! coded; and one that is none.

use crate::support::{Connection, Server, Variant, each_engine, post, post_with, shared_clickhouse};

each_engine!(
    an_array_is_stored_element_by_element_however_large_it_is,
    what_begins_as_an_array_and_is_none_stores_nothing,
    a_repeated_array_gets_the_first_reply_again,
);

/// An array of so many events, as it is printed for people.
fn pretty(count: usize) -> String {
    let event = |number: usize| format!("  {{\n    \"sequence\": {number},\n    \"event\": \"e\"\n  }}");
    let events: Vec<String> = (0..count).map(event).collect();
    format!("[\n{}\n]\n", events.join(",\n"))
}

fn an_array_is_stored_element_by_element_however_large_it_is(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let table = format!("{database}.events");
    let reply = post(server.address(), "/api/events", b"[{\"sequence\":1},\n\n{\"sequence\":\"x\"}, 5, {}]");
    let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!((&json["accepted"], &json["rejected"], &json["elements"]), (&2.into(), &2.into(), &true.into()));
    let errors: Vec<_> = [0, 1].map(|index| json["errors"][index].clone()).into();
    assert_eq!((&errors[0]["line"], &errors[0]["code"]), (&2.into(), &"type_mismatch".into()));
    assert_eq!((&errors[1]["line"], &errors[1]["code"]), (&3.into(), &"not_an_object".into()));
    assert_eq!(post(server.address(), "/api/events", b" []").text(), r#"{"accepted":0,"rejected":0,"elements":true}"#);
    let bad = post(server.address(), "/api/events", b"[1]");
    assert_eq!((bad.status, bad.text().contains("\"elements\":true")), (422, true));
    let ended = post(server.address(), "/api/events?ack=inserted", b"[{\"event\":\"x\"}]");
    assert_eq!((ended.status, ended.text()), (200, r#"{"accepted":1,"rejected":0,"elements":true}"#.to_owned()));

    let many = pretty(50_000);
    assert!(many.len() > 2 << 20);
    let expected = r#"{"accepted":50000,"rejected":0,"elements":true}"#;
    assert_eq!(post(server.address(), "/api/events", many.as_bytes()).text(), expected);
    assert_eq!(post(server.address(), "/api/events?dry_run=1", many.as_bytes()).text(), expected);
    server.wait_for_rows(clickhouse, &table, 50_003);
    let sums = clickhouse.query(&format!("SELECT sum(sequence), uniqExact(sequence) FROM {table} FORMAT TSV"));
    assert_eq!(sums.trim(), format!("{}\t50000", 25_000u64 * 49_999 + 1));
    server.wait_for_rows(clickhouse, &format!("{table}_quarantine"), 3);
    assert!(server.stop().success());
}

#[test]
fn an_array_in_chunks_is_read() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let many = pretty(20_000);
    let mut connection = Connection::open(server.address());
    connection.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in many.as_bytes().chunks(77_777) {
        connection.send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    connection.send(b"0\r\n\r\n");
    assert_eq!(connection.read_response().text(), r#"{"accepted":20000,"rejected":0,"elements":true}"#);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 20_000);
    assert!(server.stop().success());
}

#[cfg(feature = "codings")]
#[test]
fn a_coded_array_is_decoded_and_read() {
    use std::io::Write;
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    for many in [pretty(3), pretty(30_000)] {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        coder.write_all(many.as_bytes()).unwrap();
        let coded = coder.finish().unwrap();
        let reply = post_with(server.address(), "/api/events", "Content-Encoding: gzip\r\n", &coded);
        assert!(reply.text().ends_with("\"rejected\":0,\"elements\":true}"), "{}", reply.text());
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 30_003);
    assert!(server.stop().success());
}

fn what_begins_as_an_array_and_is_none_stores_nothing(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let many = pretty(20_000);
    let (cut, _) = many.rsplit_once(']').unwrap();
    let followed = format!("{many}{{\"event\":\"more\"}}");
    for (body, at) in [
        ("[{\"event\":\"x\"}\n", 16),
        ("[{\"event\":\"x\"}]\n{\"event\":\"y\"}\n", 17),
        (cut, cut.len() + 1),
        (&followed, many.len() + 1),
    ] {
        let reply = post(server.address(), "/api/events", body.as_bytes());
        let text = reply.text();
        assert_eq!(reply.status, 400, "{text}");
        assert!(text.contains("\"error\":\"invalid_array\"") && text.contains(&format!("byte {at} on")), "{text}");
    }
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"good\"}\n").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
}

fn a_repeated_array_gets_the_first_reply_again(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let many = pretty(20_000);
    for body in ["[{\"event\":\"x\"}]", "[{\"event\":\"x\"},1]", &many] {
        let send = || {
            let key = format!("Idempotency-Key: {}\r\n", body.len());
            post_with(server.address(), "/api/events", &key, body.as_bytes()).text()
        };
        let first = send();
        assert!(first.contains(",\"elements\":true"), "{first}");
        assert_eq!(send(), first);
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 20_002);
    assert!(server.stop().success());
}
