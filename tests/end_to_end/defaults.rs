//! Columns with default expressions: what a missing field and a null become, and what becomes of rows that
//! wait while the table changes.

use crate::oracle::{Line, compare};
use crate::support::{ClickHouse, Server, Variant, each_insert, post, run, shared_clickhouse, wait_for};

each_insert!(rows_with_defaults_wait_for_the_columns_that_they_were_written_for);

const COLUMNS: &str = "
    a Int32 DEFAULT id + e * 100,
    b String DEFAULT concat('b', toString(a), toString(m)),
    e UInt8 EPHEMERAL 7,
    m UInt32 MATERIALIZED id * 2,
    thrice UInt32 ALIAS id * 3,
    `c, d` UInt64 DEFAULT thrice + 1,
    n Nullable(Int8) DEFAULT 5,
    arr Array(String) DEFAULT ['x', b],
    lc LowCardinality(String) DEFAULT 'it\\'s',
    lcn LowCardinality(Nullable(String)) DEFAULT 'lcn',
    t Tuple(p UInt8, q String) DEFAULT (a % 2, 'q'),
    mapped Map(String, UInt8) DEFAULT map('k', 1),
    kind Enum8('one' = 1, 'two' = 2) DEFAULT 'two',
    f FixedString(3) DEFAULT 'abc',
    d Decimal(9, 2) DEFAULT 1.5,
    day Date DEFAULT toDate('2020-01-01') + id,
    nothing UInt8 DEFAULT NULL,
    parts Array(UInt8) DEFAULT arrayMap(x -> toUInt8(x + id), [1, 2]),
    plain UInt8,
    `sluicegate value 0` UInt8 DEFAULT 9";

/// Where there is a Nullable(Tuple), as in no version before 26.1.
const NULLABLE_TUPLES: &str = ", nt Nullable(Tuple(p Int8, q String)) DEFAULT (a % 2, b), np Nullable(Point), \
                               ant Array(Nullable(Tuple(Int8, String)))";

#[test]
fn a_missing_field_and_a_null_get_what_clickhouse_gives_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let fields = [
        ("a", "-7"),
        ("b", "\"B\""),
        ("e", "3"),
        ("c, d", "17"),
        ("n", "1"),
        ("arr", "[\"own\"]"),
        ("lc", "\"own\""),
        ("lcn", "\"own\""),
        ("t", "{\"q\":\"own\",\"p\":3}"),
        ("mapped", "{\"own\":2}"),
        ("kind", "\"one\""),
        ("f", "\"own\""),
        ("d", "2.25"),
        ("day", "\"2021-05-06\""),
        ("parts", "[9]"),
        ("plain", "4"),
        ("sluicegate value 0", "1"),
        ("m", "1"),
        ("thrice", "1"),
    ];
    let nullable_tuples = [("nt", "{\"p\":5,\"q\":\"own\"}"), ("np", "[1.5,2]"), ("ant", "[[3,\"own\"],null]")];
    let is_known = "SELECT count() FROM system.settings WHERE name = 'allow_experimental_nullable_tuple_type'";
    let has_nullable_tuples = clickhouse.query(is_known).trim() == "1";
    let columns = format!("{COLUMNS}{}", if has_nullable_tuples { NULLABLE_TUPLES } else { "" });
    let more: &[(&str, &str)] = if has_nullable_tuples { &nullable_tuples } else { &[] };
    let fields = [&fields[..], more].concat();
    let mut objects = vec![vec![("plain", "1")], fields.clone()];
    // Each alone, each as null, each missing among all; all nulls; a bad value.
    for (index, (name, value)) in fields.iter().copied().enumerate() {
        objects.push(vec![("plain", "1"), (name, value)]);
        objects.push(vec![("plain", "1"), (name, "null")]);
        objects.push(vec![("plain", "1"), (name, "[[]]")]);
        objects.push(fields.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, field)| *field).collect());
        objects.push(
            fields.iter().rev().map(|(other, value)| (*other, if *other == name { "null" } else { value })).collect(),
        );
    }
    objects.push(fields.iter().map(|(name, _)| (*name, "null")).collect());
    objects.retain(|object| object.iter().filter(|(name, _)| *name == "plain").count() < 2);
    let lines = objects.iter().map(|object| {
        let members: Vec<String> = object.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Line { json: members.join(","), exception: None }
    });
    compare(clickhouse, &database, &columns, &lines.collect::<Vec<_>>());
}

const TABLE: &str = "id UInt32, a Int32 DEFAULT id + 100, b String DEFAULT concat('b', toString(a)), e UInt8 EPHEMERAL 1, \
                     c Array(UInt8) DEFAULT [e]";

fn create(clickhouse: &ClickHouse, database: &str) {
    clickhouse.query(&format!(
        "CREATE TABLE {database}.measures ({TABLE}) ENGINE = MergeTree ORDER BY id \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
}

fn rows(clickhouse: &ClickHouse, database: &str) -> String {
    clickhouse.query(&format!("SELECT id, a, b, c FROM {database}.measures ORDER BY id FORMAT TSV"))
}

fn rows_with_defaults_wait_for_the_columns_that_they_were_written_for(variant: Variant) {
    let clickhouse = shared_clickhouse();
    for convert in [false, true] {
        let database = clickhouse.database();
        create(clickhouse, &database);
        let flags = ["--table", "measures", "--batch-age", "1h", "--batch-rows", "2"];
        let server = Server::start(clickhouse, &database, &variant.and(&flags));
        let send = |event: &str| assert_eq!(post(server.address(), "/api/measures", event.as_bytes()).status, 200);
        send(r#"{"id":1}"#);
        clickhouse.query(&format!("ALTER TABLE {database}.measures MODIFY COLUMN a Int64 DEFAULT id + 1000"));
        send(r#"{"id":2,"a":7,"e":5}"#);
        // Nothing is converted without an order.
        wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("`a` was Int32").then_some(()));
        assert_eq!(rows(clickhouse, &database), "");
        if convert {
            let admin = server.admin_address().to_string();
            let (done, _, error) = run(&["spool", "requeue", "--convert", "--admin-listen", &admin]);
            assert!(done, "{error}");
        } else {
            clickhouse.query(&format!("ALTER TABLE {database}.measures MODIFY COLUMN a Int32 DEFAULT id + 1000"));
        }
        server.wait_for_rows(clickhouse, &format!("{database}.measures"), 2);
        // The expression of the time when the rows were written.
        assert_eq!(rows(clickhouse, &database), "1\t101\tb101\t[1]\n2\t7\tb7\t[5]\n");
        // The next two events are encoded for the same columns: those that the table has now. An order makes
        // the server look at once.
        let kept = server.spool_dir().join("measures/schema.json");
        let follows = || {
            assert_eq!(post(server.admin_address(), "/spool/requeue", b"").status, 200);
            let kept = std::fs::read_to_string(&kept).unwrap();
            (kept.contains("id + 1000") && kept.contains("\"Int64\"") == convert).then_some(())
        };
        wait_for(|| format!("{:?}\n{}", std::fs::read_to_string(&kept), server.log()), follows);
        send(r#"{"id":3}"#);
        send(r#"{"id":4,"b":null,"a":2}"#);
        server.wait_for_rows(clickhouse, &format!("{database}.measures"), 4);
        let expected = "1\t101\tb101\t[1]\n2\t7\tb7\t[5]\n3\t1003\tb1003\t[1]\n4\t2\tb2\t[1]\n";
        assert_eq!(rows(clickhouse, &database), expected);
        assert!(server.stop().success());
    }
}

#[test]
fn a_row_that_a_constraint_refuses_is_cut_out_and_the_others_get_their_defaults() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &database);
    clickhouse.query(&format!("ALTER TABLE {database}.measures ADD CONSTRAINT small CHECK a < 200"));
    let server = Server::start(clickhouse, &database, &["--table", "measures"]);
    let body: String = [1, 150, 2].map(|id| format!("{{\"id\":{id},\"e\":9}}\n")).concat();
    assert_eq!(post(server.address(), "/api/measures", body.as_bytes()).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.measures"), 2);
    server.wait_for_rows(clickhouse, &format!("{database}.measures_quarantine"), 1);
    assert_eq!(rows(clickhouse, &database), "1\t101\tb101\t[9]\n2\t102\tb102\t[9]\n");
    let line = clickhouse.query(&format!("SELECT line FROM {database}.measures_quarantine FORMAT TSVRaw"));
    assert_eq!(line.trim(), r#"{"id":150,"e":9}"#);
    assert!(server.stop().success());
}

#[test]
fn a_large_insert_with_defaults_is_one_block() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &database);
    let flags = ["--table", "measures", "--batch-rows", "100000", "--batch-age", "1h"];
    let server = Server::start(clickhouse, &database, &flags);
    for first in [0, 50_000] {
        let body: String = (first..first + 50_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
        assert_eq!(post(server.address(), "/api/measures", body.as_bytes()).status, 200);
    }
    server.wait_for_rows(clickhouse, &format!("{database}.measures"), 100_000);
    let parts = format!("SELECT count() FROM system.parts WHERE database = '{database}' AND table = 'measures'");
    assert_eq!(clickhouse.query(&parts).trim(), "1");
    let sum = format!("SELECT sum(a - id), uniqExact(b), any(c) FROM {database}.measures");
    assert_eq!(clickhouse.query(&sum).trim(), "10000000\t100000\t[1]");
    assert!(server.stop().success());
}
