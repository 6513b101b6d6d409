//! ClickHouse away, killed, restarted; the server killed: every acknowledged event arrives once.

use std::thread;
use std::time::Duration;

use crate::support::{
    ClickHouse, Client, Load, Server, Variant, each_engine, each_insert, each_insert_and_engine, post, wait_for,
};

fn event(name: &str, sequence: u64) -> String {
    format!("{{\"event\":\"{name}\",\"sequence\":{sequence}}}\n")
}

each_insert_and_engine!(a_killed_server_loses_and_doubles_nothing,);

each_insert!(a_killed_clickhouse_loses_and_doubles_nothing,);

each_engine!(
    events_are_taken_while_clickhouse_is_away_and_go_out_when_it_is_back,
    a_first_start_without_clickhouse_waits_and_says_so,
);

fn events_are_taken_while_clickhouse_is_away_and_go_out_when_it_is_back(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &variant.and(&[]));
    assert_eq!(post(server.address(), "/api/events", event("before", 1).as_bytes()).status, 200);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 1);
    clickhouse.kill();
    assert_eq!(post(server.address(), "/api/events", event("away", 2).as_bytes()).status, 200);
    assert_eq!(post(server.address(), "/api/events", b"not json").status, 422);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.admin_get("/readyz").status, 200);
    // A start while it is away: the columns are known from the last time.
    let server = server.restart();
    assert_eq!(post(server.address(), "/api/events", event("restarted", 3).as_bytes()).status, 200);
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 3);
    server.wait_for_rows(&clickhouse, &format!("{database}.events_quarantine"), 1);
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY sequence FORMAT TSV"));
    assert_eq!(events.trim(), "before\naway\nrestarted");
    assert!(server.stop().success());
}

fn a_first_start_without_clickhouse_waits_and_says_so(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    clickhouse.kill();
    let server = Server::start_unready(&clickhouse, &database, &variant.and(&[]));
    let ready = server.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("ClickHouse"), "{}", ready.text());
    assert_eq!(server.admin_get("/livez").status, 200);
    wait_for(|| server.log(), || server.log().contains("waiting for ClickHouse").then_some(()));
    clickhouse.restart();
    server.wait_until_ready();
    assert_eq!(post(server.address(), "/api/events", event("late", 1).as_bytes()).status, 200);
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
}

fn a_killed_server_loses_and_doubles_nothing(variant: Variant) {
    for durability in ["sync", "written"] {
        let clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let flags = ["--durability", durability, "--batch-age", "50ms", "--batch-rows", "2000"];
        let mut server = Server::start(&clickhouse, &database, &variant.and(&flags));
        let load = Load::new(server.address(), 1);
        load.during(&[Client::WithoutKey; 4], || {
            for round in 0..5 {
                thread::sleep(Duration::from_millis(250 + 130 * round));
                server.kill9();
                server = server.start_again();
            }
            thread::sleep(Duration::from_millis(300));
        });
        assert!(server.stop().success());
        assert!(load.counts().events > 100, "{}", load.counts());
        load.check(&clickhouse, &database);
    }
}

fn a_killed_clickhouse_loses_and_doubles_nothing(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let flags = ["--batch-age", "50ms", "--batch-rows", "2000", "--shutdown-timeout", "60s"];
    let server = Server::start(&clickhouse, &database, &variant.and(&flags));
    let load = Load::new(server.address(), 2);
    load.during(&[Client::WithoutKey; 4], || {
        for round in 0..3 {
            thread::sleep(Duration::from_millis(400 + 110 * round));
            clickhouse.kill();
            thread::sleep(Duration::from_millis(200));
            clickhouse.restart();
        }
        thread::sleep(Duration::from_millis(300));
    });
    assert!(server.stop().success());
    assert!(load.counts().events > 100, "{}", load.counts());
    load.check(&clickhouse, &database);
}

#[test]
fn an_insert_that_still_runs_when_the_server_is_back_needs_no_operator() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    // An INSERT of six rows takes over two seconds a column, each with a value of its own: long enough for a start on a busy machine.
    let late: String =
        (0..5).map(|column| format!(", late{column} UInt8 MATERIALIZED sleepEachRow(0.4{column})")).collect();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.slow (event String{late}) ENGINE = MergeTree ORDER BY event \
         SETTINGS non_replicated_deduplication_window = 100"
    ));
    let mut server = Server::start(&clickhouse, &database, &["--table", "slow", "--batch-age", "10ms"]);
    let body = "{\"event\":\"slow\"}\n".repeat(6);
    // The repeat is believed where ClickHouse was certainly up before the first attempt, in whole seconds.
    wait_for(|| server.log(), || (clickhouse.query("SELECT uptime() > 1").trim() == "1").then_some(()));
    assert_eq!(post(server.address(), "/api/slow", body.as_bytes()).status, 200);
    let running = "SELECT count() FROM system.processes WHERE query_id LIKE 'sluicegate-%'";
    wait_for(|| server.log(), || (clickhouse.query(running).trim() == "1").then_some(()));
    server.kill9();
    let server = server.start_again();
    let attempts =
        |outcome: &str| server.metrics()[&format!("sluicegate_inserts_total{{table=\"slow\",outcome=\"{outcome}\"}}")];
    wait_for(|| server.log(), || (attempts("done") == 1.0).then_some(()));
    assert!(attempts("retry") >= 1.0 && attempts("hold") == 0.0, "{}", server.log());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.slow")).trim(), "6");
}
