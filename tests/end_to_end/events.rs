//! An event's whole way, read back from ClickHouse by value.

use crate::support::columns;
use crate::support::{
    Connection, Server, Variant, each_engine, each_insert_and_engine, post, request, shared_clickhouse,
};

const ONE: &[u8] = include_bytes!("../../bench/corpus/one.ndjson");
const THIRTY: &[u8] = include_bytes!("../../bench/corpus/events-30.ndjson");

each_insert_and_engine!(
    every_column_of_an_event_is_in_the_table,
    the_corpus_arrives_as_clickhouse_itself_reads_it,
    a_bad_line_is_refused_alone_and_kept_with_its_reason,
    a_table_of_ones_own_is_filled_by_name_and_type,
);

each_engine!(
    a_client_can_not_choose_its_address_or_the_servers_time,
    pipelined_requests_all_arrive_and_are_answered_in_order,
    an_empty_body_and_a_dry_run_store_nothing,
    a_body_of_bad_lines_is_422_and_too_many_store_nothing,
);

fn every_column_of_an_event_is_in_the_table(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let before = unix_seconds();
    let reply = post(server.address(), "/api/events", ONE);
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"accepted":1,"rejected":0}"#));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("date").is_some());
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    let row = clickhouse.query(&format!("SELECT {}, ip FROM {database}.events FORMAT TSV", columns::names()));
    assert_eq!(
        row.trim_end(),
        "2020-12-01 23:59:00\t0287D9AA-4ADF-4B37-A60F-3E9E645C821E\tiOS 13.5.1\tybuRi8mAUypxjbxQ\t1\tapp_start\t0\tsome text\t127.0.0.1"
    );
    let time: u64 = clickhouse
        .query(&format!("SELECT toUnixTimestamp(server_time) FROM {database}.events"))
        .trim()
        .parse()
        .unwrap();
    assert!((before..=unix_seconds()).contains(&time), "{time}");
    let made = clickhouse.query(&format!(
        "SELECT arrayStringConcat(groupArray(name || ' ' || type), ', ') FROM \
         (SELECT name, type FROM system.columns WHERE database = '{database}' AND table = 'events' ORDER BY position) \
         FORMAT TSVRaw"
    ));
    assert_eq!(made.trim_end(), columns::definitions());
}

fn the_corpus_arrives_as_clickhouse_itself_reads_it(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    assert_eq!(post(server.address(), "/api/events", THIRTY).text(), r#"{"accepted":30,"rejected":0}"#);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 30);
    clickhouse.query(&format!("CREATE TABLE {database}.direct AS {database}.events"));
    let insert = format!(
        "INSERT INTO {database}.direct SETTINGS async_insert = 0, input_format_skip_unknown_fields = 1 FORMAT JSONEachRow\n"
    );
    clickhouse.query(&(insert + std::str::from_utf8(THIRTY).unwrap()));
    let rows = |table: &str| {
        clickhouse.query(&format!("SELECT * EXCEPT (ip, server_time) FROM {database}.{table} ORDER BY ALL FORMAT TSV"))
    };
    assert_eq!(rows("events"), rows("direct"));
    assert_eq!(rows("events").lines().count(), 30);
}

fn a_client_can_not_choose_its_address_or_the_servers_time(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let body = br#"{"event":"spoof","ip":"8.8.8.8","server_time":"2001-01-01 00:00:00"}"#;
    assert_eq!(post(server.address(), "/api/events", body).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    let row = clickhouse.query(&format!("SELECT ip, server_time > now() - 60 FROM {database}.events FORMAT TSV"));
    assert_eq!(row.trim(), "127.0.0.1\t1");
}

#[test]
fn a_chunked_body_arrives_and_the_connection_lives_on() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let mut connection = Connection::open(server.address());
    for _ in 0..2 {
        connection.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in [&br#"{"event":"#[..], br#""chunked"}"#] {
            connection.send(format!("{:x}\r\n", piece.len()).as_bytes());
            connection.send(piece);
            connection.send(b"\r\n");
        }
        connection.send(b"0\r\n\r\n");
        assert_eq!(connection.read_response().text(), r#"{"accepted":1,"rejected":0}"#);
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    let events = clickhouse.query(&format!("SELECT DISTINCT event FROM {database}.events FORMAT TSV"));
    assert_eq!(events.trim(), "chunked");
}

fn pipelined_requests_all_arrive_and_are_answered_in_order(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let mut connection = Connection::open(server.address());
    for _ in 0..2 {
        let mut pipelined = Vec::new();
        for count in 1..=20 {
            pipelined.extend(request("/api/events", "", "{\"event\":\"pipelined\"}\n".repeat(count).as_bytes()));
        }
        connection.send(&pipelined);
        for count in 1..=20 {
            assert_eq!(connection.read_response().text(), format!(r#"{{"accepted":{count},"rejected":0}}"#));
        }
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2 * 210);
    let events = clickhouse.query(&format!("SELECT DISTINCT event FROM {database}.events FORMAT TSV"));
    assert_eq!(events.trim(), "pipelined");
}

fn an_empty_body_and_a_dry_run_store_nothing(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    assert_eq!(post(server.address(), "/api/events", b"").text(), r#"{"accepted":0,"rejected":0}"#);
    assert_eq!(post(server.address(), "/api/events", b"\n\r\n \n").text(), r#"{"accepted":0,"rejected":0}"#);
    let dry = post(server.address(), "/api/events?dry_run=1", THIRTY);
    assert_eq!((dry.status, dry.text().as_str()), (200, r#"{"accepted":30,"rejected":0}"#));
    let dry = post(server.address(), "/api/events?dry_run=1", b"{\"sequence\":\"x\"}");
    assert_eq!(dry.status, 422);
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"real\"}").status, 200);
    assert!(server.stop().success());
    let count = |table: &str| clickhouse.query(&format!("SELECT count() FROM {database}.{table}"));
    assert_eq!(count("events").trim(), "1");
    assert_eq!(count("events_quarantine").trim(), "0");
}

fn a_bad_line_is_refused_alone_and_kept_with_its_reason(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let body = b"{\"event\":\"good\"}\n\n{\"event\":\"bad\",\"sequence\":\"x\"}\r\nnot json\n{\"event\":\"good\"}";
    let reply = post(server.address(), "/api/events", body);
    assert_eq!(reply.status, 200);
    let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((json["accepted"].as_u64(), json["rejected"].as_u64()), (Some(2), Some(2)));
    assert_eq!(json["errors"][0]["line"], 3);
    assert_eq!(json["errors"][0]["column"], "sequence");
    assert_eq!(json["errors"][0]["code"], "type_mismatch");
    assert_eq!(json["errors"][1]["line"], 4);
    assert_eq!(json["errors"][1]["code"], "invalid_json");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 2);
    let kept = clickhouse.query(&format!(
        "SELECT code, line, ip, server_time > now() - 60, message != '' FROM {database}.events_quarantine ORDER BY code FORMAT TSV"
    ));
    assert_eq!(
        kept.trim(),
        "invalid_json\tnot json\t127.0.0.1\t1\t1\ntype_mismatch\t{\"event\":\"bad\",\"sequence\":\"x\"}\t127.0.0.1\t1\t1"
    );
}

fn a_body_of_bad_lines_is_422_and_too_many_store_nothing(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let reply = post(server.address(), "/api/events", b"5\n[]\n");
    assert_eq!(reply.status, 422);
    assert!(reply.text().starts_with(r#"{"accepted":0,"rejected":2,"errors":[{"line":1,"#), "{}", reply.text());
    let reply =
        post(server.address(), "/api/events", &[&b"{\"event\":\"good\"}\n"[..], &b"[]\n".repeat(1001)].concat());
    assert_eq!(reply.status, 422);
    let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(json["error"], "too_many_bad_lines");
    assert_eq!(json["errors"].as_array().unwrap().len(), 100);
    assert!(server.stop().success());
    let count = |table: &str| clickhouse.query(&format!("SELECT count() FROM {database}.{table}"));
    assert_eq!((count("events").trim(), count("events_quarantine").trim()), ("0", "2"));
}

fn a_table_of_ones_own_is_filled_by_name_and_type(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.measures (u8 UInt8, i64 Int64, f Float64, ok Bool, id UUID, at DateTime('UTC'), \
         word LowCardinality(String), text String, computed UInt8 MATERIALIZED u8 + 1) ENGINE = MergeTree ORDER BY i64 \
         SETTINGS non_replicated_deduplication_window = 100"
    ));
    let server = Server::start(clickhouse, &database, &variant.and(&["--table", "measures"]));
    let body = br#"{"text":"\u043f\"","i64":-9223372036854775808,"unknown":{"a":[1]},"u8":255,"f":1.5e3,"ok":true,"id":"61f0c404-5cb3-11e7-907b-a6006ad3dba0","at":"2024-02-29T12:00:00Z","word":"w"}
{"i64":1}
{"u8":256,"i64":2}"#;
    let reply = post(server.address(), "/api/measures", body);
    let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((reply.status, &json["accepted"], &json["errors"][0]["code"]), (200, &2.into(), &"out_of_range".into()));
    server.wait_for_rows(clickhouse, &format!("{database}.measures"), 2);
    let rows = clickhouse.query(&format!(
        "SELECT u8, i64, f, ok, id, at, word, text, computed FROM {database}.measures ORDER BY i64 FORMAT TSV"
    ));
    assert_eq!(
        rows.trim(),
        "255\t-9223372036854775808\t1500\ttrue\t61f0c404-5cb3-11e7-907b-a6006ad3dba0\t2024-02-29 12:00:00\tw\tп\"\t0\n\
         0\t1\t0\tfalse\t00000000-0000-0000-0000-000000000000\t1970-01-01 00:00:00\t\t\t1"
    );
}

#[test]
fn a_column_that_no_client_can_fill_gets_its_default_and_a_missing_table_stops_the_start() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let columns = "a String, odd AggregateFunction(sum, UInt64), b UInt8";
    clickhouse.query(&format!("CREATE TABLE {database}.odd ({columns}) ENGINE = MergeTree ORDER BY a"));
    let server = Server::start(clickhouse, &database, &["--table", "odd"]);
    assert!(server.log().contains("no client can fill this column"), "{}", server.log());
    assert_eq!(post(server.address(), "/api/odd", br#"{"a":"x","odd":1,"b":3}"#).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.odd"), 1);
    let stored = format!("SELECT a, finalizeAggregation(odd), b FROM {database}.odd FORMAT TSV");
    assert_eq!(clickhouse.query(&stored), "x\t0\t3\n");
    assert!(server.stop().success());
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--table", "missing"]);
    assert!(!status.success() && log.contains("missing"), "{log}");
    assert_eq!(clickhouse.query(&format!("EXISTS TABLE {database}.missing_quarantine")).trim(), "0");
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
