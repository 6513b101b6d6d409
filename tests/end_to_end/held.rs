//! Blocks that are held leave those behind them alone; and while nothing gets through, few are made.

use crate::support::{ClickHouse, Server, post, run, shared_clickhouse, wait_for};

const SOON: [&str; 2] = ["--batch-age", "50ms"];

/// Sends lines of which some may be rejected, or all.
fn send(server: &Server, body: &str) {
    let reply = post(server.address(), "/api/events", body.as_bytes());
    assert!([200, 422].contains(&reply.status), "{} {}", reply.status, reply.text());
}

fn wait_for_held(server: &Server, count: f64) {
    wait_for(
        || format!("{} blocks are held:\n{}", server.metrics()["sluicegate_blocks_held"], server.log()),
        || (server.metrics()["sluicegate_blocks_held"] == count).then_some(()),
    );
}

/// Three bodies are held, each in a block of its own, and what comes behind them goes in by its age.
fn leaves_the_others_alone(clickhouse: &ClickHouse, database: &str, bodies: [&str; 3], rows_of_held: u64) {
    let server = Server::start(clickhouse, database, &SOON);
    for (held, body) in (1..).zip(bodies) {
        send(&server, body);
        wait_for_held(&server, f64::from(held));
    }
    for good in 1..=4 {
        send(&server, "{\"event\":\"good\"}\n");
        server.wait_for_rows(clickhouse, &format!("{database}.events WHERE event = 'good'"), good);
    }
    let rows = clickhouse.query(&format!("SELECT count() FROM {database}.events WHERE event != 'good'"));
    assert_eq!(rows.trim().parse(), Ok(rows_of_held));
}

#[test]
fn events_that_a_view_throws_for_do_not_stop_those_behind_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    Server::start(clickhouse, &database, &SOON).stop();
    clickhouse.query(&format!(
        "CREATE MATERIALIZED VIEW {database}.v ENGINE = Memory AS SELECT throwIf(sequence = 666) AS a FROM {database}.events"
    ));
    let bad = "{\"event\":\"bad\",\"sequence\":666}\n";
    leaves_the_others_alone(clickhouse, &database, [bad; 3], 3);
}

#[test]
fn rejected_lines_without_their_table_do_not_stop_the_events_behind_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    Server::start(clickhouse, &database, &SOON).stop();
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    clickhouse.query(&format!("CREATE TABLE {database}.events_quarantine (a UInt8) ENGINE = MergeTree ORDER BY a"));
    leaves_the_others_alone(clickhouse, &database, ["{\"event\":\"a\"}\nbad\n"; 3], 3);
}

#[test]
fn rejected_lines_without_any_event_do_not_stop_the_events_behind_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    Server::start(clickhouse, &database, &SOON).stop();
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    clickhouse.query(&format!("CREATE TABLE {database}.events_quarantine (a UInt8) ENGINE = MergeTree ORDER BY a"));
    // No INSERT of the table itself gets through meanwhile.
    leaves_the_others_alone(clickhouse, &database, ["bad\n"; 3], 0);
}

#[test]
fn while_clickhouse_is_away_events_wait_in_few_blocks() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &SOON);
    clickhouse.kill();
    for event in 0..40 {
        send(&server, &format!("{{\"sequence\":{event}}}\n"));
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    let files = server.spooled_files();
    assert!(files.len() <= 4, "{files:?}");
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 40);
    server.wait_until_drained();
    assert!(server.stop().success());
}

#[test]
fn what_was_taken_for_another_table_or_database_goes_where_it_belongs() {
    let clickhouse = shared_clickhouse();
    let (database, other) = (clickhouse.database(), clickhouse.database());
    let mut server = Server::start(clickhouse, &database, &SOON);
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    send(&server, "{\"sequence\":1}\n{\"sequence\":2}\n");
    wait_for_held(&server, 1.0);
    server.kill9();
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let (spool, url) = (server.spool_dir().to_string_lossy().into_owned(), clickhouse.url());
    let (succeeded, _, log) = run(&[
        "drain",
        "--log-format",
        "json",
        "--spool-dir",
        &spool,
        "--clickhouse-url",
        &url,
        "--database",
        &other,
        "--table",
        "hits",
    ]);
    assert!(succeeded && log.contains("the spool is empty"), "{log}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "2");
}
