//! What ClickHouse refuses: rows are cut out, or everything is held until the operator has fixed it,
//! and in the end every row is somewhere exactly once.

use crate::support::{ClickHouse, Server, Variant, each_insert, post, run, shared_clickhouse, wait_for};

fn sequences(range: impl IntoIterator<Item = i64>) -> String {
    range.into_iter().map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect()
}

fn send(server: &Server, body: &str) {
    assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
}

fn wait_for_warning(server: &Server, text: &str) {
    wait_for(
        || format!("/readyz has no warning with {text}: {}\n{}", server.admin_get("/readyz").text(), server.log()),
        || server.admin_get("/readyz").text().contains(text).then_some(()),
    );
    assert_eq!(server.admin_get("/readyz").status, 200);
    // The look at the table's columns may have said the same before a block met it.
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] >= 1.0).then_some(()));
}

fn requeue(server: &Server, flags: &[&str]) {
    let admin = server.admin_address().to_string();
    let (succeeded, out, error) = run(&[&["spool", "requeue", "--admin-listen", &admin], flags].concat());
    assert!(succeeded && out.contains("{\"requeued\":1}"), "{out}{error}");
}

/// Every sequence of the table, in order.
fn stored(clickhouse: &ClickHouse, table: &str) -> Vec<i64> {
    let rows = clickhouse.query(&format!("SELECT sequence FROM {table} ORDER BY sequence FORMAT TSV"));
    rows.lines().map(|line| line.parse().unwrap()).collect()
}

each_insert!(
    rows_that_violate_a_constraint_are_cut_out_and_quarantined,
    a_cut_goes_on_after_a_kill_and_no_piece_is_stored_twice,
    more_bad_rows_than_a_cut_may_have_pieces_are_held_whole,
    a_view_that_throws_holds_the_whole_block_and_both_are_right_once_it_is_fixed,
    changed_columns_hold_a_block_until_it_is_converted,
);

fn rows_that_violate_a_constraint_are_cut_out_and_quarantined(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT small CHECK sequence NOT IN (3, 50, 99)"));
    send(&server, &sequences(0..100));
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 3);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 97);
    let expected: Vec<i64> = (0..100).filter(|number| ![3, 50, 99].contains(number)).collect();
    assert_eq!(stored(clickhouse, &format!("{database}.events")), expected);
    let refused = clickhouse.query(&format!(
        "SELECT code, ip, JSONExtractInt(line, 'sequence') AS sequence, JSONExtractString(line, 'event'), \
         message LIKE '%small%', server_time > now() - 600 FROM {database}.events_quarantine ORDER BY sequence FORMAT TSV"
    ));
    let rows: Vec<&str> = refused.lines().collect();
    let row = |sequence| format!("refused_by_clickhouse\t127.0.0.1\t{sequence}\te\t1\t1");
    assert_eq!(rows, [row(3), row(50), row(99)]);
    wait_for(|| server.log(), || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()));
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_events_inserted_total{table=\"events\"}"], 97.0);
    assert_eq!(metrics["sluicegate_events_quarantined_total"], 3.0);
    assert!(metrics["sluicegate_inserts_total{table=\"events\",outcome=\"cut\"}"] >= 1.0);
    assert!(server.stop().success());
}

fn a_cut_goes_on_after_a_kill_and_no_piece_is_stored_twice(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&[]));
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT odd CHECK sequence % 40 != 7"));
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine"));
    send(&server, &sequences(0..200));
    // The good rows are in, the refused ones wait for a table.
    wait_for_warning(&server, "events_quarantine");
    server.kill9();
    clickhouse.query(&format!("ALTER TABLE {database}.events DROP CONSTRAINT odd"));
    let server = server.start_again();
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 5);
    let expected: Vec<i64> = (0..200).filter(|number| number % 40 != 7).collect();
    assert_eq!(stored(clickhouse, &format!("{database}.events")), expected);
    assert!(server.stop().success());
}

fn more_bad_rows_than_a_cut_may_have_pieces_are_held_whole(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT many CHECK sequence % 2 = 0"));
    send(&server, &sequences(0..600));
    wait_for_warning(&server, "pieces");
    clickhouse.query(&format!("ALTER TABLE {database}.events DROP CONSTRAINT many"));
    requeue(&server, &[]);
    wait_for(|| server.log(), || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()));
    let quarantined = clickhouse
        .query(&format!("SELECT JSONExtractInt(line, 'sequence') FROM {database}.events_quarantine FORMAT TSV"));
    let mut all: Vec<i64> = quarantined.lines().map(|line| line.parse().unwrap()).collect();
    all.extend(stored(clickhouse, &format!("{database}.events")));
    all.sort_unstable();
    assert_eq!(all, (0..600).collect::<Vec<_>>());
    assert!(server.stop().success());
}

fn a_view_that_throws_holds_the_whole_block_and_both_are_right_once_it_is_fixed(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    clickhouse.query(&format!("CREATE TABLE {database}.sums (sequence Int64) ENGINE = MergeTree ORDER BY sequence SETTINGS non_replicated_deduplication_window = 100"));
    let view = |condition: &str| {
        format!(
            "CREATE MATERIALIZED VIEW {database}.view TO {database}.sums AS SELECT sequence + throwIf({condition}) AS sequence FROM {database}.events"
        )
    };
    clickhouse.query(&view("sequence = 5"));
    send(&server, &sequences(0..20));
    wait_for_warning(&server, "view");
    clickhouse.query(&format!("DROP VIEW {database}.view"));
    clickhouse.query(&view("sequence = -1"));
    requeue(&server, &[]);
    server.wait_for_rows(clickhouse, &format!("{database}.sums"), 20);
    let expected: Vec<i64> = (0..20).collect();
    assert_eq!(stored(clickhouse, &format!("{database}.events")), expected);
    assert_eq!(stored(clickhouse, &format!("{database}.sums")), expected);
    assert!(server.stop().success());
}

fn changed_columns_hold_a_block_until_it_is_converted(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "2s"]));
    send(&server, &sequences(0..10));
    clickhouse.query(&format!("ALTER TABLE {database}.events MODIFY COLUMN sequence Int32, DROP COLUMN param_str"));
    wait_for_warning(&server, "held");
    requeue(&server, &["--convert"]);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 10);
    assert_eq!(stored(clickhouse, &format!("{database}.events")), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_dropped_table_holds_everything_and_takes_it_when_it_is_back() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let create = clickhouse.query(&format!("SHOW CREATE TABLE {database}.events FORMAT TSVRaw"));
    clickhouse.query(&format!("DROP TABLE {database}.events SYNC"));
    send(&server, &sequences(0..5));
    wait_for_warning(&server, "Code: 60");
    clickhouse.query(&create);
    requeue(&server, &[]);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 5);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("\"warnings\":[]").then_some(()));
    assert!(server.stop().success());
}

#[test]
fn when_one_server_is_away_the_next_one_is_tried() {
    let mut away = ClickHouse::start();
    let database = away.database();
    let other = shared_clickhouse();
    other.query(&format!("CREATE DATABASE {database}"));
    let url = format!("{},{}", away.url(), other.url());
    let server = Server::start(other, &database, &["--clickhouse-url", &url]);
    send(&server, &sequences(0..3));
    server.wait_for_rows(&away, &format!("{database}.events"), 3);
    // Both have the table: a replica that is not there yet is made by the first to be asked.
    other.query(&away.query(&format!("SHOW CREATE TABLE {database}.events FORMAT TSVRaw")));
    away.kill();
    send(&server, &sequences(3..8));
    server.wait_for_rows(other, &format!("{database}.events"), 5);
    assert_eq!(stored(other, &format!("{database}.events")), [3, 4, 5, 6, 7]);
    assert!(server.stop().success());
}
