//! A real disk that is full: at the start, after a crash, under load; and has room again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use support::{ClickHouse, Server, SmallDisk, post, shared_clickhouse, wait_for};

const SMALL_SEGMENTS: [&str; 2] = ["--batch-bytes", "1MiB"];

fn event(name: &str) -> String {
    format!("{{\"event\":\"{name}\"}}\n")
}

fn is_refused_for_want_of_room(server: &Server) {
    let ready = server.admin_get("/readyz");
    assert!(ready.status == 503 && ready.text().contains("disk_full"), "{}", ready.text());
    assert_eq!(server.admin_get("/livez").status, 200);
    let reply = post(server.address(), "/api/events", event("refused").as_bytes());
    assert!(reply.status == 503 && reply.text().contains("disk_full"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some());
}

fn takes_events_again(server: &Server) {
    server.wait_until_ready();
    wait_for(
        || format!("no event is taken:\n{}", server.log()),
        || (post(server.address(), "/api/events", event("later").as_bytes()).status == 200).then_some(()),
    );
}

#[test]
fn a_start_on_a_full_disk_comes_up_and_takes_events_when_there_is_room() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    disk.fill();
    let server = Server::start_on(&disk, clickhouse, &database, &SMALL_SEGMENTS);
    wait_for(
        || format!("the server does not listen:\n{}", server.log()),
        || server.log().contains("\"serving\"").then_some(()),
    );
    wait_for(
        || "the full disk is not noticed".to_owned(),
        || server.admin_get("/readyz").text().contains("disk_full").then_some(()),
    );
    is_refused_for_want_of_room(&server);
    disk.free();
    takes_events_again(&server);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
}

#[test]
fn what_a_crash_left_open_waits_for_room_and_is_not_lost() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    let flags = [&SMALL_SEGMENTS[..], &["--batch-age", "1h"]].concat();
    let mut server = Server::start_on(&disk, clickhouse, &database, &flags);
    server.wait_until_ready();
    for name in ["one", "two"] {
        assert_eq!(post(server.address(), "/api/events", event(name).as_bytes()).status, 200);
    }
    server.kill9();
    disk.fill();
    let server = server.start_again_unready();
    wait_for(
        || "the full disk is not noticed".to_owned(),
        || server.admin_get("/readyz").text().contains("disk_full").then_some(()),
    );
    is_refused_for_want_of_room(&server);
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
    disk.free();
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    takes_events_again(&server);
    assert!(server.stop().success());
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event FORMAT TSV"));
    assert_eq!(events.trim(), "later\none\ntwo");
}

#[test]
fn a_disk_that_fills_under_load_loses_nothing_that_was_acknowledged() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    let server = Server::start_on(&disk, &clickhouse, &database, &SMALL_SEGMENTS);
    server.wait_until_ready();
    clickhouse.kill();
    let body = format!("{{\"event\":\"full\",\"param_str\":\"{}\"}}\n", "x".repeat(1000)).repeat(100);
    let mut accepted = 0;
    let refused = (0..1000).find_map(|_| {
        let reply = post(server.address(), "/api/events", body.as_bytes());
        accepted += u64::from(reply.status == 200) * 100;
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.expect("the disk never fills");
    assert!(refused.status == 503 && refused.text().contains("disk_full"), "{}", refused.text());
    assert!(accepted > 3000, "{accepted} events filled the disk");
    assert!(server.metrics()["sluicegate_shed_total{reason=\"disk_full\"}"] >= 1.0);
    clickhouse.restart();
    takes_events_again(&server);
    assert!(server.stop().success());
    let count = clickhouse.query(&format!("SELECT countIf(event = 'full') FROM {database}.events"));
    assert_eq!(count.trim(), accepted.to_string());
}
