//! `--dedup-field`: an event whose value was stored lately is accepted and not stored again.

use std::thread;

use crate::support::{ClickHouse, Server, Variant, each_engine, post, shared_clickhouse, wait_for};

const FLAGS: [&str; 2] = ["--dedup-field", "session"];

fn event(session: &str, sequence: u32) -> String {
    format!("{{\"event\":\"e\",\"sequence\":{sequence},\"session\":\"{session}\"}}\n")
}

fn send(server: &Server, body: &str) -> String {
    let reply = post(server.address(), "/api/events", body.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

fn stored(clickhouse: &ClickHouse, database: &str) -> String {
    let rows = format!("SELECT session, sequence FROM {database}.events ORDER BY session, sequence FORMAT CSV");
    clickhouse.query(&rows).replace('"', "").replace('\n', " ").trim().to_owned()
}

fn accepted(count: u32) -> String {
    format!("{{\"accepted\":{count},\"rejected\":0}}")
}

each_engine!(
    a_value_is_stored_once_whatever_request_it_comes_in,
    clients_that_send_the_same_at_once_store_it_once,
    a_repeat_that_waits_for_clickhouse_waits_for_the_first_one,
);

fn a_value_is_stored_once_whatever_request_it_comes_in(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&FLAGS));
    assert_eq!(send(&server, &[event("a", 1), event("b", 2), event("a", 3), event("c", 4)].concat()), accepted(4));
    assert_eq!(send(&server, &[event("b", 5), event("d", 6)].concat()), accepted(2));
    // All of it known: nothing is stored, and it is accepted all the same.
    assert_eq!(send(&server, &[event("d", 7), event("a", 8)].concat()), accepted(2));
    // The same value in another spelling; events without one are all different.
    assert_eq!(
        send(&server, "{\"sequence\":9,\"session\":\"\\u0061\"}\n{\"sequence\":10}\n{\"sequence\":11}"),
        accepted(3)
    );
    let reply = post(server.address(), "/api/events", [event("a", 12), "bad".into()].concat().as_bytes());
    assert!(reply.text().starts_with("{\"accepted\":1,\"rejected\":1,"), "{}", reply.text());
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    // Nothing but repeats: they need no place in the spool.
    server.wait_until_drained();
    assert_eq!(send(&server, &event("d", 13)), accepted(1));
    server.wait_until_drained();
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_events_accepted_total"], 13.0);
    assert_eq!(metrics["sluicegate_events_duplicates_total"], 7.0);
    assert!(server.stop().success());
    assert_eq!(stored(clickhouse, &database), ",10 ,11 a,1 b,2 c,4 d,6");
}

#[test]
fn values_outlive_a_kill_before_and_after_their_block_is_sealed() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = [&FLAGS[..], &["--batch-age", "1h", "--batch-rows", "3"]].concat();
    let mut server = Server::start(clickhouse, &database, &flags);
    let sessions = ["a", "b", "c", "d", "e"];
    for (session, sequence) in sessions.iter().zip(1..) {
        send(&server, &event(session, sequence));
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 3);
    for round in 1..=2 {
        server.kill9();
        server = server.start_again();
        for session in sessions {
            assert_eq!(send(&server, &event(session, round * 10)), accepted(1));
        }
    }
    assert_eq!(server.metrics()["sluicegate_events_duplicates_total"], 5.0);
    assert!(server.stop().success());
    assert_eq!(stored(clickhouse, &database), "a,1 b,2 c,3 d,4 e,5");
}

fn clients_that_send_the_same_at_once_store_it_once(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[&FLAGS[..], &["--workers", "3"]].concat()));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for request in 0..20 {
                    // Each request shares half of its events with the next.
                    let body: String =
                        (request..request + 10).map(|number| event(&format!("s{number:02}"), number)).collect();
                    assert_eq!(send(&server, &body), accepted(10));
                }
            });
        }
    });
    wait_for(|| server.log(), || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()));
    assert_eq!(server.metrics()["sluicegate_events_duplicates_total"], f64::from(6 * 20 * 10 - 29));
    assert!(server.stop().success());
    let expected: Vec<String> = (0..29).map(|number| format!("s{number:02},{number}")).collect();
    assert_eq!(stored(clickhouse, &database), expected.join(" "));
}

fn a_repeat_that_waits_for_clickhouse_waits_for_the_first_one(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &variant.and(&FLAGS));
    let address = server.address();
    let inserted = |session: &str| post(address, "/api/events?ack=inserted", event(session, 1).as_bytes()).status;
    assert_eq!((inserted("a"), inserted("a")), (200, 200));
    // A server that is killed between the reply and the end of the segment's file sends it again.
    server.wait_until_drained();
    // Too short for an insert on a busy machine.
    let server = server.restart_with_environment(&[("SLUICEGATE_INSERTED_TIMEOUT", "1s")]);
    clickhouse.kill();
    assert_eq!((inserted("b"), inserted("b")), (202, 202));
    assert_eq!(inserted("a"), 200, "ClickHouse has had it\n{}", server.log());
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 2);
    assert_eq!(inserted("b"), 200);
    let server = server.restart_with_environment(&[("SLUICEGATE_INSERTED_TIMEOUT", "60s")]);
    assert_eq!(inserted("c"), 200);
    assert!(server.stop().success());
    assert_eq!(stored(&clickhouse, &database), "a,1 b,1 c,1");
}

#[test]
fn only_the_newest_values_are_remembered_and_the_field_must_be_there() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[&FLAGS[..], &["--dedup-values-max", "2"]].concat());
    for (session, sequence) in ["a", "b", "c", "b", "a"].iter().zip(1..) {
        send(&server, &event(session, sequence));
    }
    assert!(server.stop().success());
    assert_eq!(stored(clickhouse, &database), "a,1 a,5 b,2 c,3");
    for field in ["nothing", "ip", "server_time"] {
        let (status, log) = Server::expect_failure(clickhouse, &database, &["--dedup-field", field]);
        assert!(!status.success() && log.contains(&format!("--dedup-field {field}")), "{log}");
    }
}
