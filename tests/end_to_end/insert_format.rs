//! However rows are sent, the table has the same ones, once, as one part; and what was sent in one
//! format may be repeated in another.

use crate::support::proxy::{Proxy, faults};
use crate::support::{Server, post, shared_clickhouse, wait_for};

const COMBINATIONS: [(&str, &str); 6] = [
    ("rowbinary", "none"),
    ("rowbinary", "lz4"),
    ("rowbinary", "zstd"),
    ("native", "none"),
    ("native", "lz4"),
    ("native", "zstd"),
];

/// Every type that a block may have, and some inside of others.
const COLUMNS: [(&str, &str); 27] = [
    ("u8", "UInt8"),
    ("u16", "UInt16"),
    ("u32", "UInt32"),
    ("u64", "UInt64"),
    ("i8", "Int8"),
    ("i16", "Int16"),
    ("i32", "Int32"),
    ("i64", "Int64"),
    ("f32", "Float32"),
    ("f64", "Float64"),
    ("ok", "Bool"),
    ("text", "String"),
    ("fixed", "FixedString(5)"),
    ("id", "UUID"),
    ("day", "Date"),
    ("day32", "Date32"),
    ("at", "DateTime('UTC')"),
    ("at64", "DateTime64(3, 'UTC')"),
    ("v4", "IPv4"),
    ("v6", "IPv6"),
    ("word", "LowCardinality(String)"),
    ("short", "LowCardinality(FixedString(3))"),
    ("maybe_word", "LowCardinality(Nullable(String))"),
    ("maybe_number", "Nullable(Int64)"),
    ("maybe_text", "Nullable(String)"),
    ("maybe_fixed", "Nullable(FixedString(4))"),
    ("maybe_id", "Nullable(UUID)"),
];

/// Lines of which each has other fields, with values at the ends of their types.
fn body() -> String {
    let whole = r#""u8":255,"u16":65535,"u32":4294967295,"u64":18446744073709551615,"i8":-128,"i16":-32768,"i32":-2147483648,"i64":-9223372036854775808,"f32":1.5,"f64":-2.25e100,"ok":true,"fixed":"abc","id":"61f0c404-5cb3-11e7-907b-a6006ad3dba0","day":"2149-06-06","day32":"1900-01-01","at":"2024-02-29 12:00:00","at64":"2024-02-29 12:00:00.125","v4":"8.8.4.4","v6":"2001:db8::1","word":"w","short":"xy","maybe_word":"m","maybe_number":-1,"maybe_text":"some","maybe_fixed":"abcd","maybe_id":"61f0c404-5cb3-11e7-907b-a6006ad3dba0""#;
    let fields: Vec<&str> = whole.split(",\"").collect();
    let mut lines = format!("{{{whole}}}\n{{}}\n");
    for number in 0..500 {
        let some: Vec<String> = fields
            .iter()
            .enumerate()
            .filter(|(place, _)| (number + place) % 3 != 0)
            .map(|(_, field)| format!("\"{}", field.trim_start_matches('"')))
            .collect();
        lines.push_str(&format!("{{{},\"text\":\"{}\"}}\n", some.join(","), "ü".repeat(number)));
    }
    lines
}

fn environment(format: &'static str, compression: &'static str) -> [(&'static str, &'static str); 2] {
    [("SLUICEGATE_INSERT_FORMAT", format), ("SLUICEGATE_INSERT_COMPRESSION", compression)]
}

fn with_proxy<'a>(proxy_url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--clickhouse-url", proxy_url][..], more].concat()
}

#[test]
fn every_format_and_compression_stores_the_same_rows_as_one_part() {
    let clickhouse = shared_clickhouse();
    let columns: Vec<String> = COLUMNS.iter().map(|(name, type_name)| format!("{name} {type_name}")).collect();
    let body = body();
    let mut stored = Vec::new();
    for (format, compression) in COMBINATIONS {
        let database = clickhouse.database();
        clickhouse.query(&format!(
            "CREATE TABLE {database}.all ({}) ENGINE = MergeTree ORDER BY i64 \
             SETTINGS non_replicated_deduplication_window = 100",
            columns.join(", ")
        ));
        let proxy = Proxy::start(clickhouse);
        let url = proxy.url();
        let flags = with_proxy(&url, &["--table", "all"]);
        let server = Server::start_with_environment(clickhouse, &database, &flags, &environment(format, compression));
        let reply = post(server.address(), "/api/all", body.as_bytes());
        assert_eq!(reply.text(), r#"{"accepted":502,"rejected":0}"#);
        server.wait_for_rows(clickhouse, &format!("{database}.all"), 502);
        stored.push(clickhouse.query(&format!("SELECT * FROM {database}.all ORDER BY ALL FORMAT JSONEachRow")));
        let parts = format!("SELECT count() FROM system.parts WHERE database = '{database}' AND table = 'all'");
        assert_eq!(clickhouse.query(&parts).trim(), "1", "{format}, {compression}");

        let heads = proxy.heads();
        let [head] = &heads[..] else { panic!("there were {} INSERTs", heads.len()) };
        let head = head.to_ascii_lowercase();
        let named = if format == "native" { "format+native" } else { "format+rowbinarywithnamesandtypes" };
        assert!(head.contains(named), "{head}");
        let coding = head.lines().find_map(|line| line.strip_prefix("content-encoding: ")).unwrap_or("none");
        assert_eq!(coding, compression);
        assert!(server.stop().success());
    }
    assert_eq!(stored[0].lines().count(), 502);
    for (rows, combination) in stored.iter().zip(COMBINATIONS) {
        assert!(*rows == stored[0], "{combination:?} stores other rows");
    }
}

#[test]
fn what_one_format_has_stored_the_other_does_not_store_again() {
    let clickhouse = shared_clickhouse();
    for [first, second] in [[("rowbinary", "none"), ("native", "zstd")], [("native", "lz4"), ("rowbinary", "none")]] {
        let database = clickhouse.database();
        let proxy = Proxy::start(clickhouse);
        let lost = || faults().into_iter().filter(|fault| fault.name == "an end instead of the reply");
        proxy.inflict(lost().cycle().take(1000));
        let url = proxy.url();
        let flags = with_proxy(&url, &["--batch-age", "20ms"]);
        let mut server = Server::start_with_environment(clickhouse, &database, &flags, &environment(first.0, first.1));
        let body: String = (0..3000).map(|number| format!("{{\"sequence\":{number}}}\n")).collect();
        assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
        wait_for(|| server.log(), || (proxy.inflicted() > 0).then_some(()));
        server.wait_for_rows(clickhouse, &format!("{database}.events"), 3000);
        server.kill9();
        assert!(!server.spooled_files().is_empty());
        proxy.inflict([]);
        server.set_environment(&environment(second.0, second.1));
        let server = server.start_again();
        server.wait_until_drained();
        let last = proxy.heads().pop().unwrap().to_ascii_lowercase();
        assert_eq!(last.contains("format+native"), second.0 == "native", "{last}");
        let count = format!("SELECT count(), uniqExact(sequence) FROM {database}.events FORMAT TSV");
        assert_eq!(clickhouse.query(&count).trim(), "3000\t3000", "{first:?}, then {second:?}");
        assert!(server.stop().success());
    }
}

#[test]
fn a_block_with_an_enum_is_not_sent_unchecked() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.kinds (number UInt32, kind Enum8('a' = 1, 'b' = 2)) ENGINE = MergeTree \
         ORDER BY number SETTINGS non_replicated_deduplication_window = 100"
    ));
    let flags = ["--table", "kinds", "--batch-age", "1h", "--batch-rows", "2"];
    let server = Server::start_with_environment(clickhouse, &database, &flags, &environment("native", "none"));
    assert_eq!(post(server.address(), "/api/kinds", br#"{"number":1,"kind":"b"}"#).status, 200);
    assert!(server.log().contains("native is not used for this table"));
    // Before the server has looked again: the value that waits in the spool has no name any more.
    clickhouse.query(&format!("ALTER TABLE {database}.kinds MODIFY COLUMN kind Enum8('a' = 1)"));
    assert_eq!(post(server.address(), "/api/kinds", br#"{"number":2,"kind":"b"}"#).status, 200);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("`kind` was Enum8").then_some(()));
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.kinds")).trim(), "0");
    clickhouse.query(&format!("ALTER TABLE {database}.kinds MODIFY COLUMN kind Enum8('a' = 1, 'b' = 2)"));
    server.wait_for_rows(clickhouse, &format!("{database}.kinds"), 2);
    assert_eq!(clickhouse.query(&format!("SELECT DISTINCT kind FROM {database}.kinds")).trim(), "b");
}

#[test]
fn a_table_that_native_can_not_do_is_sent_as_rowbinary_and_the_start_says_so() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.lists (number UInt32, tags Array(String)) ENGINE = MergeTree ORDER BY number \
         SETTINGS non_replicated_deduplication_window = 100"
    ));
    let flags = ["--table", "lists"];
    let server = Server::start_with_environment(clickhouse, &database, &flags, &environment("native", "zstd"));
    assert!(server.log().contains("the values of column `tags` of type Array(String)"), "{}", server.log());
    assert_eq!(post(server.address(), "/api/lists", br#"{"number":1,"tags":["a","b"]}"#).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.lists"), 1);
    assert_eq!(clickhouse.query(&format!("SELECT tags FROM {database}.lists FORMAT TSV")).trim(), "['a','b']");
    assert!(server.stop().success());
}
