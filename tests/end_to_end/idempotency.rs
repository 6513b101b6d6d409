//! `Idempotency-Key`: a repeat gets the first reply again and stores nothing, whatever happened in
//! between.

use std::thread;

use crate::support::{
    ClickHouse, Connection, Response, Server, Variant, each_engine, post_with, request, shared_clickhouse, wait_for,
};

const TARGET: &str = "/api/events";

/// Too short for an insert on a busy machine.
const SHORT_WAIT: [(&str, &str); 1] = [("SLUICEGATE_INSERTED_TIMEOUT", "1s")];

fn send(server: &Server, key: &str, body: &str) -> Response {
    send_to(server, TARGET, key, body)
}

fn send_to(server: &Server, target: &str, key: &str, body: &str) -> Response {
    post_with(server.address(), target, &format!("Idempotency-Key: {key}\r\n"), body.as_bytes())
}

fn event(name: &str) -> String {
    format!("{{\"event\":\"{name}\"}}\n")
}

fn names(clickhouse: &ClickHouse, database: &str) -> Vec<String> {
    let rows = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event FORMAT TSV"));
    rows.lines().map(str::to_owned).collect()
}

/// Waits until all that was taken is inserted.
fn all_inserted(server: &Server) {
    wait_for(
        || format!("events stay in the spool:\n{}", server.log()),
        || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()),
    );
}

each_engine!(
    a_repeat_gets_the_first_reply_again_and_stores_nothing,
    every_kind_of_first_reply_comes_again,
    of_two_at_once_one_is_stored,
    a_repeat_waits_for_clickhouse_as_the_first_request_did,
    what_is_no_key_is_refused_and_the_connection_lives_on,
    requests_with_and_without_a_key_mix_on_one_connection,
);

fn a_repeat_gets_the_first_reply_again_and_stores_nothing(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let body = format!("{}bad\n{}{{\"sequence\":\"x\"}}", event("a"), event("b"));
    let first = send(&server, "k1", &body);
    assert_eq!((first.status, first.text().contains("\"accepted\":2,\"rejected\":2")), (200, true), "{}", first.text());
    for _ in 0..3 {
        let again = send(&server, "k1", &body);
        assert_eq!((again.status, again.text()), (200, first.text()));
    }
    let reused = send(&server, "k1", &event("c"));
    assert_eq!(reused.status, 422);
    assert!(reused.text().contains("\"error\":\"idempotency_key_reused\""), "{}", reused.text());
    assert_eq!(send(&server, "k2", &event("c")).status, 200);
    // Without a key, the same body is another request.
    assert_eq!(post_with(server.address(), TARGET, "", event("c").as_bytes()).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 4);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 2);
    // Inserted since: the key outlives the block.
    all_inserted(&server);
    assert_eq!(send(&server, "k1", &body).text(), first.text());
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_requests_repeated_total"], 4.0);
    assert_eq!(metrics["sluicegate_events_accepted_total"], 4.0);
    for code in ["invalid_json", "type_mismatch"] {
        assert_eq!(metrics[&format!("sluicegate_events_rejected_total{{code=\"{code}\"}}")], 1.0, "{code}");
    }
    assert_eq!(metrics["sluicegate_idempotency_keys"], 2.0);
    assert_eq!(metrics["sluicegate_idempotency_horizon_seconds"], 86_400.0);
    assert!(server.stop().success());
    assert_eq!(names(clickhouse, &database), ["a", "b", "c", "c"]);
    let quarantined = clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine"));
    assert_eq!(quarantined.trim(), "2");
}

fn every_kind_of_first_reply_comes_again(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&[]));
    let bodies =
        [("bad", "bad\nworse".to_owned(), 422), ("many", "x\n".repeat(1001), 422), ("none", String::new(), 200)];
    let first: Vec<Response> = bodies.iter().map(|(key, body, _)| send(&server, key, body)).collect();
    for restart in [false, true] {
        if restart {
            server.kill9();
            server = server.start_again();
        }
        for ((key, body, status), first) in bodies.iter().zip(&first) {
            let again = send(&server, key, body);
            assert_eq!((first.status, again.status, again.text()), (*status, *status, first.text()), "{key}");
            assert_eq!(send(&server, key, &event("other")).status, 422, "{key}");
        }
    }
    // A dry run stores nothing, so it takes no key.
    assert_eq!(send_to(&server, "/api/events?dry_run=1", "dry", &event("dry")).status, 200);
    assert_eq!(send(&server, "dry", &event("wet")).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 2);
    assert!(server.stop().success());
    assert_eq!(names(clickhouse, &database), ["wet"]);
}

fn of_two_at_once_one_is_stored(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--workers", "3"]));
    for round in 0..20 {
        let bytes =
            request(TARGET, &format!("Idempotency-Key: {round}\r\n"), event(&format!("r{round:02}")).as_bytes());
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    // Pipelined: two more of the same on each connection.
                    let mut connection = Connection::open(server.address());
                    connection.send(&[&bytes[..], &bytes[..]].concat());
                    for _ in 0..2 {
                        let reply = connection.read_response();
                        assert_eq!((reply.status, reply.text().as_str()), (200, "{\"accepted\":1,\"rejected\":0}"));
                    }
                });
            }
        });
    }
    all_inserted(&server);
    assert_eq!(server.metrics()["sluicegate_requests_repeated_total"], 20.0 * 11.0);
    assert!(server.stop().success());
    let expected: Vec<String> = (0..20).map(|round| format!("r{round:02}")).collect();
    assert_eq!(names(clickhouse, &database), expected);
}

#[test]
fn keys_outlive_a_kill_before_and_after_their_block_is_sealed() {
    for durability in ["sync", "written"] {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        // Never sealed by age: what is in the open segment is only there.
        let flags = ["--batch-age", "1h", "--batch-rows", "4", "--durability", durability];
        let mut server = Server::start(clickhouse, &database, &flags);
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(send(&server, name, &event(name)).status, 200);
        }
        server.wait_for_rows(clickhouse, &format!("{database}.events"), 4);
        for _ in 0..2 {
            server.kill9();
            server = server.start_again();
            for name in ["a", "d", "e", "f"] {
                assert_eq!(send(&server, name, &event(name)).status, 200);
                assert_eq!(send(&server, name, &event("other")).status, 422, "{name}");
            }
        }
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["a", "b", "c", "d", "e", "f"]);
    }
}

fn a_repeat_waits_for_clickhouse_as_the_first_request_did(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &variant.and(&[]));
    let target = "/api/events?ack=inserted";
    assert_eq!(send_to(&server, target, "early", &event("early")).status, 200);
    assert_eq!(send_to(&server, target, "early", &event("early")).status, 200);
    // A server that is killed between the reply and the end of the segment's file sends it again.
    server.wait_until_drained();
    let mut server = server.restart_with_environment(&SHORT_WAIT);
    clickhouse.kill();
    let first = send_to(&server, target, "k", &event("late"));
    assert_eq!((first.status, first.text().contains("\"inserted\":false")), (202, true), "{}", first.text());
    for _ in 0..2 {
        let again = send_to(&server, target, "k", &event("late"));
        assert_eq!((again.status, again.text()), (202, first.text()));
        // Nobody waits for ClickHouse who did not ask for it.
        assert_eq!(send(&server, "k", &event("late")).status, 200);
        server.kill9();
        server = server.start_again();
    }
    assert_eq!(send_to(&server, target, "early", &event("early")).status, 200, "it was inserted before");
    clickhouse.restart();
    all_inserted(&server);
    assert_eq!(send_to(&server, target, "k", &event("late")).status, 200);
    assert!(server.stop().success());
    assert_eq!(names(&clickhouse, &database), ["early", "late"]);
}

fn what_is_no_key_is_refused_and_the_connection_lives_on(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--idempotency-keys-max", "2"]));
    let mut connection = Connection::open(server.address());
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(256));
    for headers in ["Idempotency-Key:\r\n", "Idempotency-Key: a\r\nidempotency-key: b\r\n", &long] {
        connection.send(&request(TARGET, headers, event("x").as_bytes()));
        let reply = connection.read_response();
        assert_eq!(reply.status, 400, "{headers}");
        assert!(reply.text().contains("\"error\":\"bad_idempotency_key\""), "{}", reply.text());
    }
    // The newest two are remembered.
    for name in ["a", "b", "c", "a"] {
        connection.send(&request(TARGET, &format!("Idempotency-Key: {name}\r\n"), event(name).as_bytes()));
        assert_eq!(connection.read_response().status, 200);
    }
    assert!(server.metrics()["sluicegate_idempotency_horizon_seconds"] < 86_400.0);
    assert!(server.stop().success());
    assert_eq!(names(clickhouse, &database), ["a", "a", "b", "c"]);
}

fn requests_with_and_without_a_key_mix_on_one_connection(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--workers", "1"]));
    let mut connection = Connection::open(server.address());
    let requests: Vec<Vec<u8>> = ["plain", "a", "plain", "b", "a", "plain", "b", "a"]
        .into_iter()
        .map(|name| {
            let header = if name == "plain" { String::new() } else { format!("Idempotency-Key: {name}\r\n") };
            request(TARGET, &header, event(name).as_bytes())
        })
        .collect();
    // All in one piece: one turn of the worker.
    connection.send(&requests.concat());
    for _ in &requests {
        assert_eq!(connection.read_response().text(), "{\"accepted\":1,\"rejected\":0}");
    }
    all_inserted(&server);
    assert_eq!(server.metrics()["sluicegate_requests_repeated_total"], 3.0);
    assert!(server.stop().success());
    assert_eq!(names(clickhouse, &database), ["a", "b", "plain", "plain", "plain"]);
}
