//! What ClickHouse says of rows in its own words, and what a client writes into them: the words of a
//! client decide nothing, and what never passes whole gets through all the same.

use crate::support::{ClickHouse, Server, post, run, shared_clickhouse, wait_for};

fn send(server: &Server, table: &str, body: &str) {
    assert_eq!(post(server.address(), &format!("/api/{table}"), body.as_bytes()).status, 200);
}

fn count(clickhouse: &ClickHouse, table: &str) -> u64 {
    clickhouse.query(&format!("SELECT count() FROM {table}")).trim().parse().unwrap()
}

fn wait_until_nothing_waits(server: &Server) {
    let spooled = || server.metrics()["sluicegate_events_spooled"];
    wait_for(|| server.log(), || (spooled() == 0.0).then_some(()));
}

#[test]
fn what_a_client_writes_into_an_event_decides_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--batch-age", "20ms"]);
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT short CHECK length(param_str) < 5"));
    let texts = [
        "x: while pushing to view default.v",
        "while pushing to view",
        "Type of 'a' must be UInt32",
        "Too many partitions for single INSERT block",
        "is violated at row 1",
        "two\\nlines: while pushing to view d.v",
    ];
    for (number, text) in texts.iter().enumerate() {
        let rows: String = (0..10)
            .map(|row| format!("{{\"sequence\":{row},\"param_str\":\"{}\"}}\n", if row == 4 { text } else { "ok" }))
            .collect();
        send(&server, "events", &rows);
        let ends = [(format!("{database}.events"), 9), (format!("{database}.events_quarantine"), 1)];
        for (table, rows) in ends {
            server.wait_for_rows(clickhouse, &table, (number as u64 + 1) * rows);
        }
    }
    wait_until_nothing_waits(&server);
    assert!(server.admin_get("/readyz").text().contains("\"warnings\":[]"), "{}", server.log());
}

#[test]
fn a_table_named_partitions_gets_its_rows_when_it_has_too_many_parts() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.`Too many partitions` (event String, server_time DateTime('UTC')) ENGINE = MergeTree \
         ORDER BY event SETTINGS non_replicated_deduplication_window = 100, parts_to_throw_insert = 1, \
         parts_to_delay_insert = 1, max_delay_to_insert = 1"
    ));
    clickhouse.query(&format!("RENAME TABLE {database}.`Too many partitions` TO {database}.partitions"));
    clickhouse.query(&format!("SYSTEM STOP MERGES {database}.partitions"));
    let server = Server::start(clickhouse, &database, &["--table", "partitions", "--batch-age", "20ms"]);
    let body = "{\"event\":\"e\"}\n".repeat(16);
    for _ in 0..3 {
        send(&server, "partitions", &body);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let retries = || server.metrics()["sluicegate_inserts_total{table=\"partitions\",outcome=\"retry\"}"];
    wait_for(|| server.log(), || (retries() >= 2.0).then_some(()));
    clickhouse.query(&format!("ALTER TABLE {database}.partitions MODIFY SETTING parts_to_throw_insert = 1000"));
    wait_until_nothing_waits(&server);
    assert_eq!(count(clickhouse, &format!("{database}.partitions")), 48);
    assert_eq!(count(clickhouse, &format!("{database}.partitions_quarantine")), 0, "good rows were set aside");
}

#[test]
fn rows_of_many_partitions_go_in_though_a_limit_refuses_them_at_first() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.wide (event String, sequence Int64, server_time DateTime('UTC')) ENGINE = MergeTree \
         PARTITION BY sequence ORDER BY event SETTINGS non_replicated_deduplication_window = 10000"
    ));
    let server = Server::start(clickhouse, &database, &["--table", "wide"]);
    let body: String = (0..1000).map(|number| format!("{{\"sequence\":{}}}\n", number % 250)).collect();
    send(&server, "wide", &body);
    wait_until_nothing_waits(&server);
    let stored = format!("SELECT count(), uniqExact(sequence) FROM {database}.wide FORMAT TSV");
    assert_eq!(clickhouse.query(&stored).trim(), "1000\t250", "{}", server.log());
    assert_eq!(count(clickhouse, &format!("{database}.wide_quarantine")), 0);
    assert!(server.admin_get("/readyz").text().contains("\"warnings\":[]"), "{}", server.log());
}

#[test]
fn a_conversion_stores_no_number_that_an_enum_lacks_and_wraps_no_integer() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.t (kind Enum8('a' = 1, 'b' = 2, 'c' = 3), number Int64, server_time DateTime('UTC')) \
         ENGINE = MergeTree ORDER BY number SETTINGS non_replicated_deduplication_window = 100"
    ));
    let server = Server::start(&clickhouse, &database, &["--table", "t", "--batch-age", "5s"]);
    let rows = ["a", "b", "c"].iter().zip([1, 2, 300]);
    let body: String = rows.map(|(kind, number)| format!("{{\"kind\":\"{kind}\",\"number\":{number}}}\n")).collect();
    send(&server, "t", &body);
    // Other numbers for the names, one name less, and a narrower integer.
    clickhouse.query(&format!("DROP TABLE {database}.t SYNC"));
    clickhouse.query(&format!(
        "CREATE TABLE {database}.t (kind Enum8('b' = 1, 'a' = 7), number Int16, server_time DateTime('UTC')) \
         ENGINE = MergeTree ORDER BY number SETTINGS non_replicated_deduplication_window = 100"
    ));
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] >= 1.0).then_some(()));
    let admin = server.admin_address().to_string();
    let (ok, _, error) = run(&["spool", "requeue", "--convert", "--admin-listen", &admin]);
    assert!(ok, "{error}");
    wait_until_nothing_waits(&server);
    let stored = clickhouse.query(&format!("SELECT kind, number FROM {database}.t ORDER BY number FORMAT TSV"));
    assert_eq!(stored.lines().collect::<Vec<_>>(), ["a\t1", "b\t2"], "{}", server.log());
    let aside = clickhouse.query(&format!("SELECT JSONExtractInt(line, 'number') FROM {database}.t_quarantine"));
    assert_eq!(aside.trim(), "300");
}
